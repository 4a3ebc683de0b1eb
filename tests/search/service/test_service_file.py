import os

import msgspec
import pytest

from tokret.io.drafts import own_scope
from tokret.search.service.service_file import (
    FILE,
    ServiceFile,
    remove_service,
    running_service,
    write_service,
)

URL = "http://127.0.0.1:8000"
NOBODY = 2**22 + 1  # no process has such a PID on Linux


def write(folder, **fields):
    known = {"url": URL, "pid": os.getpid(), "scope": own_scope(), "service": "a"}
    (folder / FILE).write_bytes(msgspec.json.encode(ServiceFile(**(known | fields))))


def test_a_service_is_named_while_it_runs(tmp_path):
    assert running_service(tmp_path) is None
    assert write_service(tmp_path, URL, "a")
    assert running_service(tmp_path).url == URL
    remove_service(tmp_path, "b")  # of another one
    assert running_service(tmp_path)
    remove_service(tmp_path, "a")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("fields", [{"pid": NOBODY}, {"scope": "another"}])
def test_a_file_that_was_left_is_replaced(tmp_path, fields):
    write(tmp_path, **fields)
    assert running_service(tmp_path) is None
    assert write_service(tmp_path, URL, "b")
    assert running_service(tmp_path).service == "b"


def test_a_damaged_file_is_none(tmp_path):
    (tmp_path / FILE).write_text("{")
    assert running_service(tmp_path) is None
    assert write_service(tmp_path, URL, "b")


def test_of_two_services_the_first_is_named(tmp_path):
    write(tmp_path, pid=os.getppid())
    assert not write_service(tmp_path, URL, "b")
    assert running_service(tmp_path).service == "a"
