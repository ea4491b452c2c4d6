"""A trial's process: its events come up, the signals that we hear go down."""

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

from ..training import Interrupted

Progress = Callable[[Mapping[str, Any]], None]

_PATIENCE = 60.0  # seconds that a process gets to save its state when nobody follows it any more


class Child:
    """Runs one process at a time and passes SIGINT and SIGTERM on to it.

    The process has a group of its own, so that Ctrl-C reaches it once, through us. At the first
    signal it saves its state; the second kills it. Inside the context every signal ends as
    `Interrupted`, also when no process runs.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._busy = False
        self._heard: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # others may set no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, command: Sequence[str], log: Path, tell: Progress) -> int:
        """Run ``command``; give its events to ``tell`` and its standard error to ``log``.

        Returns its exit code, negative for a signal. Raises Interrupted if we heard one.
        """
        self._busy = True
        try:
            with log.open("wb") as stderr:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    process_group=0,
                )
            if self._heard is not None:  # between the two lines above
                self._process.send_signal(self._heard)
            code = _follow(self._process, tell)
        finally:
            self._process = None
            self._busy = False
        if self._heard is not None:
            raise Interrupted(self._heard)
        return code

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again = self._heard is not None
        self._heard = number
        if not self._busy:
            raise Interrupted(number)
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if again else number)


def _follow(process: subprocess.Popen[str], tell: Progress) -> int:
    """Pass on a process's events until it ends; whatever goes wrong here, it ends with us."""
    try:
        for line in process.stdout or ():
            tell(_event(line))
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()  # it saves its state, while we go on emptying its pipe
            try:
                process.communicate(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _event(line: str) -> Mapping[str, Any]:
    """Return an event; a line that is none, as when a library prints, becomes a note."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        event = None
    return event if isinstance(event, dict) else {"event": "note", "text": line.rstrip()}
