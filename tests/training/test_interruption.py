import os
import signal

import pytest

from tokret.errors import UserError
from tokret.training.interruption import lock_workdir, stop_requests


def test_a_second_run_in_a_folder_is_refused(tmp_path):
    with lock_workdir(tmp_path):
        with pytest.raises(UserError, match="another run is training in"):
            with lock_workdir(tmp_path):
                pass
    with lock_workdir(tmp_path):  # the lock went with its run
        pass


def test_sigterm_is_noticed_and_then_its_own_again():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as requested:
        assert not requested(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert requested(2)
    assert signal.getsignal(signal.SIGTERM) is before
