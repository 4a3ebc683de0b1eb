"""Re-ranking: better rankings from the same descriptors, after the search."""
