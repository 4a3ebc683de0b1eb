"""The whole comparison with programs that stand in, and once with the real ones."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tokret.comparison import trials
from tokret.errors import UserError
from tokret.io import file_locks as locking


@pytest.fixture
def compare(tokret):
    """Returns a function that runs the command and returns its output."""

    def run(*arguments):
        status, out, err = tokret("compare", *arguments)
        assert status == 0, err
        return out

    return run


@pytest.fixture
def fails(tokret, refused):
    """Returns a check that the command fails, with words in its error."""

    def run(*arguments, match):
        result = tokret("compare", *arguments)
        refused(result)
        assert re.search(match, result[2]), result[2]

    return run


class Programs:
    """Stand-ins: mAP falls with the distance of the learning rate from 0.005."""

    def __init__(self):
        self.calls = []
        self.refuse = ""
        self.error = trials.DivergedError

    def __call__(self, program, *arguments):
        self.calls.append((program, arguments))
        flags = dict(a[2:].split("=", 1) for a in arguments if "=" in a)
        workdir = trials.Path(flags["workdir"])
        if program == "train":
            if self.refuse and self.refuse in arguments:
                raise self.error("train: 11 updates in a row were non-finite")
            (workdir / "rate").write_text(flags["config.schedule.base_lr"])
            return
        value = 0.9 - abs(float((workdir / "rate").read_text()) - 0.005)
        numbers = {"all": {"mAP": value, "recall@1": 0.9}}
        if "rerank" in flags:
            reranked = {"mAP": value, "recall@1": 0.9}
            numbers["reranked"] = {"numbers": {"all": reranked}}
        (workdir / "eval").mkdir(exist_ok=True)
        content = {"benchmarks": {"unseen": numbers}, "environment": {"commit": "c"}}
        (workdir / "eval" / "results.json").write_text(json.dumps(content))


@pytest.fixture
def programs(monkeypatch):
    stand_in = Programs()
    monkeypatch.setattr(trials, "run", stand_in)
    return stand_in


ARGUMENTS = ("--root=a", "--unseen=b", "--heads=token,gem", "--seeds=2")


def test_the_best_rates_train_the_seeds(compare, programs, tmp_path):
    out = tmp_path / "figures.json"
    arguments = (*ARGUMENTS, f"--output={tmp_path}", f"--json={out}")
    programs.refuse = "--config.schedule.base_lr=0.02"
    printed = compare(*arguments)
    trained = [a for p, a in programs.calls if p == "train"]
    assert len(trained) == 2 * (3 + 2)
    seeds = [a for a in trained if any("--config.seed=" in f for f in a)]
    assert all("--config.schedule.base_lr=0.005" in a for a in seeds)
    # Nothing that is chosen by sees what is measured.
    for given in trained:
        shown = next(flag for flag in given if "benchmark_root" in flag)
        assert shown.endswith("=" if "/rate-" in " ".join(given) else "/b")
    found = json.loads(out.read_text())
    assert found["token"]["best"]["rate"] == 0.005
    assert "non-finite" in found["gem"]["tried"][-1]["refused"]
    assert len(found["gem"]["seeds"]) == 2
    assert "| token | 90.0 ± 0.0" in printed
    # The same again has nothing left to do but what was refused.
    before = len(programs.calls)
    compare(*arguments)
    assert len(programs.calls) - before == 2


def test_a_head_that_no_rates_suit_is_named(fails, programs, tmp_path):
    programs.refuse = "--config.seed=0"
    fails(*ARGUMENTS, f"--output={tmp_path}", match="non-finite")
    programs.refuse = "--config.data.benchmark_fraction=0.25"
    fails(
        *ARGUMENTS,
        f"--output={tmp_path / 'other'}",
        match="suit token: train",
    )


def test_other_failures_choose_no_rates(compare, fails, programs, tmp_path):
    programs.refuse, programs.error = "--config.schedule.base_lr=0.02", UserError
    fails(*ARGUMENTS, f"--output={tmp_path}", match="train")
    programs.refuse = ""
    compare(*ARGUMENTS, f"--output={tmp_path}")


def test_what_was_made_otherwise_is_not_taken(compare, fails, programs, tmp_path):
    compare(*ARGUMENTS, f"--output={tmp_path}")
    fails(
        *ARGUMENTS, f"--output={tmp_path}", "--search_epochs=5", match="epochs=4, not 5"
    )
    fails(
        "--root=c",
        "--unseen=b",
        f"--output={tmp_path}",
        "--heads=gem",
        match="data.root=.*a, not .*c; name another",
    )
    # Other rates that are better train other seeds.
    before = len(programs.calls)
    compare(*ARGUMENTS, f"--output={tmp_path}", "--rates=0.0005,0.02")
    trained = [a for p, a in programs.calls[before:] if p == "train"]
    assert len(trained) == 2 * 2
    assert all("--config.schedule.base_lr=0.0005" in a for a in trained)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--heads=token,gme",), "--heads: 'gme' is not one of"),
        (("--heads=gem,gem",), "--heads: 'gem' is not one of .* or there twice"),
        (("--rates=fast",), "--rates"),
        (("--rates=0",), "--rates"),
        (("--held_out=1",), "--held_out"),
        (("--seeds=0",), "--seeds"),
        (("--config.seed=2",), "--config.seed: the comparison itself decides"),
        (("--json=none/x.json",), "--json=.* in a folder that exists"),
        (("--config=configs/none.py",), "--config=.* is not a file"),
        (("--unseen=",), "--unseen"),
        (("--oops",), "--oops is not an option"),
    ],
)
def test_mistakes_are_a_line(fails, programs, tmp_path, arguments, message):
    fails(*ARGUMENTS[:2], f"--output={tmp_path}", *arguments, match=message)
    assert not programs.calls


def test_places_that_do_not_do(fails, programs, tmp_path):
    fails("--config.epochs", f"--output={tmp_path}", match="epochs needs a value")
    fails("--root=a", f"--output={tmp_path}", match="go together")
    (tmp_path / "file").touch()
    fails(*ARGUMENTS, f"--output={tmp_path / 'file'}", match="--output: .* is a file")
    with locking.held(tmp_path / ".lock", "held"):
        fails(*ARGUMENTS, f"--output={tmp_path}", match="another comparison")
    assert not programs.calls


@pytest.mark.slow
def test_two_programs_make_one_row(program, photo_folder, data_dir, tmp_path):
    root, unseen = tmp_path / "photos", tmp_path / "unseen"
    shutil.copytree(photo_folder, unseen)
    # Of the classes at least two are held out, and two are left.
    for number in range(3):
        for folder in filter(Path.is_dir, photo_folder.iterdir()):
            shutil.copytree(folder, root / f"{folder.name}{number}")
    small = (
        *(
            "--config.epochs=1",
            "--config.batch_size=4",
            "--config.augmentation.size=32",
        ),
        *("--config.evaluation.longest_side=48", "--config.schedule.warmup_epochs=0.5"),
        f"--config.run.data_dir={data_dir}",
    )
    status, out, err = program(
        "compare",
        "--config=configs/image_folder.py",
        *("--heads=gem", "--rates=0.001", "--trunk_rates=0.001", "--seeds=1"),
        *("--search_epochs=1", "--held_out=0.4"),
        f"--root={root}",
        f"--unseen={unseen}",
        f"--output={tmp_path / 'runs'}",
        *small,
    )
    assert status == 0, err
    assert out.splitlines()[2].startswith("| gem | ")
