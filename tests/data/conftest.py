"""Photos and archives in the hosts' formats, small."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from tokret.data import datasets


@pytest.fixture(scope="session")
def jpeg():
    """Returns a function that makes a JPEG's bytes, another for each seed."""

    def make(seed=0, size=(40, 30), kind="JPEG", **options):
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), np.uint8)
        buffer = io.BytesIO()
        photo = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
        photo.save(buffer, kind, **options)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def write_tar():
    """Returns a function that writes a tar of {name: bytes}, as GNU tar would."""

    def write(path, files, mode="w", **options):
        options = {"format": tarfile.GNU_FORMAT} | options
        with tarfile.open(path, mode, **options) as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return path

    return write


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
