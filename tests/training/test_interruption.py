import os
import signal

import pytest

from tokret.errors import UserError
from tokret.training.interruption import Interruption, alone_in


def test_a_second_run_in_a_folder_is_refused(tmp_path):
    with alone_in(tmp_path):
        with pytest.raises(UserError, match="another run is training in"):
            with alone_in(tmp_path):
                pass
    with alone_in(tmp_path):  # the lock went with its run
        pass


def test_sigterm_is_noticed_and_then_its_own_again():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        assert not interruption.asked(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.asked(2)
    assert signal.getsignal(signal.SIGTERM) is before
