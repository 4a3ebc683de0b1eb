"""Datasets whose sources are in a bucket: archives, lists and photos are fetched."""

import hashlib

import pytest

from tokret.data import datasets
from tokret.data.checking import check as checking
from tokret.data.preparing import dataset_writer, source_files, tfds_layout
from tokret.errors import UserError
from tokret.io.remote import objects
from tokret.io.remote.urls import local_path


def upload(folder, url):
    """Copies a folder to a bucket."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            objects.upload(path, f"{url}/{path.relative_to(folder).as_posix()}")
    return url


def contents(dataset):
    """A digest of all records, and the metadata."""
    digest = hashlib.sha256()
    for split in sorted(dataset.builder.info.splits):
        records = dataset.records(split)
        for row in range(len(records)):
            digest.update(repr(sorted(records[row].items())).encode())
    return digest.hexdigest(), dataset.ground_truth, dataset.leave_one_out


class Disk:
    """The most files of a suffix that are in a folder at a time, and downloads."""

    def __init__(self, monkeypatch, folder, suffix):
        self.most, self.downloads = 0, []
        real = objects.download

        def download(url, path, *arguments):
            real(url, path, *arguments)
            if path.name.endswith(suffix):
                self.downloads.append(path.name)
            here = [p for p in folder.rglob(f"*{suffix}") if p.name[0] != "."]
            self.most = max(self.most, len(here))

        for module in ("tokret.io.remote.fetching", source_files.__name__):
            monkeypatch.setattr(f"{module}.download", download)


@pytest.mark.parametrize("workers", [1, 2])
def test_tars_are_read_in_turn_and_the_dataset_is_the_same(
    memory, gldv2_folder, tmp_path, monkeypatch, workers
):
    monkeypatch.setattr(tfds_layout, "PHOTOS_PER_SHARD", 2)
    # One tar, as every other, suffices for the limit.
    size = max(p.stat().st_size for p in gldv2_folder.glob("*.tar"))
    monkeypatch.setattr(source_files, "MAX_BYTES", size)
    monkeypatch.setattr(source_files, "THREADS", 1)
    monkeypatch.setattr("tokret.data.google_landmarks.photo_locations.THREADS", 1)
    fields = {"name": "gldv2", "workers": workers}
    local = datasets.prepare(
        str(tmp_path / "local"), manual_dir=str(gldv2_folder), **fields
    )
    source = upload(gldv2_folder, f"{memory.url}/hosts")
    disk = Disk(monkeypatch, local_path(memory.url), ".tar")
    data = f"{memory.url}/data"
    dataset = datasets.prepare(data, manual_dir=source, **fields)
    assert contents(dataset) == contents(local)
    assert not list(local_path(source).rglob("*.tar"))
    # Once to list them, once to read them.
    assert disk.most <= 2 and len(disk.downloads) <= 4
    assert [n for n in objects.list_objects(data) if n.endswith(".npz")]
    disk.downloads.clear()
    again = datasets.prepare(data, manual_dir=source, **fields)
    assert again.folder == dataset.folder and not disk.downloads
    # Another variant uses the lists of the tars again.
    datasets.prepare(data, manual_dir=source, resize=32, **fields)
    assert len(disk.downloads) <= 2
    assert datasets.prepare(data, name="gldv2").folder  # the sources need not exist


def test_what_gldv2_lacks_in_a_bucket(memory, gldv2_folder, tmp_path):
    source = upload(gldv2_folder, f"{memory.url}/hosts")
    fields = {"name": "gldv2", "manual_dir": source}
    with pytest.raises(UserError, match="exclude_ids: .*none is not a file"):
        datasets.prepare(
            str(tmp_path),
            subset="no_overlap",
            exclude_ids=f"{source}/none",
            **fields,
        )
    for path in gldv2_folder.glob("*.tar"):
        objects.remove(f"{source}/{path.name}")
    with pytest.raises(UserError, match="contains no tars"):
        datasets.prepare(str(tmp_path), **fields)
    objects.remove(f"{source}/train_clean.csv")
    with pytest.raises(UserError, match="lacks train_clean.csv"):
        datasets.prepare(str(tmp_path), **fields)


def test_a_photo_folder_in_a_bucket(storage, photo_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_layout, "PHOTOS_PER_SHARD", 4)
    fields = {"name": "image_folder", "workers": 1, "benchmark_fraction": 0.4}
    local = datasets.prepare(str(tmp_path / "d"), root=str(photo_folder), **fields)
    source = upload(photo_folder, f"{storage.url}/photos")
    for name in (".hidden/a.jpg", "ash/@eaDir/a.jpg", "ash/readme.txt", "direct.jpg"):
        objects.write_object(f"{source}/{name}", b"-")
    disk = Disk(monkeypatch, local_path(source), ".jpg")
    dataset = datasets.prepare(str(tmp_path / "e"), root=source, **fields)
    assert contents(dataset) == contents(local)
    assert len(disk.downloads) == 18 and not list(local_path(source).rglob("*.jpg"))
    again = datasets.prepare(str(tmp_path / "e"), root=source, **fields)
    assert again.folder == dataset.folder
    objects.write_object(f"{source}/ash/photo 0.jpg", b"-")
    with pytest.raises(UserError, match="1 of 18 photos cannot be used"):
        datasets.prepare(str(tmp_path / "e"), root=source, **fields)


def test_a_table_and_lists_in_a_bucket(memory, photo_folder, tmp_path):
    source = upload(photo_folder, f"{memory.url}/photos")
    rows = [
        f"{label}/photo {i}.jpg,{label}" for label in ("ash", "birch") for i in range(6)
    ]
    objects.write_object(f"{source}/t.csv", "\n".join(["path,label", *rows]).encode())
    objects.write_object(f"{source}/v.txt", b"ash/photo 1.jpg\nbirch/photo 2.jpg\n")
    fields = {"table": f"{source}/t.csv", "validation_list": f"{source}/v.txt"}
    dataset = datasets.prepare(str(tmp_path), name="image_folder", **fields)
    sizes = {k: v.num_examples for k, v in dataset.builder.info.splits.items()}
    assert sizes == {"train": 10, "validation": 2}
    with pytest.raises(UserError, match="none.csv: there is no such object"):
        datasets.prepare(str(tmp_path), name="image_folder", table=f"{source}/none.csv")


def test_archives_of_a_benchmark_are_fetched(memory, oxford_folder, tmp_path):
    fields = {"name": "roxford5k", "skip_bad": True}
    local = datasets.prepare(
        str(tmp_path / "d"), manual_dir=str(oxford_folder), **fields
    )
    source = upload(oxford_folder, f"{memory.url}/oxford")
    objects.write_object(f"{source}/huge.bin", b"-")
    dataset = datasets.prepare(f"{memory.url}/data", manual_dir=source, **fields)
    assert contents(dataset) == contents(local)
    assert not local_path(source).exists()
    again = datasets.prepare(f"{memory.url}/data", manual_dir=source, **fields)
    assert again.folder == dataset.folder


def test_rendered_photos_are_uploaded(memory, tmp_path):
    fields = {
        **{"name": "synthetic_landmarks", "landmarks": 2, "photos": 2},
        **{"validation_photos": 1, "benchmark_landmarks": 1, "distractors": 2},
        **{"database_photos": 2, "longest_side": 48},
    }
    local = datasets.prepare(str(tmp_path), **fields)
    dataset = datasets.prepare(f"{memory.url}/data", **fields)
    assert contents(dataset) == contents(local)
    assert datasets.prepare(f"{memory.url}/data", **fields).folder == dataset.folder


def run_check(name, data_dir, **fields):
    options = {"smallest": 32, "workers": 1, "fields": fields}
    return checking.check(name, data_dir, None, **options)


def test_sources_in_a_bucket_are_checked(memory, photo_folder, gldv2_folder, tmp_path):
    photos = upload(photo_folder, f"{memory.url}/photos")
    objects.write_object(f"{photos}/ash/photo 0.jpg", b"-")
    report, is_sound = run_check("image_folder", tmp_path, root=photos)
    assert not is_sound and "ash/photo 0.jpg" in report and "18" in report
    source = upload(gldv2_folder, f"{memory.url}/hosts")
    ours, _ = run_check("gldv2", tmp_path, manual_dir=source)
    theirs, _ = run_check("gldv2", tmp_path, manual_dir=str(gldv2_folder))
    assert ours == theirs.replace(str(gldv2_folder), str(local_path(source)))
    assert not list(local_path(source).rglob("*.tar"))


def test_a_prepared_dataset_in_a_bucket_is_checked(memory, photo_folder, monkeypatch):
    monkeypatch.setattr(tfds_layout, "PHOTOS_PER_SHARD", 4)
    url = f"{memory.url}/data"
    datasets.prepare(url, name="image_folder", root=str(photo_folder), workers=1)
    report, is_sound = run_check("image_folder", local_path(url))
    assert is_sound, report
    name = next(n for n in objects.list_objects(url) if "train.array_record-00001" in n)
    content = bytearray(objects.read_object(f"{url}/{name}", 2**24))
    content[len(content) // 2] ^= 1
    objects.write_object(f"{url}/{name}", bytes(content))
    report, is_sound = run_check("image_folder", local_path(url))
    assert not is_sound and "changed" in report and "damaged" in report
    objects.remove(f"{url}/{name}")
    report, _ = run_check("image_folder", local_path(url))
    assert "missing" in report
    with pytest.raises(UserError, match="contains no prepared gldv2"):
        run_check("gldv2", local_path(url))


def test_a_preparation_that_fails_ends(memory, photo_folder, tmp_path, monkeypatch):
    """Workers, fetches and uploads wait for one another; an error ends them all."""
    monkeypatch.setattr(tfds_layout, "PHOTOS_PER_SHARD", 1)
    source = upload(photo_folder, f"{memory.url}/photos")
    fields = {"name": "image_folder", "root": source, "workers": 2}
    real, ended = dataset_writer.FetchedFiles.done, []

    def done(self, task):
        ended.append(task)
        if len(ended) > 3:
            raise KeyboardInterrupt
        real(self, task)

    with monkeypatch.context() as patch:
        patch.setattr(source_files, "MAX_BYTES", 1)
        patch.setattr(dataset_writer.FetchedFiles, "done", done)
        with pytest.raises(KeyboardInterrupt):
            datasets.prepare(f"{memory.url}/data", **fields)
    assert datasets.prepare(f"{memory.url}/data", **fields).classes == 3
