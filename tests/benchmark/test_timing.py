import json

import pytest

from tokret.benchmark.timing import environment, gpu_driver, spread, time_in_turns


def test_cases_time_in_turns_and_the_first_turn_does_not_count():
    seen, now = [], [0.0]

    def case(name, seconds):
        def run(item):
            seen.append((name, item))
            now[0] += seconds * item * (10 if len(seen) <= 4 else 1)

        return run

    cases = {"a": case("a", 1.0), "b": case("b", 0.5)}
    times = time_in_turns(cases, lambda: [1, 2], 3, clock=lambda: now[0])
    assert times == {"a": [3.0] * 3, "b": [1.5] * 3}
    assert seen == [("a", 1), ("b", 1), ("a", 2), ("b", 2)] * 4


def test_warm_cases_run_in_turns_that_count_alone():
    seen = []
    time_in_turns({"a": seen.append}, lambda: [1], 3, clock=lambda: 0.0, warm=True)
    assert seen == [1, 1, 1]


def test_a_spread_is_a_median_between_extremes():
    assert spread([3.0, 1.0, 10.0]) == (3.0, 1.0, 10.0)
    assert spread([1.0, 2.0]).median == pytest.approx(1.5)


def test_the_environment_is_recorded():
    found = json.loads(json.dumps(environment("numpy", "pillow")))
    assert found["cores"] >= 1 and found["processor"]
    assert set(found["versions"]) == {"tokret", "python", "numpy", "pillow"}


VERSION = (
    "NVRM version: NVIDIA UNIX {}Kernel Module{}  580.159.04  Release Build  (builder)"
)


@pytest.mark.parametrize("words", [("x86_64  ", ""), ("Open ", " for x86_64")])
def test_a_gpu_s_driver_is_found(tmp_path, words):
    file = tmp_path / "version"
    assert gpu_driver(file) == {}
    file.write_text(VERSION.format(*words) + "\nGCC version:  gcc 13.2.0\n")
    assert gpu_driver(file) == {"driver": "580.159.04"}
    file.write_bytes(b"\xff\xfe nothing")
    assert gpu_driver(file) == {}
