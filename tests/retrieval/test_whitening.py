import numpy as np
import pytest
from safetensors.numpy import save_file

from tokret.errors import UserError
from tokret.io.weight_files import write_safetensors
from tokret.retrieval import whitening
from tokret.retrieval.exact_search import blocks


@pytest.fixture(scope="module")
def rows():
    """Descriptors [500, 12] of length 1, far from white."""
    draw = np.random.default_rng(0)
    mixed = draw.normal(size=(500, 12)) * np.geomspace(1, 0.05, 12) + 0.3
    mixed = mixed @ draw.normal(size=(12, 12))
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def slow(rows, dims):
    """The obvious form: the singular vectors of the centred matrix."""
    centred = rows.astype(float) - rows.astype(float).mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    white = centred @ directions[:dims].T / (singular[:dims] / np.sqrt(len(rows)))
    return white / np.linalg.norm(white, axis=1, keepdims=True)


@pytest.mark.parametrize("dims", [12, 5, 1])
def test_it_is_the_slow_form_but_for_signs(rows, dims, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 64)
    found, expected = whitening.learn(rows, dims)(rows), slow(rows, dims)
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, rtol=0, atol=2e-4)


def test_what_is_whitened_has_covariance_one(rows):
    learned = whitening.learn(rows)
    white = (rows - learned.mean) @ learned.projection
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(12), atol=1e-3)


def test_rows_of_nan_are_skipped_and_stay(rows):
    spoilt = np.concatenate([rows, np.full((3, 12), np.nan, np.float32)])
    learned, plain = whitening.learn(spoilt), whitening.learn(rows)
    np.testing.assert_array_equal(learned.projection, plain.projection)
    white = learned.whiten(spoilt)
    assert white.shape == (503, 12) and np.isnan(white[500:503]).all()
    np.testing.assert_array_equal(white[3:7], learned(rows[3:7]))


def test_too_few_directions(rows):
    with pytest.raises(UserError, match="differ in 3 directions"):
        whitening.learn(rows[:4], 5)
    with pytest.raises(ValueError, match="dims is 13"):
        whitening.learn(rows, 13)


def test_what_was_saved_comes_back(rows, tmp_path):
    path = tmp_path / "w.safetensors"
    learned = whitening.learn(rows, 5)
    whitening.save(learned, path)
    np.testing.assert_array_equal(whitening.read(path)(rows), learned(rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": np.zeros(11, np.float32)}, "of shape"),
        ({"mean": np.zeros((12, 1), np.float32)}, "of shape"),
        ({"projection": np.zeros((12, 5))}, "float32"),
        ({"projection": np.full((12, 5), np.inf, np.float32)}, "not finite"),
        ({"projection": None}, "float32"),
    ],
)
def test_damaged_files(rows, tmp_path, change, message):
    path = tmp_path / "w.safetensors"
    learned = whitening.learn(rows, 5)
    parts = {"mean": learned.mean, "projection": learned.projection} | change
    parts = {name: part for name, part in parts.items() if part is not None}
    write_safetensors(path, parts, {"format": whitening.FORMAT})
    with pytest.raises(UserError, match=message):
        whitening.read(path)
    save_file(parts, path, {"format": whitening.FORMAT})
    with pytest.raises(UserError, match="it has no digests; learn it again"):
        whitening.read(path)
    save_file(parts, path, {"format": "another"})
    with pytest.raises(UserError, match="not a file of"):
        whitening.read(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"w\.safetensors"):
        whitening.read(path)
