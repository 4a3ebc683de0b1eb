"""Tars of every form, broken and malicious ones among them; nothing is unpacked."""

import gzip
import io
import os
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokret.data.preparing import decompression, tar_members
from tokret.errors import UserError

FILES = {
    "jpg/a.jpg": b"a" * 700,
    "./jpg/b.jpg": b"",
    "deep/" * 30 + "c.jpg": b"c" * 512,
    "café/ü.jpg": b"d" * 1023,
    "last.txt": b"e",
}
FORMS = {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}


def listed(path):
    return list(tar_members.list_members(path))


def content(path):
    data = path.read_bytes()
    return {m.name: data[m.offset : m.offset + m.size] for m in listed(path)}


@pytest.fixture
def forged(tmp_path):
    """Returns a function that writes a tar of given headers, each with some bytes."""

    def write(*members, end=bytes(1024)):
        path = tmp_path / "forged.tar"
        blocks = []
        for info, data in members:
            if not isinstance(info, bytes):
                info = info.tobuf(tarfile.GNU_FORMAT)
            blocks.append(info + data + bytes(-len(data) % 512))
        path.write_bytes(b"".join(blocks) + end)
        return path

    return write


def info(name="a.jpg", size=0, kind=tarfile.REGTYPE, link=""):
    found = tarfile.TarInfo(name)
    found.size, found.type, found.linkname = size, kind, link
    return found


def signed(block):
    """A header with the sum it should have."""
    block = bytearray(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_as_tar_does(form, tmp_path, write_tar):
    path = write_tar(tmp_path / "a.tar", FILES, format=FORMS[form])
    assert content(path) == FILES
    with tarfile.open(path) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar if m.isreg()]
    # tarfile drops nothing of a name but a slash at its end.
    assert [tuple(m) for m in listed(path)] == expected


@pytest.mark.parametrize("form", FORMS)
def test_a_compressed_tar_is_read_alike_and_not_unpacked(form, tmp_path, write_tar):
    for name, mode in (("a.tar", "w"), ("a.tgz", "w:gz")):
        path = write_tar(tmp_path / name, FILES, mode, format=FORMS[form])
        found = dict(tar_members.read_members(path))
        if mode == "w":
            assert found == dict(tar_members.locate_members(path))
        else:
            assert found == FILES


def compressed(path):
    target = path.with_suffix(".tgz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    return target


def members(path):
    return [name for name, _ in tar_members.read_members(path)]


def test_limits_hold_for_compressed_tars(tmp_path, forged, write_tar, monkeypatch):
    long = write_tar(tmp_path / "long.tgz", {"a" * 300: b"x"}, "w:gz")
    assert members(long) == ["a" * 300]
    monkeypatch.setattr(tar_members, "MAX_NAME", 200)
    with pytest.raises(UserError, match=r"long\.tgz has a name or attributes of 301"):
        members(long)
    monkeypatch.setattr(tar_members, "MAX_BYTES", 10)
    with pytest.raises(UserError, match=r"claims 11 bytes for a\.jpg, more than 10"):
        members(compressed(forged((info(size=11), bytes(11)))))
    monkeypatch.setattr(decompression, "FREE_GROWTH", 2000)
    monkeypatch.setattr(decompression, "MAX_GROWTH", 1)
    with pytest.raises(UserError, match="when it is decompressed"):
        members(compressed(forged((info(size=9), bytes(9)), end=bytes(9000))))


def test_a_compressed_tar_cut_short_is_named(tmp_path, forged):
    path = compressed(forged((info(size=900), bytes(900)), end=b""))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-200]))
    with pytest.raises(UserError, match=r"forged\.tgz is truncated"):
        members(path)


def test_a_folder_or_pipe_of_that_name_is_named(tmp_path):
    (tmp_path / "images_000.tar").mkdir()
    os.mkfifo(tmp_path / "images_001.tar")
    for name, kind in (("images_000.tar", "a folder"), ("images_001.tar", "a named")):
        for read in (listed, members):
            with pytest.raises(UserError, match=rf"{name}: is {kind}"):
                read(tmp_path / name)


def test_folders_are_skipped_whatever_size_they_claim(forged):
    folder = info("jpg/", kind=tarfile.DIRTYPE)
    odd = bytearray(folder.tobuf(tarfile.USTAR_FORMAT))
    odd[124:136] = b"00000004000\0"
    path = forged((folder, b""), (signed(odd), b""), (info(size=3), b"abc"))
    assert content(path) == {"a.jpg": b"abc"}


def test_names_that_are_no_utf8_are_escaped(tmp_path, forged):
    header = bytearray(info("x.jpg", 1).tobuf(tarfile.GNU_FORMAT))
    header[:6] = b"\xff\xfe.jpg"
    assert content(forged((signed(header), b"z"))) == {r"\xff\xfe.jpg": b"z"}


def test_sums_of_signed_bytes_are_known(forged):
    header = bytearray(info("é.jpg", 1).tobuf(tarfile.GNU_FORMAT))
    header[148:156] = b" " * 8
    total = sum(byte - 256 * (byte > 127) for byte in header)
    header[148:156] = b"%06o\0 " % total
    assert content(forged((bytes(header), b"z"))) == {"é.jpg": b"z"}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"V", "unknown kind"),
    ],
)
def test_what_is_no_regular_file_is_refused(kind, message, forged):
    path = forged((info(kind=kind, link="/etc/passwd"), b""))
    with pytest.raises(UserError, match=rf"forged\.tar.*{message}.*a\.jpg"):
        listed(path)


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/etc/passwd", "jpg/../../a.jpg", "..", "a/..", "../"]
)
def test_a_path_that_leads_out_is_refused(name, forged):
    for form in (info(name), signed(info(name).tobuf(tarfile.USTAR_FORMAT))):
        with pytest.raises(UserError, match="leads out of it"):
            listed(forged((form, b"")))


def test_long_names_and_attributes_cannot_lead_out_either(tmp_path, forged):
    long = "a/" * 60 + "../" * 61 + "x.jpg"
    with pytest.raises(UserError, match="leads out of it"):
        listed(forged((info(long), b"")))
    record = b"20 path=../../a.jpg\n"
    with pytest.raises(UserError, match="leads out of it"):
        listed(forged((info("x", len(record), b"x"), record), (info(), b"")))


def test_a_file_that_is_there_twice_is_an_error(forged):
    with pytest.raises(UserError, match=r"contains a\.jpg twice"):
        listed(forged((info(), b""), (info(), b"")))


def test_sizes_are_not_believed(forged):
    huge = bytearray(info().tobuf(tarfile.GNU_FORMAT))
    for field, message in (
        (b"\x80" + (2**40).to_bytes(11, "big"), "claims 1099511627776 bytes"),
        (b"\x80" + (2**80).to_bytes(11, "big"), "claims"),
        (b"\xff" * 12, "no size"),  # -1: an endless loop in Python's tarfile
        (b"\xff" * 10 + b"\xfe\x00", "no size"),
        (b"00000010000\0", "truncated"),
        (b"0000000-512\0", "no size"),
        (b"12345678999\0", "no size"),
    ):
        huge[124:136] = field
        with pytest.raises(UserError, match=message):
            listed(forged((signed(huge), b"abc")))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"16 size=9999999\n", "truncated"),
        (b"27 size=999999999999999999\n", "claims"),
        (b"11 size=-1\n", "no size"),
        (b"99 size=1\n", "malformed"),
        (b"0 size=1\n", "malformed"),
        (b"8 size=1\n", "malformed"),
        (b"size=1\n", "malformed"),
        (b"22 GNU.sparse.major=1\n", "sparse file"),
    ],
)
def test_attributes_are_not_believed_either(record, message, forged):
    path = forged((info("x", len(record), b"x"), record), (info(size=3), b"abc"))
    with pytest.raises(UserError, match=message):
        listed(path)


def test_attributes_of_all_members_may_only_be_remarks(forged):
    remark = b"18 comment=of git\n"
    good = forged((info("g", len(remark), b"g"), remark), (info(size=1), b"z"))
    assert content(good) == {"a.jpg": b"z"}
    path = b"14 path=b.jpg\n"
    with pytest.raises(UserError, match="one path or size"):
        listed(forged((info("g", len(path), b"g"), path), (info(), b"")))


def test_a_header_that_claims_a_gigabyte_of_attributes_is_not_read(forged):
    for kind in (b"x", b"g", b"L", b"K"):
        with pytest.raises(UserError, match="1073741824 bytes"):
            listed(forged((info("x", 2**30, kind), b"")))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (bytes(10240), "is empty"),
        (b"<html><body>404 Not Found</body></html>", "truncated"),
        (b"<html>" + b"x" * 2000, "not a tar archive"),
        (b"\x1f\x8b" + b"x" * 2000, "not a tar archive"),
    ],
)
def test_what_is_no_tar_is_named(data, message, tmp_path):
    path = tmp_path / "images_000.tar"
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"images_000\.tar.*{message}"):
        listed(path)


def test_a_tar_cut_anywhere_is_found_out_or_holds_fewer(tmp_path, write_tar):
    whole = write_tar(tmp_path / "whole.tar", FILES)
    data, expected = whole.read_bytes(), listed(whole)
    end = expected[-1].offset + 512
    for cut in range(1, end, 97):
        path = tmp_path / "cut.tar"
        path.write_bytes(data[:cut])
        try:
            found = listed(path)
        except UserError as error:
            assert "truncated" in str(error)
        else:  # between two members: whoever wants the others will miss them
            assert found == expected[: len(found)]
            assert not found or cut >= found[-1].offset + found[-1].size


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), max_size=8))
def test_damage_ends_in_one_kind_of_error(tmp_path, changes):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in FILES.items():
            tar.addfile(info(name, len(data)), io.BytesIO(data))
    data = bytearray(buffer.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    try:
        for member in tar_members.list_members(path):
            assert 0 <= member.offset <= member.offset + member.size <= len(data)
    except UserError:
        pass
