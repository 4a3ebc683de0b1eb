"""Photos are listed, shown, added and removed."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.search.service.test_searching import names, refused
from tokret.data.views import photo_digest
from tokret.errors import UserError
from tokret.io.file_locks import held
from tokret.search.catalogue import LOCK
from tokret.search.indexing import update_index
from tokret.search.searcher import Searcher
from tokret.search.service import change_routes, photo_answers
from tokret.search.service.problems import Problem
from tokret.search.service.saving import make_folder, safe_name, save_photo


def add(client, *files, **fields):
    """Sends (name, content)s."""
    parts = [("photo", file) for file in files]
    texts = [(name, (None, value)) for name, value in fields.items()]
    return client.post("/photos", files=parts + texts)


@pytest.fixture
def some(photos):
    """The id of a photo."""
    return photo_digest((photos / "sea" / "1.jpg").read_bytes())


def test_photos_are_listed_by_name(client, some):
    whole = client.get("/photos", params={"top": 9}).json()
    assert whole["total"] == 9 and not whole["more"]
    listed = [photo["name"] for photo in whole["photos"]]
    assert listed == sorted(listed) and "sea/3 <b>é.jpg" in listed
    page = client.get("/photos", params={"top": 2, "offset": 2, "folder": "sea"})
    found = page.json()
    assert [photo["name"] for photo in found["photos"]] == ["sea/5.jpg", "sea/7.jpg"]
    assert found["total"] == 4 and not found["more"]
    assert found["photos"][0].items() >= {"label": "sea", "folder": "sea"}.items()
    counts = {"mountains": 5, "sea": 4}
    assert client.get("/filters").json() == {"folders": counts, "labels": counts}
    assert client.get(f"/photos/{some}").json() == {
        "id": some,
        "names": ["sea/1.jpg"],
        "label": "sea",
        "width": 48,
        "height": 40,
        "missing": False,
    }
    assert refused(client.get("/photos", params={"tops": 2}), 400, field="tops")
    far = {"offset": 2**63}
    assert refused(client.get("/photos", params=far), 400, field="offset")
    assert refused(client.get(f"/photos/{'0' * 16}"), 404)
    assert refused(client.get("/photos/x"), 404)


def test_pictures_are_upright_small_and_kept(serve, search, tmp_path, jpeg):
    turned = Image.Exif()
    turned[0x0112] = 6
    content = jpeg(seed=3, size=(400, 100), exif=turned)
    with serve() as client:
        search(client, ("photo", content))
        photo = photo_digest(content)
        address = f"/photos/{photo}/image"
        sizes = {}
        for side in (None, 1, 100, 300, 16_000):
            answer = client.get(address, params={"side": side} if side else {})
            assert answer.headers["content-type"] == "image/webp"
            picture = Image.open(io.BytesIO(answer.content))
            assert not picture.getexif()
            sizes[side] = picture.size
        assert sizes == {
            None: (100, 400),
            1: (20, 80),
            100: (40, 160),
            300: (80, 320),
            16_000: (100, 400),
        }
        again = client.get(address, params={"side": 100})
        tag = {"If-None-Match": again.headers["etag"]}
        answer = client.get(address, params={"side": 100}, headers=tag)
        assert answer.status_code == 304 and not answer.content
        assert refused(client.get(address, params={"side": 0}), 400, field="side")
        assert "immutable" in again.headers["cache-control"]
        shown = client.get(f"/photos/{photo}").json()
        assert (shown["names"], shown["width"]) == ([], 100)


def test_uploads_and_pictures_in_memory_are_bounded(serve, search, jpeg):
    with serve(uploads=2) as client:
        uploads = [jpeg(seed=seed) for seed in range(50, 53)]
        for content in uploads:
            assert names(search(client, ("photo", content)))
        kept = [search(client, like=photo_digest(c)).status_code for c in uploads]
        assert kept == [404, 200, 200]


def test_a_model_without_tokens_has_no_maps(client, some):
    assert refused(client.get(f"/photos/{some}/attention"), 404, "no attention maps")


def test_added_photos_are_found_and_their_files_are_whole(client, search, photos, jpeg):
    new, other = jpeg(seed=60), jpeg(seed=61, kind="PNG")
    answer = add(client, ("../a/b.PNG", new), ("?", other), folder="sea/new ones")
    assert answer.status_code == 201, answer.text
    added = answer.json()["photos"]
    assert [p["name"] for p in added] == [
        "sea/new ones/b.jpg",
        "sea/new ones/photo.png",
    ]
    assert (
        added[0].items() >= {"label": "new ones", "width": 40, "missing": False}.items()
    )
    assert (photos / "sea/new ones/b.jpg").read_bytes() == new
    assert names(search(client, ("photo", new)))[0] == "sea/new ones/b.jpg"
    assert search(client, ("photo", new)).json()["total"] == 11
    # The same again is not saved again, another of the same name is.
    assert add(client, ("x.jpg", new)).json()["photos"] == added[:1]
    renamed = add(client, ("b.jpg", jpeg(seed=62)), folder="sea/new ones").json()
    assert renamed["photos"][0]["name"] == "sea/new ones/b-2.jpg"
    assert add(client, ("c.jpg", jpeg(seed=63))).json()["photos"][0]["name"] == "c.jpg"


def test_added_photos_have_the_descriptors_of_an_update(
    client, photos, index, jpeg, load
):
    content = jpeg(seed=60, size=(60, 20))
    photo = add(client, ("a.jpg", content)).json()["photos"][0]["id"]
    found = client.service.searcher.descriptors([photo])
    assert found == pytest.approx(
        load("").system and _extracted(load, content), abs=1e-5
    )
    change = update_index(photos, index, load)
    assert (change.new, change.gone) == (0, 0)


def _extracted(load, content):
    from tokret.retrieval.extraction import extract
    from tokret.search.photos import upright_view

    system = load("").system
    view = upright_view(content, "photo", None, system.settings.longest_side)
    return extract(system.embed, system.variables, [view], system.settings)


@pytest.mark.parametrize(
    "folder",
    ["..", "sea/../..", "sea/./x", ".hidden", "sea/@eaDir", "a\nb", "x" * 300, "link"],
)
def test_photos_are_saved_only_below_the_root(client, photos, tmp_path, jpeg, folder):
    (tmp_path / "elsewhere").mkdir()
    (photos / "link").symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*.jpg"))
    answer = add(client, ("a.jpg", jpeg(seed=60)), folder=folder)
    assert refused(answer, 400, "folder", field="folder")
    assert sorted(tmp_path.rglob("*.jpg")) == before


@pytest.mark.parametrize("folder", ["inner", "inner/parts", "inner/new", "link"])
def test_photos_are_not_saved_in_an_index_below_the_root(
    client, photos, load, jpeg, folder
):
    update_index(photos, photos / "inner", load)
    (photos / "link").symlink_to(photos / "inner")
    answer = add(client, ("a.jpg", jpeg(seed=60)), folder=folder)
    assert refused(answer, 400, "in an index", field="folder")
    assert not [*(photos / "inner").rglob("*.jpg")]


def test_sizes_that_are_waited_for_are_bounded(client, monkeypatch):
    monkeypatch.setattr(photo_answers, "MOST_TASKS", 0)
    shown = client.get("/photos").json()["photos"]
    assert [(p["width"], p["missing"]) for p in shown] == [(None, False)] * 9


def test_an_absolute_folder_is_one_below_the_root(client, photos, jpeg):
    answer = add(client, ("a.jpg", jpeg(seed=60)), folder="/etc/")
    assert answer.json()["photos"][0]["name"] == "etc/a.jpg"
    assert (photos / "etc" / "a.jpg").is_file()


def test_bad_photos_are_not_saved(client, photos, jpeg):
    before = sorted(photos.rglob("*"))
    answer = add(client, ("a.jpg", jpeg(seed=60)), ("b.jpg", b"no photo"))
    assert refused(answer, 422, field="photo")
    assert refused(add(client, folder="sea"), 400, field="photo")
    assert refused(add(client, ("a.jpg", jpeg()), colour="red"), 400, field="colour")
    assert sorted(photos.rglob("*")) == before


def test_files_of_added_photos_stay_whatever_fails_after_them(
    client, photos, jpeg, monkeypatch
):
    real, content = change_routes.add_files, jpeg(seed=60)

    def damaging(index, paths, *arguments, **options):
        paths[1].write_bytes(b"damaged since")
        return real(index, paths, *arguments, **options)

    def failing(*arguments, **options):
        real(*arguments, **options)
        raise UserError("the disk is full")

    before = {*photos.rglob("*")}
    monkeypatch.setattr(change_routes, "add_files", damaging)
    answer = add(client, ("a.jpg", content), ("b.jpg", jpeg(seed=61)))
    assert refused(answer, 422, "1 other photo added", field="photo")
    assert {*photos.rglob("*")} - before == {photos / "a.jpg"}
    assert client.get(f"/photos/{photo_digest(content)}").status_code == 200
    monkeypatch.setattr(change_routes, "add_files", failing)
    assert refused(add(client, ("c.jpg", jpeg(seed=62))), 503)
    assert (photos / "c.jpg").read_bytes() == jpeg(seed=62)
    monkeypatch.setattr(change_routes, "add_files", real)
    monkeypatch.setattr(Searcher, "refresh", _unreadable)
    assert add(client, ("d.jpg", jpeg(seed=63))).status_code == 201
    assert (photos / "d.jpg").read_bytes() == jpeg(seed=63)


def _unreadable(searcher):
    raise UserError("the index cannot be read")


def test_nothing_is_saved_while_another_process_updates_the_index(
    client, photos, index, jpeg, some
):
    before = sorted(photos.rglob("*"))
    with held(index / LOCK, "held"):
        answer = add(client, ("a.jpg", jpeg(seed=60)))
        assert refused(answer, 503, "another process")
        assert str(index) not in answer.text
        assert int(answer.headers["retry-after"]) > 0
        assert refused(client.delete(f"/photos/{some}"), 503)
    assert sorted(photos.rglob("*")) == before
    assert add(client, ("a.jpg", jpeg(seed=60))).status_code == 201


def test_a_removed_photo_is_not_found_and_its_file_stays(
    client, search, photos, index, load, some
):
    answer = client.delete(f"/photos/{some}")
    assert answer.json() == {"id": some, "names": ["sea/1.jpg"]}
    assert "sea/1.jpg" not in names(search(client, like=_any(client), top=9))
    assert (photos / "sea" / "1.jpg").is_file()
    assert refused(client.delete(f"/photos/{some}"), 404)
    assert refused(client.get(f"/photos/{some}/image"), 404)
    # An update does not take it in again; adding it does.
    assert update_index(photos, index, load).new == 0
    content = (photos / "sea" / "1.jpg").read_bytes()
    assert add(client, ("again.jpg", content)).status_code == 201
    assert client.get(f"/photos/{some}").json()["names"]


def _any(client):
    return client.get("/photos").json()["photos"][0]["id"]


def test_the_last_photo_stays(client):
    ids = [p["id"] for p in client.get("/photos").json()["photos"]]
    answers = [client.delete(f"/photos/{photo}").status_code for photo in ids]
    assert answers == [200] * 8 + [409]


def test_a_read_only_service_changes_nothing(serve, jpeg, some):
    with serve(read_only=True) as client:
        assert refused(add(client, ("a.jpg", jpeg(seed=60))), 403, "read-only")
        assert refused(client.delete(f"/photos/{some}"), 403, "read-only")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a photo.jpeg", "a photo.jpg"),
        ("../../x", "x.jpg"),
        ("C:\\photos\\x.gif", "x.jpg"),
        (".htaccess", "htaccess.jpg"),
        ("", "photo.jpg"),
        ("...", "photo.jpg"),
        ("a\x00\n\u202eb<>.png", "a___b.jpg"),
        ("e\u0301t\u00e9", "été.jpg"),
        ("-rf.jpg", "-rf.jpg"),
        ("x" * 300, "x" * 80 + ".jpg"),
    ],
)
def test_names_are_safe(given, name):
    assert safe_name(given, ".jpg") == name


def test_a_name_is_never_replaced(tmp_path):
    paths = [save_photo(tmp_path, "a.jpg", "JPEG", bytes([n])) for n in range(3)]
    assert [path.name for path in paths] == ["a.jpg", "a-2.jpg", "a-3.jpg"]
    assert [path.read_bytes() for path in paths] == [b"\0", b"\1", b"\2"]
    assert len([*tmp_path.iterdir()]) == 3
    with pytest.raises(Problem, match="PDF"):
        save_photo(tmp_path, "a", "PDF", b"")
    with pytest.raises(Problem) as error:
        save_photo(tmp_path / "none", "a", "JPEG", b"")
    assert error.value.status == 507
    (tmp_path / "file").touch()
    with pytest.raises(Problem, match="below the root"):
        make_folder(tmp_path, "file")


def test_maps_are_those_of_the_model(serve, search, token_checkpoint, photos, tmp_path):
    from tokret.search.extractor import load_extractor
    from tokret.search.photos import read_view

    extractor = load_extractor(token_checkpoint)
    update_index(photos, tmp_path / "index", lambda copy: extractor, rebuild=True)
    with serve(load=lambda copy: extractor) as client:
        path = photos / "sea" / "1.jpg"
        photo = photo_digest(path.read_bytes())
        found = client.get(f"/photos/{photo}/attention").json()
        view = read_view(path, "photo", None, 48)
        (expected,) = extractor.system.token_maps([view])
        assert (found["tokens"], found["height"], found["width"]) == expected.shape
        maps = np.array(found["maps"]).reshape(expected.shape)
        assert maps == pytest.approx(expected, abs=1e-4)
