import dataclasses

import pytest

from tokret.benchmark import plan
from tokret.benchmark.collectives import Collective
from tokret.benchmark.plan import PlanRequest
from tokret.benchmark.pod_programs import Workload
from tokret.benchmark.pods import Pod, ProgramCost, TooLargeError
from tokret.config.parsing import parse
from tokret.configs import demo
from tokret.errors import UserError
from tokret.runtime.chips import GIB, V5E, Chip

CHIP = Chip("v5e", 16 * GIB, peak=2e12, bandwidth=1e9)
EVERYONE = frozenset({frozenset(range(4))})
GRADIENT = Collective("all-reduce", (("f32", (1000,)),), EVERYONE, looped=False)
STATISTICS = Collective("all-reduce", (("f32", (10,)),), EVERYONE, looped=True)


def compiled(**fields):
    given = {"arguments": 3 * GIB, "temporaries": 5 * GIB, "flop": 4e12}
    given |= {"accessed": 3e9, "collectives": [GRADIENT, STATISTICS]}
    return ProgramCost(**given | fields)


COST = compiled()


def test_the_larger_of_two_times_is_the_bound():
    found = plan.total_cost(Workload(None, units=64), compiled(), CHIP)
    assert (found["compute"], found["memory"], found["seconds"]) == (2.0, 3.0, 3.0)
    assert (found["arguments"], found["temporaries"]) == (3 * GIB, 5 * GIB)
    slow = plan.total_cost(Workload(None, units=64), compiled(flop=8e12), CHIP)
    assert slow["seconds"] == slow["compute"] == 4.0


def test_iterations_runs_and_resident_arrays_add_up():
    step = plan.total_cost(Workload(None, units=64, iterations=4), compiled(), CHIP)
    assert (step["flop"], step["accessed"]) == (16e12, 12e9)
    assert step["arguments"] == 3 * GIB
    (summed,) = step["traffic"]
    assert (summed["number"], summed["bytes"]) == (5, 4000 + 4 * 40)
    work = Workload(None, units=1, times=10, resident=2 * GIB)
    many = plan.total_cost(work, compiled(), CHIP)
    assert many["flop"] == 40e12
    assert (many["arguments"], many["temporaries"]) == (5 * GIB, 5 * GIB)


def test_a_product_in_several_passes_takes_so_much_longer():
    work = Workload(None, times=2, passes=6, units=1)
    found = plan.total_cost(work, compiled(), CHIP)
    assert (found["flop"], found["compute"]) == (8e12, 24.0)


@dataclasses.dataclass
class Lowered:
    """Of a program whose memory grows with the batch: 1 GiB, and 1 for 100 images."""

    batch: int

    def cost(self):
        needed = GIB + self.batch * GIB // 100
        if needed > 15 * GIB:
            raise TooLargeError(needed, 15 * GIB)
        return compiled(arguments=GIB, temporaries=needed - GIB)


@pytest.fixture
def tried(monkeypatch):
    """Tries a batch of `Lowered`, and keeps a list of what was tried."""
    monkeypatch.setattr(plan, "compile_for_pod", lambda lowered: lowered.cost())
    batches = []

    def attempt(batch):
        batches.append(batch)
        return plan.attempt(
            lambda size: Workload(Lowered(size), size, peak=1000.0),
            batch,
            Pod("v5e:2x2", CHIP, (None,) * 4),
        )

    return attempt, batches


def test_what_fits_is_costed(tried):
    attempt, _ = tried
    found = attempt(1200)
    assert found["fits"] and found["seconds"] == 3.0 and found["rate"] == 400.0
    assert found["mfu"] == pytest.approx(0.4)
    assert found["temporaries"] == 12 * GIB
    assert not attempt(2000)["fits"] and attempt(2000)["needed"] == 21 * GIB


def test_the_largest_batch_that_fits_is_tried_not_guessed(tried):
    attempt, batches = tried
    found = plan.largest(attempt, attempt(2000), 64)
    # 2000 * 15 / 21 is 1428, and 1408 the multiple of 64 below: too large by a little.
    assert batches == [2000, 1408, 1344]
    assert found["batch_size"] == 1344 and found["fits"]
    # Not even one image a device.
    assert plan.largest(attempt, attempt(2000), 1500) is None


def test_an_estimate_that_does_not_fit_is_lowered():
    seen = []

    def stubborn(batch):
        seen.append(batch)
        lack = {"needed": 16, "available": 15}
        return {"batch_size": batch, "fits": batch <= 80, **lack}

    assert plan.largest(stubborn, stubborn(100), 4)["batch_size"] == 76
    assert seen == [100, 92, 84, 76]
    assert plan.largest(stubborn, stubborn(1000), 4) is None
    assert len(seen) == 4 + 1 + plan.TRIES


R101 = "configs/gldv2_r101.py"


def test_photos_and_classes_are_needed_where_none_are_published(monkeypatch):
    pod = Pod("v5e:4x4", V5E, (None,) * 16)
    monkeypatch.setattr(plan, "make_pod", lambda name: pod)
    with pytest.raises(
        UserError, match="photos and classes are needed.*'synthetic_landmarks'"
    ):
        request = PlanRequest("train", "demo", "v5e:4x4", 4, 1024)
        plan.run(parse(demo.get_config().to_dict()), request)


@pytest.mark.parametrize("what", ["train", "extract"])
def test_a_run_of_train_py_is_planned_as_it_is(monkeypatch, what):
    pytest.importorskip("libtpu")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    lowered = []
    monkeypatch.setattr(plan, "compile_for_pod", lambda it: lowered.append(it) or COST)
    config = demo.get_config("gem")
    config.model.dim = 16
    config.augmentation.size = config.evaluation.longest_side = 32
    config.mesh.shard_optimiser = True
    request = PlanRequest(what, "demo", "v5e:2x2", 2, 16, photos=100, classes=10)
    found = plan.run(parse(config.to_dict()), request)
    assert found["fits"] and found["chips"] == 4
    assert len(lowered) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--config, --topology missing"),
        (("--model=0", "--topology=x", "--config=y"), "--model=0 is not at least 1"),
        (("--turns=3", "--topology=x", "--config=y"), "--turns is not an option"),
        (("--topology=v9:4x4", f"--config={R101}"), "topology: 'v9:4x4'"),
        (("--topology=v9:4x4", f"--config={R101}", "--config.epoch=3"), "epoch"),
    ],
)
def test_mistakes_are_a_line(program, refused, arguments, words):
    refused(program("benchmark", "plan", *arguments), words)
