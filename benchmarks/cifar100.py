"""The CIFAR-100 comparison of the README: train, compare, keep the evidence without the weights.

``python benchmarks/cifar100.py [--data parquet:DIR] [--epochs N] ...`` resumes where it stopped;
call it from the repository's root.
"""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich

from normattn.attention import parse_list
from normattn.comparison import Protocol, compare, summarise, table, write_report
from normattn.training import recipe

ROOT = Path(__file__).parents[1]
MECHANISMS = "none,half,se,cbam,nam-channel,ean"
EVIDENCE = ("trial.json", "history.jsonl")


def keep_evidence(run: Path, kept: Path) -> None:
    """Copy what the report is made of, and the report; weights and training states stay behind."""
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("protocol.json", "profile.json", "results.csv", "report.md", "report.html"):
        shutil.copyfile(run / name, kept / name)
    for trial in sorted(run.glob("trials/*/*/trial.json")):
        folder = kept / trial.parent.relative_to(run)
        folder.mkdir(parents=True, exist_ok=True)
        for name in EVIDENCE:
            shutil.copyfile(trial.parent / name, folder / name)


def show(event: Mapping[str, Any]) -> None:
    """Print a line an epoch, and whatever is not a step."""
    if event["event"] not in ("step", "evaluate"):
        print({key: value for key, value in event.items() if key != "scales"}, flush=True)


def main() -> None:
    """Run the comparison and keep its evidence under ``benchmarks/results``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="parquet:../shared/data/cifar100")
    parser.add_argument("--train-limit", type=int, default=None)
    parser.add_argument("--host", default="resnet20")
    parser.add_argument("--stem", default="imagenet")
    parser.add_argument("--attention", default=MECHANISMS)
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--warmup-epochs", type=float, default=0.5)
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    run = arguments.out or ROOT / "runs" / f"cifar100-{arguments.host}"
    protocol = Protocol(
        data=arguments.data,
        train_limit=arguments.train_limit,
        host=arguments.host,
        stem=arguments.stem,
        mechanisms=tuple(m.label for m in parse_list(arguments.attention)),
        recipe=recipe(
            arguments.recipe, epochs=arguments.epochs, warmup_epochs=arguments.warmup_epochs
        ),
        seeds=tuple(int(seed) for seed in arguments.seeds.split(",")),
    )
    records = compare(protocol, run, progress=show)
    write_report(run)
    keep_evidence(run, ROOT / "benchmarks" / "results" / run.name)
    rich.print(table(summarise(records)))


if __name__ == "__main__":
    main()
