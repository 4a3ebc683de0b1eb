import contextlib
import itertools
import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search.contents import change_rows, read_catalogue
from tokret.errors import UserError
from tokret.search import catalogue_schema
from tokret.search.catalogue import FILE, open_catalogue
from tokret.search.catalogue_rows import ModelInfo, PhotoEntry, to_signed, to_text
from tokret.search.catalogue_schema import checksum, journal_of
from tokret.search.catalogue_writing import DRAFT, writing
from tokret.search.part_stores import to_array
from tokret.search.photos import Stamp

MODEL = ModelInfo("/weights", "abc", 1024, (1.0, 0.5), {"num_heads": 8}, "f" * 16)
PART, DIGEST, OTHER = "0123456789abcdef", "fedcba9876543210", "0" * 16
PHOTOS = [
    PhotoEntry("a/b \u00e9\u202f.jpg", Stamp(10, 20), "", DIGEST, PART, 1),
    PhotoEntry("a/more/copy.jpg", Stamp(10, 30), "", DIGEST, PART, 1),
    PhotoEntry("bad.jpg", Stamp(0, 0), "empty"),
    PhotoEntry("other.jpg", Stamp(11, -30), "", OTHER, PART, 0),
    PhotoEntry("removed.jpg", Stamp(11, 30), "", "7" * 16),
]


def write(folder, photos=PHOTOS, digests=(OTHER, DIGEST)):
    with writing(folder, "/photos", FILE, MODEL, True) as writer:
        writer.add_part(PART, to_array(digests))
        writer.put(photos)
        writer.commit()


def test_a_catalogue_comes_back(tmp_path):
    write(tmp_path)
    found = read_catalogue(tmp_path)
    assert (found.root, found.model) == ("/photos", MODEL)
    assert [*found.photos.values()] == PHOTOS
    assert found.live_rows() == {
        PART: {0: ["other.jpg"], 1: ["a/b \u00e9\u202f.jpg", "a/more/copy.jpg"]}
    }
    with open_catalogue(tmp_path) as catalogue:
        assert catalogue.photos_with([DIGEST, "7" * 16]) == {DIGEST: PHOTOS[:2]}
        assert catalogue.removed() == PHOTOS[4:] and catalogue.num_removed() == 1
        assert catalogue.known_sizes(range(9, 12)) == {10, 11}
        (part,) = catalogue.parts()
        assert [to_text(int(digest)) for digest in part.digests] == [OTHER, DIGEST]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    "digest", ["0" * 16, "7f" + "f" * 14, "8" + "0" * 15, "f" * 16]
)
def test_digests_are_64_bits(digest):
    assert to_text(to_signed(digest)) == digest == to_text(int(digest, 16))
    assert -(2**63) <= to_signed(digest) < 2**63


def test_folders_and_labels_are_counted_and_filtered(tmp_path):
    write(tmp_path)
    with open_catalogue(tmp_path) as catalogue:
        assert catalogue.folders() == {"a": 2, "a/more": 1}
        assert catalogue.labels() == {"": 1, "a": 1, "more": 1}

        def rows(folders=(), labels=()):
            found = catalogue.rows_of(folders, labels)
            return {part: each.tolist() for part, each in found.items()}

        assert rows() == {PART: [0, 1]}
        assert rows(["a"]) == rows(["a/more", "none"]) == {PART: [1]}
        assert rows(labels=[""]) == {PART: [0]}
        assert rows(labels=["", "more"]) == {PART: [0, 1]}
        assert rows(["a"], ["a"]) == {PART: [1]} and rows(["a/more"], ["a"]) == {}


def test_every_update_is_noticed_and_a_row_without_photos_is_unused(tmp_path):
    write(tmp_path)
    seen = set()

    def step(*drops, **engines):
        with writing(tmp_path, "/photos", FILE, MODEL) as writer:
            writer.drop(drops)
            if engines:
                writer.set_engines(engines)
            writer.commit()
        with open_catalogue(tmp_path) as catalogue:
            seen.add(catalogue.changes)
            return [part.live.tolist() for part in catalogue.parts()]

    assert step("a/more/copy.jpg") == [[True, True]]
    assert step("a/b \u00e9\u202f.jpg", "unknown.jpg") == [[True, False]]
    assert step(url={"points": 2}) == [[True, False]]
    assert step("other.jpg") == [] and len(seen) == 4
    with open_catalogue(tmp_path) as catalogue:
        assert catalogue.engines == {"url": {"points": 2}}
    step()  # nothing
    assert len(seen) == 4
    write(tmp_path)
    step()
    assert len(seen) == 5


def test_what_is_not_committed_is_dropped(tmp_path):
    with writing(tmp_path, "/photos", FILE, MODEL, True) as writer:
        writer.put(PHOTOS[2:3])
    assert list(tmp_path.iterdir()) == []
    write(tmp_path)
    before = (tmp_path / FILE).read_bytes()
    with writing(tmp_path, "/elsewhere", FILE, MODEL) as writer:
        writer.put([PHOTOS[0]._replace(name="new.jpg")])
        with open_catalogue(tmp_path) as other:
            assert other.root == "/photos" and other.photo("new.jpg") is None
    assert (tmp_path / FILE).read_bytes() == before


def test_only_what_would_change_descriptors_is_a_difference():
    assert MODEL.difference(MODEL) is None
    moved = ModelInfo("/elsewhere", "abc", 1024, (1.0, 0.5), {"num_heads": 8})
    assert MODEL.difference(moved) is None
    other = ModelInfo("/weights", "abc", 512, (1.0, 0.5), {})
    assert MODEL.difference(other) == "longest_side: 512 and 1024"
    other = ModelInfo("/weights", "abc", 1024, (1.0, 0.5), {"num_heads": 4})
    assert MODEL.difference(other) == "model.num_heads: 4 and 8"


def test_a_missing_catalogue_is_a_line(tmp_path):
    (tmp_path / "weights").mkdir()
    with pytest.raises(UserError, match="is not an index; create one"):
        read_catalogue(tmp_path)
    (tmp_path / ".lock").touch()
    with pytest.raises(UserError, match="has no complete part yet; wait, or index"):
        read_catalogue(tmp_path)


def interrupted(source, folder):
    """A copy of a catalogue as a kill during a commit leaves it, with its journal."""
    connection = sqlite3.connect(source / FILE, isolation_level=None)
    with contextlib.closing(connection):
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        for number in range(500):  # so many that pages are written before the end
            connection.execute(
                "INSERT INTO folders VALUES (?, ?, 0)", (number + 10, f"x{number}" * 9)
            )
        connection.execute("UPDATE meta SET root = '/elsewhere'")
        for path in (source / FILE, journal_of(source / FILE)):
            shutil.copy(path, folder)
        connection.execute("ROLLBACK")


def test_what_a_killed_process_left_is_rolled_back(tmp_path, monkeypatch):
    (tmp_path / "killed").mkdir()
    write(tmp_path)
    before = read_catalogue(tmp_path)
    interrupted(tmp_path, tmp_path / "killed")
    assert journal_of(tmp_path / "killed" / FILE).exists()
    with monkeypatch.context() as patch:  # a disk that is read-only
        patch.setattr(catalogue_schema, "_roll_back", lambda path: None)
        with pytest.raises(
            UserError, match="an update of it was interrupted, and it c"
        ):
            read_catalogue(tmp_path / "killed")
    assert read_catalogue(tmp_path / "killed") == before
    assert not journal_of(tmp_path / "killed" / FILE).exists()


def test_readers_see_whole_transactions_while_another_thread_commits(tmp_path):
    write(tmp_path)
    parts = [f"{number:016x}" for number in range(40)]

    def change():
        for number, part in enumerate(parts):
            with writing(tmp_path, "/photos", FILE, MODEL) as writer:
                writer.add_part(part, to_array([part]))
                writer.put([PhotoEntry("new.jpg", Stamp(1, number), "", part, part)])
                writer.commit()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(change)
        seen = set()
        while not running.done():
            with open_catalogue(tmp_path) as catalogue:
                photos = {entry.name: entry for entry in catalogue.entries()}
                seen.add(catalogue.changes)
            entry = photos.pop("new.jpg", None)
            assert entry is None or entry.digest == entry.part in parts
            assert [*photos.values()] == PHOTOS
        running.result()
    assert len(read_catalogue(tmp_path).parts) == 2 and seen


def test_a_journal_of_another_catalogue_does_no_harm(tmp_path):
    old = tmp_path / "killed"
    old.mkdir()
    write(tmp_path)
    interrupted(tmp_path, old)
    (old / FILE).write_bytes(b"damaged")
    write(old)
    assert read_catalogue(old) == read_catalogue(tmp_path)


def test_a_journal_that_names_another_file_is_refused(tmp_path):
    write(tmp_path)
    before = read_catalogue(tmp_path)
    journal = journal_of(tmp_path / FILE)
    journal.write_bytes(catalogue_schema.JOURNAL_END)
    for write_too in (False, True):
        with pytest.raises(UserError, match="journal: tokret did not write it"):
            catalogue_schema.open_file(tmp_path / FILE, write=write_too)
    journal.unlink()
    os.mkfifo(journal)
    with pytest.raises(UserError, match="is a named pipe"):
        read_catalogue(tmp_path)
    journal.unlink()
    assert read_catalogue(tmp_path) == before


def test_a_catalogue_on_a_read_only_disk_is_read(tmp_path):
    write(tmp_path)
    before = read_catalogue(tmp_path)
    (tmp_path / FILE).chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert read_catalogue(tmp_path) == before
    finally:
        tmp_path.chmod(0o755)


def test_a_new_draft_replaces_what_was_left_of_one(tmp_path):
    (tmp_path / DRAFT).write_bytes(b"cut short")
    (tmp_path / f"{DRAFT}-journal").write_bytes(b"cut short too")
    write(tmp_path)
    assert read_catalogue(tmp_path).photos.keys() == {each.name for each in PHOTOS}


COLUMNS = {
    "meta": ("id", "root", "model", "engines", "token", "changes"),
    "parts": ("id", "name", "digests", "live"),
    "folders": ("id", "path"),
    "photos": (
        *("id", "name", "folder", "size", "modified", "digest", "part", "row"),
        "error",
    ),
}


def corrected(folder, table, column, value, row=1):
    """Changes a value of a row, and its checksum with it."""
    connection = sqlite3.connect(folder / FILE)
    with contextlib.closing(connection), connection:
        words = f"UPDATE {table} SET {column} = ? WHERE id = ?"
        connection.execute(words, (value, row))
        for *values, _ in connection.execute(f"SELECT * FROM {table}").fetchall():
            assert len(values) == len(COLUMNS[table])
            connection.execute(
                f"UPDATE {table} SET crc = ? WHERE id = ?",
                (checksum(values), values[0]),
            )


MODEL_TEXT = msgspec.json.encode(MODEL).decode()


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("meta", "root", None, "Expected `str`"),
        ("meta", "root", "photos", "not an absolute path"),
        ("meta", "root", "/p\n\x1b[31mred", r"root '/p\\n\\x1b\[31mred' has con"),
        ("meta", "root", b"/p", "damaged"),
        ("meta", "model", "[]", "damaged"),
        ("meta", "model", MODEL_TEXT.replace("[1.0", '["1"'), "damaged"),
        ("meta", "model", MODEL_TEXT.replace("f" * 16, "../x"), "matching regex"),
        ("meta", "engines", "[]", "damaged"),
        ("meta", "token", "../x", "matching regex"),
        ("meta", "changes", -1, ">= 0"),
        ("parts", "name", "../../up", "matching regex"),
        ("parts", "digests", b"", "other numbers of rows"),
        ("parts", "live", b"\1\2", "other numbers of rows"),
        ("parts", "live", None, "Expected `bytes`"),
        ("folders", "path", "../up", "not a photo's path"),
        ("folders", "path", None, "Expected `str`"),
        ("photos", "name", "../up.jpg", "not a photo's path"),
        ("photos", "name", "/etc/x.jpg", "not a photo's path"),
        ("photos", "name", "a\x1b.jpg", "not a photo's path"),
        ("photos", "name", b"a.jpg", "damaged"),
        ("photos", "digest", None, "either an error or a digest"),
        ("photos", "error", "bad", "either an error or a digest"),
        ("photos", "row", -1, ">= 0"),
        ("photos", "row", 0.5, "Expected `int`"),
        ("photos", "part", 99, "a part that is missing"),
        ("photos", "folder", None, "Expected `int`"),
        ("photos", "size", "many", "Expected `int`"),
    ],
)
def test_damage_is_a_line(tmp_path, table, column, value, message):
    write(tmp_path)
    corrected(tmp_path, table, column, value)
    with pytest.raises(UserError, match=message) as caught:
        read_catalogue(tmp_path)
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith("index its photos again with rebuild")


@pytest.mark.parametrize(
    "words",
    [
        *(
            f"UPDATE {table} SET {column} = '12345'"
            for table, columns in COLUMNS.items()
            for column in columns[1:]
        ),
        "UPDATE photos SET crc = 1",
        "UPDATE photos SET id = id + 100",
    ],
)
def test_a_change_without_its_checksum_is_noticed(tmp_path, words):
    write(tmp_path, [PHOTOS[0]._replace(row=0)], [DIGEST])
    change_rows(tmp_path, words)
    with pytest.raises(UserError, match="damaged .a row has another checksum"):
        read_catalogue(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("PRAGMA user_version = 3", "has version 3, not 4; another version of tokret"),
        ("PRAGMA application_id = 1", "its tables are not those of a catalogue"),
        ("CREATE VIEW more AS SELECT 1", "its tables are not those of a catalogue"),
        ("DROP INDEX photos_name", "its tables are not those of a catalogue"),
        (
            "CREATE TRIGGER more AFTER INSERT ON photos BEGIN SELECT 1; END",
            "its tables are not those of a catalogue",
        ),
        ("DROP TABLE meta", "its tables are not those of a catalogue"),
        ("DELETE FROM meta", "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, words, message):
    write(tmp_path)
    change_rows(tmp_path, words)
    with pytest.raises(UserError, match=message) as caught:
        read_catalogue(tmp_path)
    assert str(caught.value).endswith("index its photos again with rebuild")


@settings(deadline=None, max_examples=60)  # files are written
@given(st.binary(max_size=60), st.integers(0, 50_000))
def test_bytes_of_any_kind_are_refused_or_change_nothing(tmp_path_factory, junk, at):
    folder = tmp_path_factory.mktemp("index")
    write(folder)
    before, whole = read_catalogue(folder), (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[:at] + junk + whole[at + len(junk) :])
    try:
        assert read_catalogue(folder) == before
    except UserError as error:
        assert str(folder) in str(error)


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    write(tmp_path)
    before, whole = read_catalogue(tmp_path), (tmp_path / FILE).read_bytes()
    refused = 0
    for at in itertools.chain(range(0, 600, 7), range(600, len(whole), 211)):
        changed = bytearray(whole)
        changed[at] ^= 1 << (at % 8)
        (tmp_path / FILE).write_bytes(changed)
        try:
            assert read_catalogue(tmp_path) == before
        except UserError:
            refused += 1
    assert refused > 10
