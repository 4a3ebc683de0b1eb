"""From photo files to batches: datasets, decoding, augmentation, streams."""
