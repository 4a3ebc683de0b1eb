"""From files as they lie about to a dataset in whole shards, restartable."""
