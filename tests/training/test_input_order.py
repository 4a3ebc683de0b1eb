"""The order of a run, and whether the local disk suffices for it."""

import dataclasses
import shutil

import pytest

from configs import demo
from tokret.config.parsing import parse
from tokret.config.tree import ShuffleConfig
from tokret.data import datasets
from tokret.data.preparing import tfds_layout
from tokret.errors import UserError
from tokret.training.input_order import check_cache, describe_order


@pytest.fixture
def dataset(memory, photo_folder, monkeypatch):
    """Eight shards of 128 KiB in a bucket."""
    monkeypatch.setattr(tfds_layout, "PHOTOS_PER_SHARD", 2)
    fields = {"name": "image_folder", "root": str(photo_folder), "workers": 1}
    return datasets.prepare(f"{memory.url}/data", **fields)


def config(cache_gib, **shuffle):
    base = parse(demo.get_config().to_dict())
    run = dataclasses.replace(base.run, cache_gib=cache_gib)
    return dataclasses.replace(base, run=run, shuffle=ShuffleConfig(**shuffle))


def test_the_order_is_named_with_its_reason(dataset, photo_folder, tmp_path):
    check_cache(config(1.0), dataset)
    assert describe_order(config(1.0), dataset) == (
        "shuffled globally; all 0.00122 GiB of its shards are fetched, within "
        "config.run.cache_gib=1"
    )
    windows = config(1.0, order="windows", window_gib=0.25)
    check_cache(windows, dataset)
    words = "shuffled in windows of 0.25 GiB of each process (config.shuffle)"
    assert describe_order(windows, dataset) == words
    local = datasets.prepare(
        str(tmp_path), name="image_folder", root=str(photo_folder), workers=1
    )
    assert describe_order(config(1e-6), local) == ""
    assert describe_order(windows, local) == words
    check_cache(config(1e-6), local)


def test_what_does_not_fit_is_refused_with_the_fields(dataset, monkeypatch):
    with pytest.raises(UserError, match=r"cache_gib is 0\.0005, but .*memory://"):
        check_cache(config(0.0005), dataset)
    with pytest.raises(UserError, match="at least 3 times a window, 0.25 GiB"):
        check_cache(config(0.5, order="windows", window_gib=0.25), dataset)
    # The largest shard is a window by itself.
    with pytest.raises(UserError, match="at least 3 times a window, 0.000122 GiB"):
        check_cache(config(0.0003, order="windows", window_gib=1e-6), dataset)
    usage = shutil.disk_usage("/")._replace(free=2**10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    for order in ("global", "windows"):
        with pytest.raises(UserError, match="TOKRET_CACHE=FOLDER"):
            check_cache(config(1.0, order=order, window_gib=0.1), dataset)
