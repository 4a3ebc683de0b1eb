import builtins
import json

import numpy as np
import pytest

from tokret.errors import UserError
from tokret.retrieval.compression import database as compressed
from tokret.retrieval.compression import product
from tokret.retrieval.compression.database import compress, read, save
from tokret.retrieval.exact_search.top_k import top_k

FORMS = {"pq4": 4, "pq10": 10, "int8": 16, "bf16": 32}


@pytest.fixture(scope="module")
def made(unit_vectors):
    """Returns a function that compresses 300 images, once for each form."""
    done = {}

    def make(form):
        if form.startswith("pq"):
            pytest.importorskip("faiss", reason="the extra faiss is not installed")
        if form not in done:
            done[form] = compress(unit_vectors(300, 16), form)
        return done[form]

    return make


@pytest.mark.parametrize("form", FORMS)
def test_what_was_saved_is_searched_as_before(made, unit_vectors, tmp_path, form):
    path = tmp_path / "codes.safetensors"
    save(made(form), path)
    again = read(path)
    assert again.codec == form and again.image_bytes == FORMS[form]
    assert again.all_bytes == made(form).all_bytes >= 300 * FORMS[form]
    queries = unit_vectors(4, 16, seed=1)
    before = top_k(made(form).encode_queries(queries), made(form).codes, 20)
    after = top_k(again.encode_queries(queries), again.codes, 20)
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_array_equal(after[0], before[0])


@pytest.mark.parametrize("form", FORMS)
def test_what_could_not_be_described_is_found_last(made, unit_vectors, form):
    made(form)  # skips where faiss is missing
    database = np.abs(unit_vectors(300, 16))
    database[[5, 200]] = np.nan
    few = compress(database, form)
    queries = np.abs(unit_vectors(4, 16, seed=1))
    _, items = top_k(few.encode_queries(queries), few.codes, 300)
    assert {frozenset(row) for row in items[:, -2:].tolist()} == {frozenset((5, 200))}


@pytest.mark.parametrize("form", ["pq", "pq0", "pq-3", "pq1.5", "int4", "", "PQ8"])
def test_a_form_that_there_is_not(form):
    with pytest.raises(UserError, match="pq128 .*int8, bf16"):
        compressed.check_codec(form)


def test_more_bytes_than_dimensions():
    with pytest.raises(UserError, match="pq16 is the largest"):
        compress(np.zeros((3, 16), np.float32), "pq17")


def test_without_faiss_the_error_names_the_extra(monkeypatch, unit_vectors):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "faiss":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install faiss-cpu"):
        compress(unit_vectors(300, 16), "pq4")


def spoil(path, tensors=(), metadata=()):
    """Rewrites a file with other tensors or metadata; None removes."""
    file = compressed.read_weights(path)
    arrays = {name: np.array(t) for name, t in file.tensors.items()} | dict(tensors)
    words = {**file.metadata, **dict(metadata)}
    compressed.write_safetensors(
        path,
        {name: array for name, array in arrays.items() if array is not None},
        {name: word for name, word in words.items() if word is not None},
    )


NAN = np.full((4, 256, 4), np.nan, np.float32)


@pytest.mark.parametrize(
    ("codec", "tensors", "metadata", "message"),
    [
        ("pq4", {}, {"format": "mine"}, "not a file of"),
        ("pq4", {}, {"codec": None}, "codec"),
        ("pq4", {}, {"codec": "pq5"}, "codes are uint8"),
        ("pq4", {}, {"codec": "exec"}, "exec"),
        ("pq4", {}, {"dims": "many"}, "damaged"),
        ("pq4", {}, {"dims": "17"}, "centroids are"),
        ("pq4", {}, {"dims": "3"}, "pq3 is the largest"),
        ("pq4", {}, {"dims": "999999999999"}, "centroids are"),
        ("pq4", {"codes": None}, {}, "codes"),
        ("pq4", {"centroids": None}, {}, "centroids"),
        ("pq4", {"centroids": NAN}, {}, "not finite"),
        ("pq4", {"codes": np.zeros((3, 4), np.int8)}, {}, "codes are int8"),
        ("pq4", {"codes": np.zeros((0, 4), np.uint8)}, {}, "codes are uint8"),
        ("int8", {"scale": None}, {}, "scale"),
        ("int8", {"scale": np.ones(15, np.float32)}, {}, "scale are"),
        ("int8", {"scale": np.zeros(16, np.float32)}, {}, "not above 0"),
        ("int8", {"codes": np.zeros((3, 16), np.float32)}, {}, "codes are float32"),
        ("bf16", {"codes": np.zeros(16, np.int8)}, {}, "codes are int8"),
    ],
)
def test_a_file_that_contradicts_itself(
    made, tmp_path, codec, tensors, metadata, message
):
    path = tmp_path / "codes.safetensors"
    save(made(codec), path)
    spoil(path, tensors, metadata)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_files_that_are_cut_or_none_of_ours(made, tmp_path):
    path = tmp_path / "codes.safetensors"
    with pytest.raises(UserError, match="cannot be read"):
        read(path)
    save(made("int8"), path)
    whole = path.read_bytes()
    huge = json.dumps({"codes": {"dtype": "I8", "shape": [2**40, 16]}}).encode()
    for data in (b"", whole[:100], whole[:-1], b"\x80\x04.", b"PK\x03\x04" + whole):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"codes\.safetensors: "):
            read(path)
    path.write_bytes(len(huge).to_bytes(8, "little") + huge)
    with pytest.raises(UserError, match=r"codes\.safetensors: "):
        read(path)


def test_a_long_database_is_sampled_all_over(monkeypatch):
    monkeypatch.setattr(product, "TRAINING_ROWS", 128)
    rows = np.arange(1000, dtype=np.float32)[:, None]
    sample = compressed.training_sample(rows)
    assert sample.shape == (128, 1)
    assert sample.min() == 0 and sample.max() == 999
    assert np.diff(np.sort(sample[:, 0])).max() < 32
