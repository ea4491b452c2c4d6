"""The first signal is noted; the second acts."""

import os
import signal
import threading

import pytest

from normattn.training.signals import Interrupted, listening


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_nothing_breaks(number):
    with listening() as stop:
        assert stop.signal == 0
        os.kill(os.getpid(), number)
        assert stop.signal == number


def test_the_second_ctrl_c_ends_at_once():
    with listening():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with listening():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_listens_to_nothing_and_says_nothing():
    found = []

    def run():
        with listening() as stop:
            found.append(stop.signal)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [0]


def test_the_exception_names_the_signal():
    assert "SIGTERM" in str(Interrupted(signal.SIGTERM))
    assert Interrupted(signal.SIGTERM).signal == 15
