import jax
import jax.numpy as jnp
import pytest

import tokret.benchmark.cases
from tokret.benchmark.cases import (
    ROUNDS,
    Case,
    Settings,
    run_cases,
    time_case,
    warm_up,
)
from tokret.benchmark.compiled_program import compile_program
from tokret.errors import UserError


@pytest.fixture(scope="module")
def program():
    return compile_program(jax.jit(jnp.matmul), jnp.ones((8, 4)), jnp.ones((4, 2)))


def test_a_programs_cost_is_known(program):
    assert program.products == 2 * 8 * 4 * 2
    assert program.compile_seconds > 0
    assert program.memory is None or program.memory >= 4 * (8 * 4 + 4 * 2 + 8 * 2)
    assert program.call(jnp.ones((8, 4)), jnp.ones((4, 2)))[0, 0] == 4


def test_a_case_reports_who_is_faster_and_what_failed(program, monkeypatch):
    monkeypatch.setattr(tokret.benchmark.cases, "_new_pages", lambda: 0)
    called = []

    def make(name):
        return lambda: lambda: called.append(name)

    def broken():
        raise RuntimeError("no compiler\nat all")

    rivals = {"eager": make("eager"), "compiled": broken}
    case = Case({"dtype": "float32"}, program, make("ours")(), rivals, images=3)
    found = time_case(case, Settings(turns=2, matrix_side=16))
    # Two turns after one that does not count; before that each runs once, ours before a
    # rival takes the memory.
    assert (called.count("ours"), called.count("eager")) == (4, 4)
    assert called[:2] == ["ours", "eager"]
    assert found["skipped"] == {"compiled": "RuntimeError: no compiler"}
    assert set(found["rivals"]) == {"eager"} and found["fastest"] == "eager"
    assert all(len(found[name]) == 3 for name in ("seconds", "matrix_fraction"))
    assert found["images_per_second"][0] > 0
    alone = time_case(case._replace(rivals={}), Settings(turns=1, matrix_side=16))
    assert alone["fastest"] is None and alone["rivals"] == {}


def test_a_call_of_several_runs_is_reported_as_one(program, monkeypatch):
    def took_six(cases, *_, **__):
        return {name: [6.0] for name in cases}

    monkeypatch.setattr(tokret.benchmark.cases, "time_calls", took_six)
    rivals = {"eager": lambda: lambda: None}
    case = Case({"dtype": "float32"}, program, lambda: None, rivals, 3, runs=4)
    found = time_case(case, Settings(turns=1, matrix_side=16))
    assert found["seconds"] == found["rivals"]["eager"]["seconds"] == (1.5,) * 3
    assert found["images_per_second"] == (2.0,) * 3
    assert found["matrix_rate"] == (2 * 16**3 / 6,) * 3  # called once


@pytest.mark.parametrize(("last", "rounds"), [(0, 1), (3, 4), (99, ROUNDS)])
def test_calls_warm_up_until_they_allocate_no_new_memory(monkeypatch, last, rounds):
    pages, done = [0], []

    def call():
        done.append(1)
        pages[0] += 5_000 if len(done) <= last else 50

    monkeypatch.setattr(tokret.benchmark.cases, "_new_pages", lambda: pages[0])
    warm_up({"ours": call})
    assert len(done) == rounds


@pytest.fixture
def returned(monkeypatch):
    """Makes what a case's maker returns the result of timing it."""
    monkeypatch.setattr(tokret.benchmark.cases, "time_case", lambda case, _: case)


def test_cases_are_chosen_and_end_with_the_time(returned):
    def out_of_memory():
        raise MemoryError("out of memory: 2 of 1 bytes")

    cases = {"one 8x": lambda: {"a": 1}, "two 8x": out_of_memory, "three": lambda: {}}
    found, skipped = run_cases(cases, Settings(), wanted="8x,two", seconds=100.0)
    assert found == [{"name": "one 8x", "a": 1}]
    assert skipped == {"two 8x": "does not fit into memory"}
    found, skipped = run_cases(cases, Settings(), wanted="", seconds=-1.0)
    assert not found and set(skipped) == set(cases)


@pytest.mark.parametrize("wanted", ["one,oen", ",", "one,"])
def test_a_part_of_no_cases_name_is_refused(wanted):
    with pytest.raises(UserError, match="is in no case's name"):
        run_cases({"one": dict}, Settings(), wanted=wanted, seconds=100.0)


def test_a_defect_is_no_lack_of_memory():
    def defect():
        raise MemoryError("something else")

    with pytest.raises(MemoryError):
        run_cases({"case": defect}, Settings(), wanted="", seconds=100.0)
