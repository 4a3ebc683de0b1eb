import signal
import sys

import pytest

from tokret.benchmark import __main__ as main


@pytest.mark.parametrize(("name", "at_once"), [("plan", True), ("scan", False)])
def test_commands_that_compile_for_minutes_end_at_once(monkeypatch, name, at_once):
    """Python's own handlers wait until the compiler returns."""
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)
    taken = []
    monkeypatch.setattr(signal, "signal", lambda number, _: taken.append(number))
    benchmark = main.BENCHMARKS[name]._replace(
        run=lambda flags: {}, report=lambda result: "done"
    )
    monkeypatch.setitem(main.BENCHMARKS, name, benchmark)
    monkeypatch.setattr(sys, "argv", ["tokret.benchmark", name])
    main.main()
    assert taken == ([] if at_once else [signal.SIGTERM, signal.SIGHUP])
