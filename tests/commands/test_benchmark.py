import signal

import pytest

from tokret.commands import benchmark


@pytest.mark.parametrize("at_once", [True, False])
def test_commands_that_compile_for_minutes_end_at_once(monkeypatch, capsys, at_once):
    """Python's own handlers wait until the compiler returns."""
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)
    taken = []
    monkeypatch.setattr(signal, "signal", lambda number, _: taken.append(number))
    benchmark.measure(lambda: ({}, "done"), None, ends_at_once=at_once)
    assert taken == ([] if at_once else [signal.SIGTERM, signal.SIGHUP])
    assert capsys.readouterr().out == "done\n"
