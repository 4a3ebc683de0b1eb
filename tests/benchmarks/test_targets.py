import pytest

from benchmarks import step_bytes
from benchmarks.targets import TARGETS, judge, targets_table
from tokret.benchmark.speed import report


def case(name, ratio, **facts):
    return {
        "name": name,
        "compile_seconds": 1.0,
        "seconds": [0.5, 0.4, 0.6],
        "images_per_second": [2.0, 1.0, 3.0],
        "matrix_rate": [2e12] * 3,
        "bandwidth": [1e11] * 3,
        "products": 10**12,
        "flop": None,
        "bytes": None,
        "memory": None,
        "peak_bytes": None,
        "matrix_fraction": [0.3, 0.2, 0.4],
        "bandwidth_fraction": None,
        "rivals": {
            "eager": {"seconds": [1.0] * 3, "ratio": [3 * ratio] * 3},
            "compiled": {"seconds": [0.5] * 3, "ratio": [ratio, 0.9, 9.0]},
        },
        "fastest": "compiled",
        "skipped": {},
        **facts,
    }


def result(benchmark, device, *cases):
    environment = {"device": device, "processor": "an abacus", "cores": 2}
    environment |= {"commit": "0" * 40, "versions": {"jax": "1"}}
    return {
        "benchmark": benchmark,
        "environment": environment,
        "note": "",
        "cases": list(cases),
        "skipped": {"huge": "does not fit into memory"},
    }


def verdict(found, words):
    (target,) = [t for t in found if words in t["words"]]
    return target["verdict"], [c["met"] for c in target["cases"]]


def test_only_the_targets_of_this_kind_of_device_are_judged():
    facts = {"trunk": "resnet50", "dtype": "float32", "batch": 8, "side": [512, 512]}
    inference = result(
        "inference",
        "cpu",
        case("slow", 0.9, **facts),
        case("fast", 1.1, **facts),
        case("other", 0.1, **{**facts, "batch": 64}),
    )
    found = judge({"inference": inference})
    assert len(found) == len(TARGETS)
    assert verdict(found, "inference, ResNets") == ("missed", [False, True])
    assert [t["verdict"] for t in found].count("not measured") == len(TARGETS) - 1
    on_gpu = {**inference, "environment": {"device": "NVIDIA H100 80GB HBM3"}}
    assert {t["verdict"] for t in judge({"inference": on_gpu})} == {"not measured"}
    lines = targets_table(found)
    assert any("slow: 0.90 (0.90 to 9.00), -10 % from" in line for line in lines)


def test_of_an_accelerators_batches_the_best_counts():
    facts = {"trunk": "resnet101", "dtype": "bfloat16", "side": [512, 512]}
    train = result(
        "train",
        "NVIDIA H100 80GB HBM3",
        case("32", 1.2, batch=32, **facts),
        case("64", 1.4, batch=64, matrix_fraction=[0.2] * 3, **facts),
    )
    found = judge({"train": train})
    assert verdict(found, "best batch, 512 px: times") == ("reached", [True])
    assert verdict(found, "fraction of the measured") == ("reached", [True])


@pytest.mark.parametrize(("ratio", "word"), [(0.2, "reached"), (0.3, "missed")])
def test_a_limit_from_above(ratio, word):
    start = {"trunk": "tiny", "ratio": [ratio] * 3, "environment": {"device": "any"}}
    assert verdict(judge({"start": start}), "second start")[0] == word


@pytest.mark.parametrize(("ratio", "word"), [(0.84, "reached"), (0.86, "missed")])
def test_bytes_are_judged_and_reported(ratio, word):
    cost = {"bytes": 2.5e9, "flop": 250e9, "memory": 15e9}
    bytes_moved = {**result("bytes", "compiled for v5e:4x4"), "topology": "v5e:4x4"}
    del bytes_moved["cases"]
    bytes_moved |= {"ours": cost, "plain": cost | {"bytes": 3e9}, "ratio": [ratio] * 3}
    assert verdict(judge({"bytes": bytes_moved}), "bytes of the released")[0] == word
    text = step_bytes.report(bytes_moved)
    assert "tokret's step for v5e:4x4: 2.50 GB and 250.00 GFLOP an image" in text
    assert "plain step for v5e:4x4: 3.00 GB" in text


def test_the_report_names_every_case_and_what_was_skipped():
    text = report(result("train", "cpu", case("a case", 2.0)))
    assert "a case" in text and "<- the fastest" in text and "an abacus" in text
    assert "huge: does not fit into memory" in text
    text = report(
        {
            **result("train", "cpu"),
            "note": "PyTorch is not installed: pip install torch",
        }
    )
    assert "pip install torch" in text
