"""From downloaded files to TFDS datasets, restartable and in whole shards."""
