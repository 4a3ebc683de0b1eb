"""Every reader of files from outside, with a valid file to start from.

To add one: a function that writes a valid file into a folder, the function of tokret
that reads it, and the mutation of its format.
"""

import gzip
import io
import json
import pickle
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from PIL import Image
from safetensors.numpy import save

from tests.fuzz import mutations
from tests.fuzz.mutations import Mutation
from tests.io import test_torch_files as torch_parts
from tokret.comparison.trials import Trial
from tokret.config import stored
from tokret.config.datasets import ImageFolderConfig
from tokret.config.parsing import parse
from tokret.configs import demo
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
from tokret.data.preparing.photo_files import (
    BadPhotoError,
    PhotoLocation,
    PhotoReader,
)
from tokret.data.preparing.photo_processing import PhotoProcessing, process_photo
from tokret.data.preparing.tar_members import list_members, read_members
from tokret.data.preparing.unpacked_archives import unpack
from tokret.data.records import BadRecordError, read_record
from tokret.data.revisited.text_ground_truth import KINDS, read_texts, to_revisited
from tokret.errors import UserError
from tokret.io.descriptor_files import read_descriptors
from tokret.io.weight_files import read_weights, write_safetensors
from tokret.retrieval import results, whitening
from tokret.retrieval.store.reading import read_store
from tokret.retrieval.store.record import Images, Record
from tokret.retrieval.store.writing import write_store
from tokret.search.catalogue import (
    Catalogue,
    ModelInfo,
    PhotoEntry,
    encode_catalogue,
    read_catalogue,
)
from tokret.search.photos import Stamp
from tokret.training import checkpoint_digests
from tokret.training.checkpoint_digests import verify, write_digests
from tokret.training.checkpoint_metadata import make_metadata, read_config
from tokret.training.reporting import _drop_lines_after

RECORD = Record(
    {"trunk": "tiny", "dim": 3},
    "00ff",
    {"longest_side": 64, "scales": [1.0]},
    Images(
        names=tuple(f"photo {i}.jpg" for i in range(5)),
        sizes=((32, 48),) * 5,
        boxes=(None,) * 4 + ((1.5, 2.0, 30.0, 31.0),),
        digests=tuple(f"{i:016x}" for i in range(5)),
    ),
)
DESCRIPTORS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
CONFIG = parse(demo.get_config("gem").to_dict())
TRUTH = {
    "imlist": ["a", "b", "c d", "é"],
    "qimlist": ["q", "a"],
    "gnd": [
        {"easy": [0], "hard": [1], "junk": [2], "bbx": [0.0, 1.5, 20.0, 30.0]},
        {"easy": [], "hard": [3], "junk": [], "bbx": [5.0, 5.0, 9.0, 9.0]},
    ],
}
TRIAL = {"mAP": 0.5, "recall@1": 0.75}
NUMBERS = {"all": TRIAL, "reranked": {"numbers": {"all": TRIAL}}, "environment": {}}
FAST = PhotoProcessing(resize=16)


class Reader(NamedTuple):
    """A reader of tokret, and how its files are mutated."""

    prepare: Callable[[Path], Path]  # writes a valid file into a folder
    read: Callable[[Path], Any]
    mutate: Mutation = mutations.mutate_bytes
    rewrites: bool = False  # whether reading changes files beside it
    slow: bool = False  # more than some milliseconds: fewer mutations in CI


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    """Returns a function that writes a file."""

    def prepare(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return prepare


def encoded(tree: Any) -> bytes:
    return json.dumps(tree, indent=1).encode()


# Stores and indexes.
def _npy(folder: Path) -> Path:
    np.save(folder / "d.npy", DESCRIPTORS)
    return folder / "d.npy"


def _store(name: str, *, finish: bool) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        with write_store(folder / "store", RECORD) as writer:
            for rows in (np.array([3, 1]), np.array([0, 2, 4])):
                writer.write(rows, DESCRIPTORS[rows], {3: "bad"} if 3 in rows else {})
                if not finish:
                    break
            if finish:
                writer.finish()
        return folder / "store" / name

    return prepare


def _resume(path: Path) -> None:
    with write_store(path.parent, RECORD) as writer:
        missing = np.flatnonzero(~writer.finished)
        if len(missing):
            writer.write(missing, DESCRIPTORS[missing], {})
        writer.finish()


def _catalogue(folder: Path) -> Path:
    model = ModelInfo("/weights", "abc", 64, (1.0,))
    part = "0123456789abcdef"
    photos = {
        "a/b é.jpg": PhotoEntry(Stamp(10, 20), digest=part, part=part, row=3),
        "bad.jpg": PhotoEntry(Stamp(0, 0), "empty"),
    }
    catalogue = encode_catalogue(Catalogue("/photos", model, photos))
    return written("catalogue.json", catalogue)(folder)


def _mutate_catalogue(rng: random.Random, data: bytes, number: int) -> bytes:
    """Of what would still be a catalogue, the checksum is corrected."""
    changed = mutations.mutate_json(rng, data, number)
    try:
        return encode_catalogue(msgspec.json.decode(changed, type=Catalogue))
    except (msgspec.MsgspecError, ValueError):
        return changed


# Runs.
def _config(folder: Path) -> Path:
    stored.save(CONFIG, folder / "config.json")
    return folder / "config.json"


def _metadata(folder: Path) -> Path:
    path = folder / "checkpoints" / "4" / "_CHECKPOINT_METADATA"
    path.parent.mkdir(parents=True)
    content = {"custom_metadata": make_metadata(CONFIG, 4, {"loss": float("nan")})}
    path.write_text(json.dumps({"item_handlers": None, **content}))
    write_digests(path.parent)
    return path


def _read_metadata(path: Path) -> None:
    write_digests(path.parent)
    read_config(path.parent)


def _digests(folder: Path) -> Path:
    return _metadata(folder).with_name(checkpoint_digests.FILE)


def _run_config(folder: Path) -> Path:
    _metadata(folder)
    return _config(folder)


def _trial(name: str) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        (folder / "trained").touch()
        (folder / "one.json").write_bytes(encoded(NUMBERS))
        (folder / "trial.json").write_bytes(encoded({"config": "c", "epochs": "2"}))
        return folder / name

    return prepare


def _read_trial(path: Path) -> None:
    trial = Trial("c", {"epochs": 2}, path.parent)
    trial.train()
    trial.measure("one")


# Ground truth and lists.
TEXTS = {
    "x_1_query.txt": b"oxc1_all_souls_000013 136.5 34.1 648.5 955.7\n",
    **{f"x_1_{kind}.txt": f"photo_{kind}\nother_{kind}\n".encode() for kind in KINDS},
}


def _texts(folder: Path) -> Path:
    for number in range(1, 6):
        for name, content in TEXTS.items():
            (folder / name.replace("_1_", f"_{number}_")).write_bytes(content)
    return folder / "x_1_query.txt"


def _read_texts(path: Path) -> None:
    to_revisited(read_texts(sorted(path.parent.glob("*.txt")), path.parent), ["x"], [])


TABLE = (
    b'path,label,x0,y0,x1,y1\na/0.jpg,a,,,,\na/1.jpg,a,0,1.5,20,30\n"b, c/2.jpg",'
    b'"b ""c""",1,2,3,4\r\n'
)


def _read_lists(path: Path) -> None:
    _, found = list_photos(str(path.parent), str(path.parent / "table.csv"))
    fields = {"validation_list": str(path)} if path.suffix == ".txt" else {}
    split_photos(
        found.photos,
        ImageFolderConfig(name="image_folder", root="r", table="t", **fields),
    )


def _list(folder: Path) -> Path:
    (folder / "table.csv").write_bytes(TABLE)
    return written("list.txt", b"a/0.jpg\n")(folder)


IDS = [f"{n:016x}" for n in (1, 2**40, 2**63)]
FULL = "".join(f'{name},"http://a/b,c",{n}\n' for n, name in enumerate(IDS))
CLEAN = f"landmark_id,images\n7,{IDS[0]} {IDS[1]}\n9,{IDS[2]}\n"


# Archives, datasets and photos.
def _photo(kind: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((40, 30)).save(file, kind, **options)
    return file.getvalue()


def _tar(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=tarfile.PAX_FORMAT) as tar:
        for name in (f"a/{IDS[0]}.jpg", "n" * 120, f"é/{IDS[1]}.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 700
            tar.addfile(member, io.BytesIO(bytes(700)))
    return file.getvalue()


def _mutate_tgz(rng: random.Random, data: bytes, number: int) -> bytes:
    if rng.random() < 0.3:
        return mutations.mutate_bytes(rng, data, number)
    changed = mutations.mutate_tar(rng, gzip.decompress(data), number)
    return gzip.compress(changed, mtime=0)


def _unpack(path: Path) -> None:
    for plain in unpack([path], path.parent / "plain"):
        list(list_members(plain))


def _locations(folder: Path) -> Path:
    (folder / "images_000.tar").write_bytes(_tar("w"))
    _index(folder / "images_000.tar", folder)
    return next(folder.glob("*.npz"))


def _dataset(name: str) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        for label in ("a", "b"):
            (folder / "photos" / label).mkdir(parents=True)
            for number in range(3):
                photo = folder / "photos" / label / f"{number}.jpg"
                photo.write_bytes(_photo("JPEG"))
        _open_dataset(folder)
        return next((folder / "data").rglob(name))

    return prepare


def _open_dataset(folder: Path) -> datasets.Dataset:
    options = {"name": "image_folder", "root": str(folder / "photos")}
    return datasets.prepare(str(folder / "data"), workers=1, **options)


def _read_dataset(path: Path) -> None:
    folder = next(parent for parent in path.parents if (parent / "photos").is_dir())
    dataset = _open_dataset(folder)
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
    with PhotoReader() as reader:
        content = reader.read(PhotoLocation(str(path)))
    # Each of them, whether or not another refuses it.
    for read in (
        lambda: process_photo(content, FAST),
        lambda: np.asarray(decode_exactly(content, str(path))),
        lambda: decode_fast(content, str(path)),
    ):
        try:
            read()
        except (UserError, BadPhotoError):
            error = True
        else:
            error = False
    if error:
        raise UserError(f"{path}: refused")


# Weights.
def _safetensors(folder: Path) -> Path:
    tensors = {"conv.weight": DESCRIPTORS, "conv.bias": np.zeros(3, np.float16)}
    header = {"tokret": '{"layout": "token", "model": {"trunk": "tiny", "dim": 4}}'}
    write_safetensors(folder / "w.safetensors", tensors, header)
    return folder / "w.safetensors"


def _npz(folder: Path) -> Path:
    np.savez(folder / "w.npz", weight=DESCRIPTORS, steps=np.arange(3))
    return folder / "w.npz"


def _read_safetensors(path: Path) -> None:
    try:
        from_header(read_weights(path).metadata)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _whitening(folder: Path) -> Path:
    found = whitening.Whitening(DESCRIPTORS[0], DESCRIPTORS[:3])
    whitening.save(found, folder / "w.safetensors")
    return folder / "w.safetensors"


ORIGIN = {"layout": "token", "tensors": {"a.weight": ["float32"]}, "source": "x.pth"}
METRICS = b'{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n'

_json = mutations.mutate_json
READERS: dict[str, Reader] = {
    "descriptors .npy": Reader(
        _npy, lambda path: read_descriptors(path, 5), mutations.mutate_npy
    ),
    "store.json": Reader(
        _store("store.json", finish=True), lambda path: read_store(path.parent), _json
    ),
    "store's .npy": Reader(
        _store("descriptors.npy", finish=True),
        lambda path: read_store(path.parent),
        mutations.mutate_npy,
    ),
    "unfinished.json": Reader(
        _store("unfinished.json", finish=False), _resume, _json, True, True
    ),
    "store's journal": Reader(
        _store("finished", finish=False), _resume, mutations.mutate_journal, True, True
    ),
    "catalogue.json": Reader(
        _catalogue, lambda path: read_catalogue(path.parent), _mutate_catalogue
    ),
    "results.json": Reader(
        written("results.json", encoded({"benchmarks": NUMBERS, "environment": {}})),
        results.read_results,
        _json,
    ),
    "trial's numbers": Reader(_trial("one.json"), _read_trial, _json),
    "trial.json": Reader(_trial("trial.json"), _read_trial, _json),
    "config.json": Reader(_config, stored.load, _json),
    "run's config.json": Reader(
        _run_config, lambda path: read_config(path.parent / "checkpoints" / "4"), _json
    ),
    "checkpoint metadata": Reader(_metadata, _read_metadata, _json),
    "checkpoint's digests": Reader(_digests, lambda path: verify(path.parent)),
    "metrics.jsonl": Reader(
        written("metrics.jsonl", METRICS),
        lambda path: _drop_lines_after(path, 1),
        mutations.mutate_lines,
        True,
    ),
    "ground truth .json": Reader(
        written("gnd_x.json", encoded(TRUTH)), read_ground_truth, _json
    ),
    "ground truth .pkl": Reader(
        written("gnd_x.pkl", pickle.dumps(TRUTH)),
        read_ground_truth,
        mutations.mutate_pickle,
    ),
    "ground truth of 2007": Reader(_texts, _read_texts),
    "photo table .csv": Reader(written("table.csv", TABLE), _read_lists),
    "photo list": Reader(_list, _read_lists),
    "train.csv": Reader(
        written("train.csv", f"id,url,landmark_id\n{FULL}".encode()),
        photo_lists.read_full,
    ),
    "train_clean.csv": Reader(
        written("train_clean.csv", CLEAN.encode()), photo_lists.read_clean
    ),
    ".tar": Reader(
        written("images_000.tar", _tar("w")),
        lambda path: list(list_members(path)),
        mutations.mutate_tar,
    ),
    ".tgz": Reader(
        written("a.tgz", gzip.compress(_tar("w"), mtime=0)), _unpack, rewrites=True
    ),
    ".tgz, not unpacked": Reader(
        written("a.tgz", gzip.compress(_tar("w"), mtime=0)),
        lambda path: list(read_members(path)),
        _mutate_tgz,
    ),
    "index of a tar": Reader(
        _locations,
        lambda path: _index(path.parent / "images_000.tar", path.parent),
        mutations.mutate_zip,
        True,
    ),
    "dataset_info.json": Reader(
        _dataset("dataset_info.json"), _read_dataset, _json, slow=True
    ),
    "features.json": Reader(_dataset("features.json"), _read_dataset, _json, slow=True),
    "array_record": Reader(_dataset("*train*"), _read_dataset, slow=True),
    "JPEG": Reader(written("a.jpg", _photo("JPEG")), _read_photo),
    "PNG": Reader(written("a.png", _photo("PNG")), _read_photo),
    "WebP": Reader(written("a.webp", _photo("WEBP")), _read_photo),
    ".pth, zip": Reader(
        written("w.pth", torch_parts.zip_file(torch_parts.TOP)),
        read_weights,
        mutations.mutate_zip,
    ),
    ".pth, legacy": Reader(
        written("w.pth", torch_parts.legacy_file(torch_parts.TOP)), read_weights
    ),
    ".safetensors": Reader(
        _safetensors, _read_safetensors, mutations.mutate_safetensors
    ),
    ".safetensors of others": Reader(
        written("w.safetensors", save({"conv.weight": DESCRIPTORS}, {"k": "v"})),
        read_weights,
        mutations.mutate_safetensors,
    ),
    ".pth, listed": Reader(
        written("w.pth", torch_parts.zip_file(torch_parts.TOP)),
        list_contents,
        mutations.mutate_zip,
    ),
    ".npz, listed": Reader(_npz, list_contents, mutations.mutate_zip),
    "whitening": Reader(_whitening, whitening.read, mutations.mutate_safetensors),
    "origin.json": Reader(written("origin.json", encoded(ORIGIN)), _read_origin, _json),
}
