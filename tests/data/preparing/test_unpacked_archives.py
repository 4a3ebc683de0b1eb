import gzip

import pytest

from tokret.data.preparing import decompression, unpacked_archives
from tokret.data.preparing.shards import WriteError
from tokret.errors import UserError

DATA = bytes(range(256)) * 400


def written(path, data=DATA):
    path.write_bytes(gzip.compress(data))
    return path


def test_compressed_archives_become_plain_once(tmp_path):
    one, two = written(tmp_path / "a.tgz"), written(tmp_path / "b.tar.gz", b"b")
    folder = tmp_path / "plain"
    found = unpacked_archives.unpack([one, two], folder)
    assert [path.read_bytes() for path in found] == [DATA, b"b"]
    before = [path.stat().st_mtime_ns for path in found]
    (folder / "b.tar.gz.plain.tmp").write_bytes(b"of a kill")
    assert unpacked_archives.unpack([one, two], folder) == found
    assert [path.stat().st_mtime_ns for path in found] == before


def test_a_kill_leaves_one_half_written_and_it_is_started_again(tmp_path):
    archive, folder = written(tmp_path / "a.tgz"), tmp_path / "plain"
    folder.mkdir()
    (folder / "a.tgz.plain.tmp").write_bytes(DATA[:100])
    (found,) = unpacked_archives.unpack([archive], folder)
    assert found.read_bytes() == DATA
    assert list(folder.iterdir()) == [found]


def test_what_is_not_compressed_is_read_in_place(tmp_path):
    plain = tmp_path / "a.tgz"  # some browsers decompress on the way
    plain.write_bytes(DATA)
    assert unpacked_archives.unpack([plain], tmp_path / "plain") == [plain]
    assert not (tmp_path / "plain").exists()


@pytest.mark.parametrize("kept", [11, 20, 300, -9, -4, -1])
def test_an_archive_cut_short_is_named(kept, tmp_path):
    path = written(tmp_path / "paris_1.tgz")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"paris_1\.tgz is truncated"):
        unpacked_archives.unpack([path], tmp_path / "plain")
    assert not list((tmp_path / "plain").iterdir())


def test_a_damaged_archive_is_named(tmp_path):
    path = written(tmp_path / "paris_1.tgz")
    data = bytearray(path.read_bytes())
    for place in (-6, 40, 3):  # its sum, its content, its heading
        damaged = data.copy()
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"paris_1\.tgz is (damaged|truncated)"):
            unpacked_archives.unpack([path], tmp_path / "plain")
    path.write_bytes(bytes(data) + b"garbage")
    with pytest.raises(UserError, match="is damaged"):
        unpacked_archives.unpack([path], tmp_path / "plain")


def test_a_bomb_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(decompression, "FREE_GROWTH", 2 * 2**20)
    path = written(tmp_path / "bomb.tgz", bytes(20 * 2**20))
    with pytest.raises(UserError, match=r"bomb\.tgz grows to more than 2 MiB"):
        unpacked_archives.unpack([path], tmp_path / "plain")
    assert not list((tmp_path / "plain").iterdir())


def test_space_is_checked_first(tmp_path, monkeypatch):
    path = written(tmp_path / "a.tgz")
    monkeypatch.setattr(
        unpacked_archives.shutil,
        "disk_usage",
        lambda _: unpacked_archives.shutil._ntuple_diskusage(9, 9, 0),
    )
    with pytest.raises(UserError, match="has 0.0 GiB of free space"):
        unpacked_archives.unpack([path], tmp_path / "plain")


def test_a_full_disk_is_no_damaged_archive(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpacked_archives.os, "fsync", full)
    with pytest.raises(WriteError, match="No space left on device"):
        unpacked_archives.unpack([written(tmp_path / "a.tgz")], tmp_path / "plain")
    assert not list((tmp_path / "plain").iterdir())
