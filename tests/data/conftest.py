"""Fixtures for the tests of datasets."""

import pytest

from tokret.data import datasets


@pytest.fixture(scope="session")
def read():
    """Returns a function that prepares a dataset: it, and its records by split."""

    def prepare(data_dir, name, **options):
        dataset = datasets.prepare(str(data_dir), name=name, **options)
        splits = dataset.builder.info.splits
        return dataset, {split: list(dataset.records(split)) for split in splits}

    return prepare


@pytest.fixture(scope="session")
def names():
    """Returns a function that lists records' file names."""
    return lambda records: [record["filename"].decode() for record in records]
