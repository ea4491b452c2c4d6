"""Run folders of made-up numbers, as `normattn compare` leaves them; nothing is trained."""

import dataclasses
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from normattn.comparison import report
from normattn.comparison.page import Document
from normattn.comparison.protocol import Protocol, trial_folder
from normattn.comparison.records import RunRecords
from normattn.comparison.statistics import Summary
from normattn.training import recipe

MECHANISMS = ("none", "se", "nam", "ean(groups=8)")
ALL = ("none", "half", *MECHANISMS[1:], "nam-channel", "nam-spatial", "bam", "cbam", "triplet")
_ERRORS = dict(zip(ALL, (8.9, 8.7, 8.2, 6.1, 10.6, 8.8, 9.1, 7.9, 7.1, 8.4), strict=True))


def write_run(
    folder: Path,
    *,
    mechanisms: tuple[str, ...] = MECHANISMS,
    seeds: int = 3,
    epochs: int = 4,
    data: str = "digits",
    classes: tuple[str, ...] = tuple("0123456789"),
) -> Path:
    """Write a run in which every trial is done."""
    folder.mkdir(parents=True, exist_ok=True)
    protocol = Protocol(
        data=data,
        host="resnet20",
        stem="cifar",
        mechanisms=mechanisms,
        seeds=tuple(range(seeds)),
        recipe=recipe("quick", epochs=epochs),
    )
    write(folder / "protocol.json", protocol.to_json())
    for mechanism in protocol.mechanisms:
        for seed in protocol.seeds:
            _write_trial(folder, mechanism, seed, epochs, data, classes)
    write(folder / "profile.json", _profile(protocol.mechanisms))
    return folder


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def change(folder: Path, mechanism: str, seed: int, **values: object) -> None:
    """Change what a trial's record says."""
    path = trial_folder(folder, mechanism, seed) / "trial.json"
    write(path, json.loads(path.read_text()) | values)


def history(folder: Path, mechanism: str, seed: int) -> list[dict[str, Any]]:
    """What a trial has recorded, an entry an epoch."""
    lines = (trial_folder(folder, mechanism, seed) / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def call(monkeypatch: Any, names: Mapping[str, str]) -> None:
    """Let reports call mechanisms by other names, such as no registry would take."""

    def renamed(each: Any) -> Any:
        return dataclasses.replace(each, mechanism=names.get(each.mechanism, each.mechanism))

    def build(records: RunRecords, summary: Summary) -> Document:
        labels = tuple(names.get(old, old) for old in records.protocol.mechanisms)
        object.__setattr__(records.protocol, "mechanisms", labels)
        records = dataclasses.replace(records, trials=tuple(map(renamed, records.trials)))
        return built(records, dataclasses.replace(summary, rows=tuple(map(renamed, summary.rows))))

    built = report.build_document
    monkeypatch.setattr(report, "build_document", build)


def _write_trial(
    folder: Path, mechanism: str, seed: int, epochs: int, data: str, classes: tuple[str, ...]
) -> None:
    place = trial_folder(folder, mechanism, seed)
    place.mkdir(parents=True)
    chance = random.Random(f"{mechanism} {seed}")
    final = _ERRORS[mechanism] + random.Random(seed).gauss(0, 0.3) + chance.gauss(0, 0.2)
    rows = [_epoch(epoch, epochs, final, chance) for epoch in range(1, epochs + 1)]
    (place / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = {
        "top1_error": final,
        "top5_error": final / 12,
        "loss": rows[-1]["loss"],
        "best_top1_error": min(row["top1_error"] for row in rows),
        "images_per_second": 1000.0,
    }
    described = {
        "spec": data, "train": 1437, "val": 360, "train_limit": None, "classes": list(classes),
        "channels": 1, "size": [8, 8], "mean": [0.3], "std": [0.4], "skipped": [],
    }  # fmt: skip
    record = {
        "status": "done",
        "metrics": metrics,
        "machine": {"device": "cpu", "name": "made up", "threads": 2, "cores": 2},
        "kernels": {"name": "c++ made up", "blocks": 9, "mechanisms": 0},
        "notes": ["29 images were left out: no whole batch."],
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
        "parameters": 272474,
        "commit": "0123456",
        "versions": {"normattn": "0.1.0", "torch": "2.15.0", "timm": "1.0.31"},
        "data": described,
    }
    write(place / "trial.json", record)


def _epoch(epoch: int, epochs: int, final: float, chance: random.Random) -> dict[str, Any]:
    left = math.exp(-4 * epoch / epochs)
    counts = [0] * 38
    for place in range(20, 30):
        counts[place] = chance.randrange(1, 50)
    return {
        "epoch": epoch,
        "train_loss": 0.12 + 2.1 * left + chance.random() / 20,
        "loss": 0.3 + 1.9 * left,
        "top1_error": final + 70 * (left - math.exp(-4)),
        "top5_error": final / 12,
        "images_per_second": 1000.0,
        "histograms": {
            "edges": {"first": 1e-8, "last": 10.0, "count": 37},
            "norms": {"zeros": epoch, "counts": counts},
            "attention": None,
        },
    }


def _profile(mechanisms: tuple[str, ...]) -> dict[str, Any]:
    counts, times = {}, {}
    for place, name in enumerate(mechanisms):
        macs = 41.4e6 + 3e5 * place
        costs = {"parameters": 272474 + 700 * place, "macs": macs, "paper_macs": macs + 5e5}
        counts[name] = {**costs, "elementwise": 1e6}
        median = 2.4e-3 + 4e-4 * place
        times[name] = {"median": median, "p20": 0.9 * median, "p80": 1.1 * median}
    return {
        "input_size": [1, 8, 8], "device": "cpu", "threads": 2, "mechanisms": counts,
        "kernels": "plain", "latency": {"1": times}, "notes": [],
    }  # fmt: skip
