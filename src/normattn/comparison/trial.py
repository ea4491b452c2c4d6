"""One trial as a process of its own: ``python -m normattn.comparison.trial RUN MECHANISM SEED``.

Prints an event a line as JSON on the standard output; problems go to the standard error. Leaves
with the exit codes of the command line: 0 done, 1 a fault, 2 the user's input, 128 + n a signal.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import Fault, InputError
from ..training import Interrupted, run_job
from ..training.processor import prepare
from .protocol import read_protocol, trial_folder


def main(arguments: list[str] | None = None) -> int:
    """Run or resume the trial and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m normattn.comparison.trial")
    parser.add_argument("run", type=Path)
    parser.add_argument("mechanism")
    parser.add_argument("seed", type=int)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    try:
        job = read_protocol(given.run).job(given.mechanism, given.seed)
        folder = trial_folder(given.run, given.mechanism, given.seed)
        prepare(folder)
        run_job(job, folder, device=given.device, progress=_send)
    except Interrupted as interrupted:
        return 128 + interrupted.signal
    except (InputError, Fault) as error:
        sys.stderr.write(f"{error}\n")
        return 2 if isinstance(error, InputError) else 1
    return 0


def _send(event: Mapping[str, Any]) -> None:
    """Write one event; when nobody reads any more, stop as at SIGTERM, with the state saved."""
    try:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what follows is unheard
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
