"""Valid files of every kind that tokret reads: what mutations start from."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save

from tokret.config import stored
from tokret.config.parsing import parse
from tokret.configs import demo
from tokret.data import datasets
from tokret.data.google_landmarks.photo_locations import _index
from tokret.data.revisited.text_ground_truth import KINDS
from tokret.io.weight_files import write_safetensors
from tokret.retrieval import whitening
from tokret.retrieval.store.record import Images, Record
from tokret.retrieval.store.writing import write_store
from tokret.search.catalogue import FILE
from tokret.search.catalogue_rows import ModelInfo, PhotoEntry
from tokret.search.catalogue_writing import writing
from tokret.search.part_stores import to_array
from tokret.search.photos import Stamp
from tokret.training import checkpoint_digests
from tokret.training.checkpoint_digests import write_digests
from tokret.training.checkpoint_metadata import make_metadata

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


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    """Returns a function that writes a file."""

    def prepare(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return prepare


def encoded(tree: Any) -> bytes:
    return json.dumps(tree, indent=1).encode()


def npy(folder: Path) -> Path:
    np.save(folder / "d.npy", DESCRIPTORS)
    return folder / "d.npy"


def npz(folder: Path) -> Path:
    np.savez(folder / "w.npz", a=DESCRIPTORS, b=np.zeros(3, np.int8))
    return folder / "w.npz"


def store(name: str, *, finish: bool) -> Callable[[Path], Path]:
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


def catalogue(folder: Path) -> Path:
    model = ModelInfo("/weights", "abc", 64, (1.0,), {"dim": 8})
    part = "0123456789abcdef"
    photos = [
        PhotoEntry("a/b é.jpg", Stamp(10, 20), "", part, part, 1),
        PhotoEntry("bad.jpg", Stamp(0, 0), "empty"),
        PhotoEntry("removed.jpg", Stamp(0, 0), "", "f" * 16),
    ]
    with writing(folder, "/photos", FILE, model, is_new=True) as writer:
        writer.set_engines({"qdrant://host:6333/photos": {"points": 1}})
        writer.add_part(part, to_array(["f" * 16, part]))
        writer.put(photos)
        writer.commit()
    return folder / FILE


def config_file(folder: Path) -> Path:
    stored.save(CONFIG, folder / "config.json")
    return folder / "config.json"


def metadata(folder: Path) -> Path:
    path = folder / "checkpoints" / "4" / "_CHECKPOINT_METADATA"
    path.parent.mkdir(parents=True)
    content = {"custom_metadata": make_metadata(CONFIG, 4, {"loss": float("nan")})}
    path.write_text(json.dumps({"item_handlers": None, **content}))
    write_digests(path.parent)
    return path


def digests(folder: Path) -> Path:
    return metadata(folder).with_name(checkpoint_digests.FILE)


def run_config(folder: Path) -> Path:
    metadata(folder)
    return config_file(folder)


def trial(name: str) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        (folder / "trained").touch()
        (folder / "one.json").write_bytes(encoded(NUMBERS))
        (folder / "trial.json").write_bytes(encoded({"config": "c", "epochs": "2"}))
        return folder / name

    return prepare


TEXTS = {
    "x_1_query.txt": b"oxc1_all_souls_000013 136.5 34.1 648.5 955.7\n",
    **{f"x_1_{kind}.txt": f"photo_{kind}\nother_{kind}\n".encode() for kind in KINDS},
}


def texts(folder: Path) -> Path:
    for number in range(1, 6):
        for name, content in TEXTS.items():
            (folder / name.replace("_1_", f"_{number}_")).write_bytes(content)
    return folder / "x_1_query.txt"


TABLE = (
    b'path,label,x0,y0,x1,y1\na/0.jpg,a,,,,\na/1.jpg,a,0,1.5,20,30\n"b, c/2.jpg",'
    b'"b ""c""",1,2,3,4\r\n'
)


def photo_list(folder: Path) -> Path:
    (folder / "table.csv").write_bytes(TABLE)
    return written("list.txt", b"a/0.jpg\n")(folder)


IDS = [f"{n:016x}" for n in (1, 2**40, 2**63)]

FULL = "".join(f'{name},"http://a/b,c",{n}\n' for n, name in enumerate(IDS))

CLEAN = f"landmark_id,images\n7,{IDS[0]} {IDS[1]}\n9,{IDS[2]}\n"


def photo(kind: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((40, 30)).save(file, kind, **options)
    return file.getvalue()


def tar(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=tarfile.PAX_FORMAT) as tar:
        for name in (f"a/{IDS[0]}.jpg", "n" * 120, f"é/{IDS[1]}.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 700
            tar.addfile(member, io.BytesIO(bytes(700)))
    return file.getvalue()


def locations(folder: Path) -> Path:
    (folder / "images_000.tar").write_bytes(tar("w"))
    _index(folder / "images_000.tar", folder)
    return next(folder.glob("*.npz"))


def dataset(name: str) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        for label in ("a", "b"):
            (folder / "photos" / label).mkdir(parents=True)
            for number in range(3):
                path = folder / "photos" / label / f"{number}.jpg"
                path.write_bytes(photo("JPEG"))
        options = {"name": "image_folder", "root": str(folder / "photos")}
        datasets.prepare(str(folder / "data"), workers=1, **options)
        return next((folder / "data").rglob(name))

    return prepare


FOREIGN = save({"a.weight": DESCRIPTORS, "a.bias": DESCRIPTORS[0]}, {"format": "pt"})


def safetensors(folder: Path) -> Path:
    tensors = {"conv.weight": DESCRIPTORS, "conv.bias": np.zeros(3, np.float16)}
    header = {"tokret": '{"layout": "token", "model": {"trunk": "tiny", "dim": 4}}'}
    write_safetensors(folder / "w.safetensors", tensors, header)
    return folder / "w.safetensors"


def whitening_file(folder: Path) -> Path:
    found = whitening.Whitening(DESCRIPTORS[0], DESCRIPTORS[:3])
    whitening.save(found, folder / "w.safetensors")
    return folder / "w.safetensors"


ORIGIN = {"layout": "token", "tensors": {"a.weight": ["float32"]}, "source": "x.pth"}

METRICS = b'{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n'
