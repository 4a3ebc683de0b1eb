"""Every reader of files from outside, with a valid file to start from.

To add one: a function that writes a valid file into a folder, the function of tokret
that reads it, and the mutation of its format.
"""

import gzip
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.fuzz import mutations
from tests.fuzz import valid_files as valid
from tests.fuzz.mutations import Mutation
from tests.io import test_torch_files as torch_parts
from tokret.comparison.trials import Trial
from tokret.config import stored
from tokret.config.datasets import ImageFolderConfig
from tokret.convert.checkpoints import _read_origin
from tokret.convert.contents import list_contents
from tokret.convert.recognition import from_header
from tokret.data import datasets
from tokret.data.decoding import decode_exactly, decode_fast
from tokret.data.google_landmarks import photo_lists
from tokret.data.google_landmarks.photo_locations import _index
from tokret.data.ground_truth import read_ground_truth
from tokret.data.image_folder.builder import list_photos
from tokret.data.image_folder.splits import split_photos
from tokret.data.preparing import dataset_digests
from tokret.data.preparing.photo_files import (
    BadPhotoError,
    PhotoLocation,
    PhotoReader,
)
from tokret.data.preparing.photo_processing import PhotoProcessing, process_photo
from tokret.data.preparing.tar_members import list_members, read_members
from tokret.data.preparing.tfds_layout import open_dataset
from tokret.data.preparing.unpacked_archives import unpack
from tokret.data.records import BadRecordError, read_record
from tokret.data.revisited.text_ground_truth import read_texts, to_revisited
from tokret.errors import UserError
from tokret.io.descriptor_files import read_descriptors
from tokret.io.weight_files import read_weights
from tokret.retrieval import results, whitening
from tokret.retrieval.store.reading import read_store
from tokret.retrieval.store.writing import write_store
from tokret.search.catalogue import open_catalogue
from tokret.training.checkpoint_digests import verify, write_digests
from tokret.training.checkpoint_metadata import read_config
from tokret.training.metrics_lines import _drop_lines_after

FAST = PhotoProcessing(resize=16)


class Reader(NamedTuple):
    """A reader of tokret, and how its files are mutated."""

    prepare: Callable[[Path], Path]  # writes a valid file into a folder
    read: Callable[[Path], Any]
    mutate: Mutation = mutations.mutate_bytes
    rewrites: bool = False  # whether reading changes files beside it
    slow: bool = False  # more than some milliseconds: fewer mutations in CI


def _resume(path: Path) -> None:
    with write_store(path.parent, valid.RECORD) as writer:
        missing = np.flatnonzero(~writer.finished)
        if len(missing):
            writer.write(missing, valid.DESCRIPTORS[missing], {})
        writer.finish()


def _read_catalogue(path: Path) -> None:
    with open_catalogue(path.parent, path.name) as catalogue:
        entries = [*catalogue.entries()]
        catalogue.photos_with(entry.digest for entry in entries if entry.digest)
        for part in catalogue.parts():
            catalogue.photos_in(part.name)
        catalogue.removed()
        catalogue.errors()
        catalogue.folders()
        catalogue.labels()
        catalogue.rows_of(["a"])
        catalogue.check()


def _read_metadata(path: Path) -> None:
    write_digests(path.parent)
    read_config(path.parent)


def _read_trial(path: Path) -> None:
    trial = Trial("c", {"epochs": 2}, path.parent)
    trial.train()
    trial.measure("one")


def _read_texts(path: Path) -> None:
    to_revisited(read_texts(sorted(path.parent.glob("*.txt")), path.parent), ["x"], [])


def _read_lists(path: Path) -> None:
    _, found = list_photos(str(path.parent), str(path.parent / "table.csv"))
    fields = {"validation_list": str(path)} if path.suffix == ".txt" else {}
    split_photos(
        found.photos,
        ImageFolderConfig(name="image_folder", root="r", table="t", **fields),
    )


def _mutate_tgz(rng: random.Random, data: bytes, number: int) -> bytes:
    if rng.random() < 0.3:
        return mutations.mutate_bytes(rng, data, number)
    changed = mutations.mutate_tar(rng, gzip.decompress(data), number)
    return gzip.compress(changed, mtime=0)


def _unpack(path: Path) -> None:
    for plain in unpack([path], path.parent / "plain"):
        list(list_members(plain))


def _read_dataset(path: Path) -> None:
    dataset_digests.write_digests(path.parent, {})
    dataset = datasets.Dataset("image_folder", open_dataset(path.parent))
    dataset.identity()
    for split in ("train", "validation"):
        if dataset.has(split):
            records = dataset.records(split)
            for row in range(min(len(records), 9)):
                try:
                    record = read_record(records, row)
                except BadRecordError as error:
                    raise UserError(f"{path}: {error}") from error
                decode_fast(record["image"], f"{path}: {record['filename']}")


def _read_photo(path: Path) -> None:
    try:
        with PhotoReader() as reader:
            content = reader.read(PhotoLocation(str(path)))
    except BadPhotoError as error:
        raise UserError(f"{path}: {error}") from error
    refused = False
    # Each of them, whether or not another refuses it.
    for read in (
        lambda: process_photo(content, FAST),
        lambda: np.asarray(decode_exactly(content, str(path))),
        lambda: decode_fast(content, str(path)),
    ):
        try:
            read()
        except (UserError, BadPhotoError):
            refused = True
    if refused:
        raise UserError(f"{path}: refused")


def _read_safetensors(path: Path) -> None:
    try:
        from_header(read_weights(path).metadata)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


_json = mutations.mutate_json


READERS: dict[str, Reader] = {
    "descriptors .npy": Reader(
        valid.npy, lambda path: read_descriptors(path, 5), mutations.mutate_npy
    ),
    "store.json": Reader(
        valid.store("store.json", finish=True),
        lambda path: read_store(path.parent),
        _json,
    ),
    "store's .npy": Reader(
        valid.store("descriptors.npy", finish=True),
        lambda path: read_store(path.parent),
        mutations.mutate_npy,
    ),
    "unfinished.json": Reader(
        valid.store("unfinished.json", finish=False), _resume, _json, True, True
    ),
    "store's journal": Reader(
        valid.store("finished", finish=False),
        _resume,
        mutations.mutate_journal,
        True,
        True,
    ),
    "catalogue.sqlite": Reader(
        valid.catalogue, _read_catalogue, mutations.mutate_sqlite
    ),
    "results.json": Reader(
        valid.written(
            "results.json",
            valid.encoded({"benchmarks": valid.NUMBERS, "environment": {}}),
        ),
        results.read_results,
        _json,
    ),
    "trial's numbers": Reader(valid.trial("one.json"), _read_trial, _json),
    "trial.json": Reader(valid.trial("trial.json"), _read_trial, _json),
    "config.json": Reader(valid.config_file, stored.load, _json),
    "run's config.json": Reader(
        valid.run_config,
        lambda path: read_config(path.parent / "checkpoints" / "4"),
        _json,
    ),
    "checkpoint metadata": Reader(valid.metadata, _read_metadata, _json),
    "checkpoint's digests": Reader(valid.digests, lambda path: verify(path.parent)),
    "metrics.jsonl": Reader(
        valid.written("metrics.jsonl", valid.METRICS),
        lambda path: _drop_lines_after(path, 1),
        mutations.mutate_lines,
        True,
    ),
    "ground truth .json": Reader(
        valid.written("gnd_x.json", valid.encoded(valid.TRUTH)),
        read_ground_truth,
        _json,
    ),
    "ground truth .pkl": Reader(
        valid.written("gnd_x.pkl", pickle.dumps(valid.TRUTH)),
        read_ground_truth,
        mutations.mutate_pickle,
    ),
    "ground truth of 2007": Reader(valid.texts, _read_texts),
    "photo table .csv": Reader(valid.written("table.csv", valid.TABLE), _read_lists),
    "photo list": Reader(valid.photo_list, _read_lists),
    "train.csv": Reader(
        valid.written("train.csv", f"id,url,landmark_id\n{valid.FULL}".encode()),
        photo_lists.read_full,
    ),
    "train_clean.csv": Reader(
        valid.written("train_clean.csv", valid.CLEAN.encode()), photo_lists.read_clean
    ),
    ".tar": Reader(
        valid.written("images_000.tar", valid.tar("w")),
        lambda path: list(list_members(path)),
        mutations.mutate_tar,
    ),
    ".tgz": Reader(
        valid.written("a.tgz", gzip.compress(valid.tar("w"), mtime=0)),
        _unpack,
        rewrites=True,
    ),
    ".tgz, not unpacked": Reader(
        valid.written("a.tgz", gzip.compress(valid.tar("w"), mtime=0)),
        lambda path: list(read_members(path)),
        _mutate_tgz,
    ),
    "index of a tar": Reader(
        valid.locations,
        lambda path: _index(path.parent / "images_000.tar", path.parent),
        mutations.mutate_zip,
        True,
    ),
    "dataset_info.json": Reader(
        valid.dataset("dataset_info.json"), _read_dataset, _json, slow=True
    ),
    "features.json": Reader(
        valid.dataset("features.json"), _read_dataset, _json, slow=True
    ),
    "array_record": Reader(valid.dataset("*train*"), _read_dataset, slow=True),
    "JPEG": Reader(valid.written("a.jpg", valid.photo("JPEG")), _read_photo),
    "PNG": Reader(valid.written("a.png", valid.photo("PNG")), _read_photo),
    "WebP": Reader(valid.written("a.webp", valid.photo("WEBP")), _read_photo),
    "GIF": Reader(valid.written("a.gif", valid.photo("GIF")), _read_photo),
    "BMP": Reader(valid.written("a.bmp", valid.photo("BMP")), _read_photo),
    "TIFF": Reader(valid.written("a.tif", valid.photo("TIFF")), _read_photo),
    "AVIF": Reader(valid.written("a.avif", valid.photo("AVIF")), _read_photo),
    ".pth, zip": Reader(
        valid.written("w.pth", torch_parts.zip_file(torch_parts.TOP)),
        read_weights,
        mutations.mutate_zip,
    ),
    ".pth, legacy": Reader(
        valid.written("w.pth", torch_parts.legacy_file(torch_parts.TOP)), read_weights
    ),
    ".safetensors": Reader(
        valid.safetensors, _read_safetensors, mutations.mutate_safetensors
    ),
    ".safetensors of others": Reader(
        valid.written("w.safetensors", valid.FOREIGN),
        _read_safetensors,
        mutations.mutate_safetensors,
    ),
    "whitening": Reader(
        valid.whitening_file, whitening.read, mutations.mutate_safetensors
    ),
    ".pth, listed": Reader(
        valid.written("w.pth", torch_parts.zip_file(torch_parts.TOP)),
        list_contents,
        mutations.mutate_zip,
    ),
    ".npz, listed": Reader(valid.npz, list_contents, mutations.mutate_zip),
    ".npy, listed": Reader(valid.npy, list_contents, mutations.mutate_npy),
    "origin.json": Reader(
        valid.written("origin.json", valid.encoded(valid.ORIGIN)), _read_origin, _json
    ),
}
