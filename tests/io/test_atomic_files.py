import stat

import pytest

from tokret.errors import UserError
from tokret.io.atomic_files import require_folder, write_whole


def test_what_replaces_a_file_is_whole_and_as_private(tmp_path):
    path = tmp_path / "file"
    write_whole(path, "new")
    path.chmod(0o640)
    write_whole(path, b"newer")
    assert path.read_text() == "newer"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_whole(folder, "a file")
    with pytest.raises(UserError, match="none/file: cannot be written"):
        write_whole(tmp_path / "none" / "file", "a file")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in ("", "new", "new/below", "link/new"):
        require_folder(tmp_path / path, "output")
    for path in ("file", "file/below", "file/below/it"):
        with pytest.raises(UserError, match=f"^output: {tmp_path}/file is a file; "):
            require_folder(tmp_path / path, "output")
