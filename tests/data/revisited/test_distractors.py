import pytest

from tokret.data import datasets
from tokret.errors import UserError

PATHS = [f"{i % 7:02d}/{i:04d}.jpg" for i in (5, 3, 11, 0, 8, 2)]


def prepare(data_dir, root, **options):
    return datasets.prepare(
        str(data_dir), name="revisitop1m", manual_dir=str(root), **options
    )


@pytest.fixture
def photos(jpeg):
    return {path: jpeg(i) for i, path in enumerate(PATHS)}


@pytest.fixture
def hosts(tmp_path, photos, write_tar):
    """The list and two archives, whose members are below jpg/ or not."""
    root = tmp_path / "hosts"
    root.mkdir()
    (root / "revisitop1m.txt").write_text("\n".join(PATHS) + "\n")
    entries = sorted(photos.items())
    one = {f"jpg/{path}": data for path, data in entries[:4]}
    two = {f"./{path}": data for path, data in entries[4:]}
    write_tar(root / "revisitop1m.2.tar.gz", one | {"jpg/Thumbs.db": b"-"}, "w:gz")
    write_tar(root / "revisitop1m.10.tar.gz", two, "w:gz")
    return root


def test_archives_in_the_order_of_the_list(tmp_path, hosts, photos, read, names):
    dataset, records = read(tmp_path / "d", "revisitop1m", manual_dir=str(hosts))
    assert list(records) == ["database"]
    assert names(records["database"]) == PATHS
    assert [record["image"] for record in records["database"]] == list(photos.values())
    assert dataset.ground_truth is None
    assert prepare(tmp_path / "d", "").builder.data_path == dataset.builder.data_path


@pytest.mark.parametrize("folder", ["jpg", "."])
def test_unpacked_photos(folder, tmp_path, hosts, photos, read, names):
    for path in hosts.glob("*.gz"):
        path.unlink()
    for name, data in photos.items():
        path = hosts / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    _, records = read(tmp_path / "d", "revisitop1m", manual_dir=str(hosts))
    assert names(records["database"]) == PATHS
    assert [record["image"] for record in records["database"]] == list(photos.values())
    if folder == ".":
        with pytest.raises(UserError, match="is among the photos"):
            prepare(hosts / "d", hosts)


def test_missing_photos_are_named_or_skipped(tmp_path, hosts, read, names, capsys):
    (hosts / "revisitop1m.10.tar.gz").unlink()
    lost = sorted(PATHS)[4:]
    with pytest.raises(
        UserError, match=rf"2 of 6 photos are missing: {lost[1]}|{lost[0]}"
    ):
        prepare(tmp_path / "d", hosts)
    options = {"manual_dir": str(hosts), "skip_bad": True}
    _, records = read(tmp_path / "d", "revisitop1m", **options)
    assert names(records["database"]) == [path for path in PATHS if path not in lost]
    err = capsys.readouterr().err
    assert "note: revisitop1m: " in err and "6 photos of 1,001,001 published" in err
    assert "warning: revisitop1m: 2 photos skipped" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\n\nb.jpg\njpg/a.jpg\n", "line 4: a.jpg is in line 1 too"),
        ("../a.jpg\n", "line 1: ../a.jpg is no photo's path"),
        ("/etc/passwd\n", "line 1"),
        ("a\x1b[2J.jpg\n", "line 1"),
        ("\n", "names no photo"),
    ],
)
def test_lists_that_cannot_be(text, message, tmp_path, hosts):
    (hosts / "revisitop1m.txt").write_text(text)
    with pytest.raises(UserError, match=rf"revisitop1m\.txt.*{message}"):
        prepare(tmp_path / "d", hosts)


def test_a_list_with_a_mark_and_other_line_ends(tmp_path, hosts, read, names):
    text = "\r\n".join(f"jpg/{path}" for path in PATHS)
    (hosts / "revisitop1m.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    _, records = read(tmp_path / "d", "revisitop1m", manual_dir=str(hosts))
    assert names(records["database"]) == PATHS


def test_a_photo_in_two_archives_is_an_error(tmp_path, hosts, photos, write_tar):
    write_tar(hosts / "revisitop1m.3.tar.gz", {PATHS[0]: photos[PATHS[0]]}, "w:gz")
    with pytest.raises(UserError, match=rf"{PATHS[0]} is in .* and again in"):
        prepare(tmp_path / "d", hosts)


def test_a_list_is_needed(tmp_path, hosts):
    (hosts / "revisitop1m.txt").unlink()
    with pytest.raises(UserError, match=r"lacks revisitop1m\.txt"):
        prepare(tmp_path / "d", hosts)
