"""Outputs of commands are checked before long work begins."""

import pytest

from tokret.errors import UserError
from tokret.io.remote import objects, outputs, urls
from tokret.io.remote.outputs import is_taken, names_in, prepare_file, prepare_folder
from tokret.io.remote.retrying import StorageError


def test_an_output_is_tried(storage):
    file = urls.local_path(f"{storage.url}/results/out.json")
    prepare_file(file, "output")
    prepare_folder(file.parent, "workdir")
    assert file.parent.is_dir() and not file.exists()
    assert objects.list_objects(storage.url) == {}
    assert not is_taken(file) and not is_taken(file.parent)
    objects.write_object(urls.shown(file), b"{}")
    assert is_taken(file) and is_taken(file.parent)
    assert names_in(file.parent) == {"out.json"}
    prepare_file(file, "output")
    with pytest.raises(UserError, match=r"^workdir: .*out.json is a file; name a fol"):
        prepare_folder(file, "workdir")
    with pytest.raises(UserError, match=r"^json: .*/results is not a file; name one"):
        prepare_file(file.parent, "json")


def test_a_bucket_is_no_file_and_one_that_is_missing_is_named(gcs, s3):
    for storage in (gcs, s3):
        bucket = urls.local_path(storage.url)
        with pytest.raises(UserError, match=f"json: {storage.url} is a bucket; name a"):
            prepare_file(bucket, "json")
        missing = f"{storage.url}-of-nobody/run"
        for prepare in (prepare_file, prepare_folder):
            with pytest.raises(
                UserError, match=f"^output: {missing}: there is no such bucket"
            ):
                prepare(urls.local_path(missing), "output")


def test_a_missing_right_is_named(memory, monkeypatch):
    def refuse(url, content):
        raise StorageError(f"{url}: no permission (403)")

    monkeypatch.setattr(outputs, "write_object", refuse)
    url = f"{memory.url}/run"
    with pytest.raises(StorageError, match=f"^workdir: {url}: no permission"):
        prepare_folder(urls.local_path(url), "workdir")
    with pytest.raises(StorageError, match=f"^json: {url}: no permission"):
        prepare_file(urls.local_path(url), "json")


def test_ordinary_outputs_are_as_before(tmp_path):
    prepare_file(None, "json")
    prepare_file(tmp_path / "out.json", "json")
    prepare_folder(tmp_path / "new" / "run", "workdir")
    assert not is_taken(tmp_path / "out.json") and names_in(tmp_path) == set()
    (tmp_path / "link").symlink_to("nowhere")
    assert is_taken(tmp_path / "link") and names_in(tmp_path / "none") == set()
    with pytest.raises(UserError, match="json: .* cannot be written"):
        prepare_file(tmp_path / "none" / "out.json", "json")
