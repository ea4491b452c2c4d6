"""Ctrl-C and SIGTERM, answered between two steps instead of in the middle of one."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(Exception):
    """A training stopped at a signal, after its state was saved; ``signal`` is its number."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"Training stopped by {signal.Signals(number).name} after the state was saved. "
            "Start the same command again to go on from there."
        )
        self.signal = number


class Stop:
    """What the loop looks at between two steps: the number of the signal that came, or 0."""

    signal = 0


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """Note the first SIGINT or SIGTERM in the yielded `Stop`; the second acts as it always did.

    Outside the main thread, where Python takes no handlers, nothing is noted.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
