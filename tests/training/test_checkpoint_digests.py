"""Each bit that is flipped in a checkpoint is noticed, by each of its readers."""

import os
import shutil
import subprocess

import numpy as np
import pytest

from tokret.errors import UserError
from tokret.training import checkpoint_digests
from tokret.training.checkpoint_arrays import open_arrays
from tokret.training.checkpoint_digests import FILE, UnreadableError, verify
from tokret.training.checkpoint_metadata import read_metadata
from tokret.training.weights import load_weights, restore_weights

FLIPS = 28  # in the file with the arrays


@pytest.fixture
def checkpoint(saved_run, tmp_path):
    return shutil.copytree(saved_run / "checkpoints" / "6", tmp_path / "6")


def flip(path, place, bit):
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def files(checkpoint):
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def test_flipped_bits_in_the_arrays_are_all_noticed(checkpoint):
    path = max(checkpoint.glob("state/ocdbt.process_0/d/*"), key=os.path.getsize)
    size = path.stat().st_size
    for number in range(FLIPS):
        place, bit = number * size // FLIPS, number % 8
        flip(path, place, bit)
        with pytest.raises(UnreadableError, match=f"{path.name}' is not as it was"):
            open_arrays(checkpoint)
        flip(path, place, bit)
    assert load_weights(checkpoint)


def test_flipped_bits_in_any_file_are_noticed(checkpoint):
    chance = np.random.default_rng(0)
    for path in files(checkpoint):
        for place in chance.integers(max(path.stat().st_size, 1), size=4):
            before = path.read_bytes()
            flip(path, place, chance.integers(8)) if before else path.write_bytes(b"x")
            with pytest.raises(UnreadableError, match=r"6: damaged \("):
                open_arrays(checkpoint)
            path.write_bytes(before)
    assert load_weights(checkpoint)


def test_flipped_bits_in_the_digests_are_noticed(checkpoint):
    for place in range((checkpoint / FILE).stat().st_size):
        flip(checkpoint / FILE, place, place % 8)
        with pytest.raises(UnreadableError, match=r"6: damaged \("):
            verify(checkpoint)
        flip(checkpoint / FILE, place, place % 8)
    verify(checkpoint)


def test_digests_that_are_cut_short_are_no_digests(checkpoint):
    whole = (checkpoint / FILE).read_bytes()
    for size in range(len(whole)):
        (checkpoint / FILE).write_bytes(whole[:size])
        with pytest.raises(UnreadableError, match="but SHA256SUMS ends in"):
            verify(checkpoint)


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        os.mkdir,
        lambda path: path.symlink_to(path.parent / "state" / "_METADATA"),
        lambda path: path.write_bytes(bytes(range(256))),
        lambda path: path.write_text("# 0 files, 0 bytes\n"),
        lambda path: path.write_text("0" * 100),
    ],
    ids=["a pipe", "a folder", "a link", "bytes", "none", "too long"],
)
def test_digests_that_are_no_list(checkpoint, make, monkeypatch):
    monkeypatch.setattr(checkpoint_digests, "LARGEST", 99)
    (checkpoint / FILE).unlink()
    make(checkpoint / FILE)
    for read in (read_metadata, open_arrays):
        with pytest.raises(UnreadableError, match=r"6: damaged \("):
            read(checkpoint)


def test_files_that_are_missing_or_grew_are_noticed_unread(checkpoint, monkeypatch):
    monkeypatch.setattr(checkpoint_digests.hashlib, "file_digest", None)
    for path in files(checkpoint):
        if path.name == FILE:
            continue
        path.rename(checkpoint.parent / "away")
        with pytest.raises(UnreadableError, match=f"{path.name}' is missing"):
            verify(checkpoint)
        path.symlink_to(checkpoint.parent / "away")
        with pytest.raises(UnreadableError, match=f"{path.name}' is missing"):
            verify(checkpoint)
        (checkpoint.parent / "away").replace(path)
        with path.open("ab") as file:
            size = file.tell()
            file.truncate(2**40)
        with pytest.raises(UnreadableError, match="bytes, but SHA256SUMS ends in"):
            verify(checkpoint)
        os.truncate(path, size)


def test_files_of_a_file_manager_are_no_damage(checkpoint):
    (checkpoint / ".DS_Store").touch()
    (checkpoint / "state" / "._d").write_text("x")
    verify(checkpoint)


def test_every_reader_refuses_a_flipped_bit(checkpoint, opened, abstract, saved_run):
    path = next(checkpoint.glob("state/ocdbt.process_0/d/*"))
    flip(path, 10, 2)
    shapes = abstract()
    variables = {"params": shapes.params["model"], "batch_stats": shapes.batch_stats}
    for read in (
        open_arrays,
        load_weights,
        lambda path: restore_weights(path, variables),
    ):
        with pytest.raises(UnreadableError, match=f"{path.name}' is not as it was"):
            read(checkpoint)
    run = shutil.copytree(saved_run, checkpoint.parent / "run")
    shutil.rmtree(run / "checkpoints" / "6")
    checkpoint.rename(run / "checkpoints" / "6")
    with opened(run) as checkpoints:
        with pytest.raises(UnreadableError, match=f"{path.name}' is not as it was"):
            checkpoints.restore(shapes, 6)
        assert int(checkpoints.restore(shapes, 4).step) == 4


def test_without_digests_nothing_is_read(checkpoint):
    (checkpoint / FILE).unlink()
    for read in (read_metadata, open_arrays, load_weights):
        with pytest.raises(UserError, match="6: not verifiable, made without d") as e:
            read(checkpoint)
        assert not isinstance(e.value, UnreadableError)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs coreutils")
def test_another_program_can_verify_them(checkpoint):
    command = ["sha256sum", "--strict", "--check", FILE]
    found = subprocess.run(command, cwd=checkpoint, capture_output=True, text=True)
    assert found.returncode == 0 and not found.stderr, found.stderr
    listed = {line.removesuffix(": OK") for line in found.stdout.splitlines()}
    names = {str(path.relative_to(checkpoint)) for path in files(checkpoint)}
    assert listed == names - {FILE}
