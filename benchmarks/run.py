"""Time cases and keep the figures: ``python benchmarks/run.py [CASE ...] [--save]``.

Each case's own tests run first; where they fail, nothing is timed. ``--save`` appends one line a
row, with device, versions, commit and date, to ``benchmarks/results/<device>.jsonl``.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from cases import CASES, pin_allocator
from timing import header

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the named cases, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results")
    parser.add_argument("--no-tests", action="store_true", help="while working on a case")
    arguments = parser.parse_args()
    names = arguments.cases or list(CASES)
    for name in names:
        if name not in CASES:
            parser.error(f"expected one of {', '.join(CASES)}, got {name!r}.")
    if arguments.save and arguments.no_tests:
        parser.error("a saved figure needs its tests: leave out --no-tests.")
    pin_allocator()
    about = header()
    print(" · ".join(f"{key} {value}" for key, value in about.items()))
    passed_tests: set[tuple[str, ...]] = set()
    for name in names:
        function, tests = CASES[name]
        if not arguments.no_tests and tests not in passed_tests:
            passed = subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], check=False)
            if passed.returncode:
                sys.exit(f"{name}: its tests fail, so nothing is timed.")
            passed_tests.add(tests)
        results = function()
        print(f"\n{name}: {(function.__doc__ or '').strip()}")
        for row in results:
            print("  " + "  ".join(f"{key}={value}" for key, value in row.items()))
        if arguments.save:
            device = re.sub(r"[^a-z0-9]+", "-", about["device"].lower()).strip("-")
            RESULTS.mkdir(exist_ok=True)
            with (RESULTS / f"{device}.jsonl").open("a") as file:
                for row in results:
                    file.write(json.dumps({"case": name, **row, **about}) + "\n")


if __name__ == "__main__":
    main()
