"""Search in one's own photos: an index of a folder, and questions to it."""
