"""The text of a plan."""

from tokret.benchmark import plan
from tokret.benchmark.plan import PlanRequest
from tokret.runtime.chips import GIB

REQUEST = PlanRequest("train", "gldv2_r101", "v5e:4x4", 4, 1024)


def result(**fields):
    made = {"chips": 16, **REQUEST._asdict(), "photos": 360_000}
    cost = {"arguments": GIB, "temporaries": 9 * GIB, "flop": 8e12, "accessed": 2e11}
    cost |= {"compute": 0.04, "memory": 0.25, "seconds": 0.25, "rate": 4000.0}
    traffic = {"kind": "all-reduce", "group_size": 16, "number": 3}
    cost |= {"mfu": 0.2, "traffic": [traffic | {"bytes": 3e6, "largest": 2e6}]}
    return {**made, "fits": True, **cost, **fields}


def test_the_report_shows_what_a_chip_does():
    text = plan.report(result())
    for words in (
        "train of gldv2_r101 on v5e:4x4: 16 chips, data 4 x model 4; batch 1,024, 64 a",
        "10.00 GiB a chip: arguments 1.00, temporaries 9.00",
        "at least 250 ms, bound by memory: 40 ms at the peak rate",
        "at most 4,000 images/s, MFU 20%",
        "at least 0.025 hours for 360,000 photos",
        "3 all-reduce among 16: 3 MB, the largest 2 MB",
    ):
        assert words in text
    assert "bound by products" in plan.report(result(memory=0.01))
    assert "epoch" not in plan.report(result(what="extract"))


def test_the_report_of_what_does_not_fit():
    lack = {"fits": False, "needed": 19 * GIB, "available": 15 * GIB}
    smaller = result(batch_size=768)
    text = plan.report(result(**lack, largest=smaller))
    assert "does not fit: 19.00 of 15.00 GiB a chip" in text
    assert "the largest batch found that fits: 768" in text and "4,000 images/s" in text
    search = plan.report(result(**lack, what="search"))
    assert "1,024 queries, the best 100 of 1,000,000 descriptors in float32" in search
    assert "19.00 of 15.00 GiB a chip; choose more chips" in search
    assert "nor did a smaller batch" in plan.report(result(**lack, largest=None))
