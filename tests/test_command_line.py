"""Command lines: options, values, tables of commands, and mistakes in one line."""

import dataclasses
import io
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from tokret import __main__, __version__, command_line
from tokret.errors import UserError
from tokret.option_types import RemotePath


@dataclasses.dataclass(frozen=True)
class Group:
    """Grouped options.

    Attributes:
      side: in pixels.
    """

    side: int = 7


def command(
    photo: Annotated[Path, tyro.conf.Positional],
    output: Path,
    scales: tuple[float, ...] = (1.0, 0.7),
    longest_side: int | None = None,
    report: bool = True,
    group: Group = Group(),  # noqa: B008 (frozen)
    fields: tuple[str, ...] = (),
):
    """Do something.

    Args:
      photo: a photo.
      output: a file
        of results.
      scales: factors.
      longest_side: in pixels.
      report: write a report.
      group: more.
      fields: changes.
    """
    raise UserError(f"longest_side is {longest_side}; it must be at least 1")


def parse(*arguments):
    return command_line.parse(command, arguments, "tokret do").keywords


def test_options_have_types_and_either_spelling():
    found = parse("p.jpg", "--output=~/o", "--scales", "1,2", "--no-report")
    assert found["photo"] == Path("p.jpg") and found["output"] == Path.home() / "o"
    assert found["scales"] == (1.0, 2.0) and found["report"] is False
    assert parse("p", "--output=o", "--longest-side=3")["longest_side"] == 3
    assert parse("p", "--output=o", "--longest_side", "3")["longest_side"] == 3
    assert parse("p", "--output=o", "--side=3")["group"] == Group(3)
    assert parse("p", "--output=o", "--scales=")["scales"] == ()


def test_several_files_are_several_arguments():
    def table(results: Annotated[tuple[Path, ...], tyro.conf.Positional]) -> None: ...

    found = command_line.parse(table, ["a,b.json", "c.json"], "tokret table").keywords
    assert found == {"results": (Path("a,b.json"), Path("c.json"))}


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("memory://b/run", "memory/b/run"),
        ("MEMORY://b/run/", "memory/b/run"),
        ("gs://bucket", "gs/bucket"),
    ],
)
def test_a_url_becomes_the_place_of_its_local_copy(monkeypatch, tmp_path, url, place):
    monkeypatch.setenv("TOKRET_CACHE", str(tmp_path))

    def copy(
        source: Annotated[RemotePath, tyro.conf.Positional],
        others: tuple[RemotePath, ...] = (),
        target: RemotePath | None = None,
    ) -> None: ...

    arguments = [url, "--others", url, "a,b", f"--target={url}"]
    found = command_line.parse(copy, arguments, "tokret copy").keywords
    path = tmp_path / place
    assert found == {"source": path, "others": (path, Path("a,b")), "target": path}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--target: it is empty"),
        ("ftp://b/run", "ftp:// cannot be used; name a local path or gs://, s3://"),
        ("gs:/b/run", "'gs:/b/run' has one slash after gs:, a URL has two"),
        ("gs://", "--target: 'gs://' names no bucket"),
        ("gs://b/../c", "has a part that is empty, . or .."),
        ("oci://b/x", "--target: 'oci://b/x' needs ocifs: pip install ocifs"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(text, message):
    def copy(target: RemotePath) -> None: ...

    with pytest.raises(UserError) as caught:
        command_line.parse(copy, [f"--target={text}"], "tokret copy")
    assert message in str(caught.value)


def test_messages_name_the_url(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TOKRET_CACHE", str(tmp_path))

    def copy(target: RemotePath) -> None:
        """Copy."""
        command_line.log(f"written: {target}")
        raise UserError(f"target={target} is there already; name a new file")

    assert command_line.run(copy, ["--target=memory://b/c/d"], "tokret copy") == 2
    out, err = capsys.readouterr()
    assert out == "written: memory://b/c/d\n"
    assert err == ("error: --target=memory://b/c/d is there already; name a new file\n")


def test_fields_of_the_config_pass_through():
    fields = ("--config.a.b=1", "--config.c", "2", "--config.d")
    assert command_line.split_fields(["x", *fields, "--y=3"]) == (
        ["--config.a.b=1", "--config.c=2", "--config.d"],
        ["x", "--y=3"],
    )
    found = parse("p", "--config.a=1", "--output=o")
    assert found["fields"] == ["--config.a=1"]


@pytest.mark.parametrize("columns", ["40", "200"])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "PHOTO, --output missing"),
        (("p", "--output=o", "--oputut=x"), "did you mean --output?"),
        (("p", "--output=o", "--sdie=1"), "did you mean --side?"),
        (("p", "--oputut=o"), "--oputut is not an option; did you mean --output?"),
        (("p", "--output=o", "--longest_side=x"), "--longest_side: 'x' is not a whole"),
        (("p", "--output=o", "--scales=1,x"), "--scales: 'x' is not a number"),
        (("p", "--output="), "--output: it is empty; name a file or folder"),
        (("p", "--output=gs://b/run"), "--output: 'gs://b/run' is a URL, but only a"),
        (("p", "q", "--output=o"), "q: one argument too many; quote names that"),
        (("--photo=a b.jpg", "--output=o"), "photo is given without its name: tokret"),
        (("--photo", "x", "--output=o"), "its name: tokret do PHOTO ("),
        (("p", "--output=o", "--oputut=x,y", "--z=1"), "--oputut is not an option"),
        (("p", "--output=o", "--longest_side=None"), "--longest_side: "),
    ],
)
def test_mistakes_are_one_line(monkeypatch, columns, encoding, arguments, message):
    monkeypatch.setenv("COLUMNS", columns)
    # Boxes are drawn as the terminal can show them.
    output = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr("sys.stdout", output)
    with pytest.raises(UserError) as caught:
        parse(*arguments)
    line = str(caught.value)
    assert message in line and line.endswith("(tokret do --help lists all)")
    assert "\n" not in line and not set(line) & set("│─╭╰")


def test_arguments_in_errors_become_options(capsys):
    arguments = ["p", "--output=o", "--longest_side=0"]
    assert command_line.run({"do": command}, ["do", *arguments], "tokret") == 2
    assert capsys.readouterr().err == (
        "error: --longest_side is 0; it must be at least 1\n"
    )


def test_help_has_every_option_and_default(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        command_line.run(command, ["--help"], "tokret do")
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "Do something." in out and "a file of results. (required)" in out
    assert "(default: 1.0,0.7)" in out and "--no_report" in out and "--side INT" in out


def test_help_and_version_are_instant():
    code = (
        "import sys; from tokret.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'jax', 'numpy', 'absl'} & set(sys.modules)"
    )
    for argument in ("--help", "--version"):
        subprocess.run([sys.executable, "-c", code, argument], check=True)


def test_tables_of_commands(tokret):
    status, out, _ = tokret("--help")
    assert status == 0 and all(f"\n  {name} " in out for name in __main__.COMMANDS)
    assert tokret("--version") == (0, f"tokret {__version__}\n", "")
    for arguments, message in (
        ((), "tokret needs one of: train, eval"),
        (("evla",), "'evla' is not a command; did you mean eval?"),
        (("data", "chekc"), "did you mean check?"),
        (("data", "check"), "tokret data check needs one of: gldv2"),
    ):
        status, out, err = tokret(*arguments)
        assert (status, out) == (2, "") and message in err and err.count("\n") == 1


@pytest.mark.parametrize("name", __main__.COMMANDS)
def test_every_command_has_help(tokret, name):
    status, out, err = tokret(name, "--help")
    assert (status, err) == (0, "") and out.startswith(f"usage: tokret {name} ")


def test_a_link_that_leads_to_itself_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="--output: .*loop is a link that leads to it"):
        parse("p", f"--output={tmp_path / 'loop'}")


def test_colours_of_a_terminal_are_left_out():
    line = "\x1b[31m│\x1b[0m"
    box = f"\x1b[31m╭─ Error ─╮\x1b[0m\n{line} Unrecognized options: --x {line}\n"
    line = command_line.one_line(box, "tokret do", ["output"])
    assert line == "--x is not an option (tokret do --help lists all)"
