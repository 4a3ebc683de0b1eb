"""Search in one's own photos: an index of a folder, and queries to it."""
