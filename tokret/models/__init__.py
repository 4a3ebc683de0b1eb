"""Models: batches of images -> descriptors."""
