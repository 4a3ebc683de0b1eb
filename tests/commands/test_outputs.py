"""Outputs that name a pipe: refused before anything is computed, and not replaced."""

import os

import pytest


@pytest.mark.parametrize(
    ("words", "option", "suffix"),
    [
        (("query", "x.jpg", "--index=none"), "report", ".html"),
        (("convert", "to-torch", "none"), "output", ".pth"),
        (
            (
                *("eval", "--descriptors=a.npy", "--queries=b.npy"),
                *("--ground_truth=c.json", "--num_processes=1"),
            ),
            "output",
            ".json",
        ),
    ],
)
def test_pipes_are_not_replaced(tokret, refused, tmp_path, words, option, suffix):
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    refused(tokret(*words, f"--{option}={pipe}"), f"--{option}")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
