"""Folders of made-up numbers, as `normattn slim` and `normattn salience` leave them."""

import json
from pathlib import Path
from typing import Any

from written_pages import HOSTILE

from normattn.comparison._removal_records import LEAST, MOST, RANDOM, Point, RemovalRecords
from normattn.training.slimming import SlimJob

WIDTHS = {"conv1": (16, 8), **dict.fromkeys(HOSTILE, (64, 24)), "fc": (10, 10)}
ACCURACY = {1: (62.5, 91.25), 2: (55.0, 88.75)}  # by round: with the channels gone, fine-tuned
FRACTIONS = (0.1, 0.3)
REMOVED = {  # accuracy by order and criterion, at these fractions
    (LEAST, "bn-scale"): (88.0, 80.0),
    (MOST, "bn-scale"): (50.0, 40.0),
    (LEAST, "nam"): (70.0, 60.5),
    (MOST, "nam"): (69.0, 58.0),
    (RANDOM, 0): (71.0, 61.0),
    (RANDOM, 1): (73.0, 62.0),
}


def write_slim(folder: Path) -> Path:
    """Write a slimming in two rounds whose layers have hostile names."""
    job = SlimJob(f"runs/{HOSTILE[0]}", "digits", {"params": 0.5}, steps=2, max_drop=1.0)
    rounds = []
    for number, (before, after) in ACCURACY.items():
        parameters = 4000 // 2**number
        record = {"before": _side(before, parameters), "after": _side(after, parameters)}
        record |= {"round": number, "target": {"params": 0.7**number}, "skipped": False}
        rounds.append(record | {"note": "", "drop": 92.5 - after})
        _write(folder / f"round-{number}" / "plan.json", {"plan": _plan(number)})
        history = folder / f"round-{number}" / "history.jsonl"
        history.write_text("".join(f"{json.dumps(_epoch(e, after))}\n" for e in (1, 2, 3)))
    record = {
        "status": "done", "job": job.to_json(), "rounds": rounds, "kept": 2, "drop": 3.75,
        "original": {**_side(92.5, 4000), "bytes": 16_000}, "summary": "Reached the target.",
        "result": {**_side(88.75, 1000), "bytes": 5_000}, "widths": WIDTHS, "notes": [HOSTILE[1]],
        "data": {"spec": "digits", "train": 64, "val": 359, "classes": HOSTILE, "notes": []},
        "versions": {"torch": "2"}, "commit": None, "machine": {"device": "cpu", "threads": 1},
        "started": "now", "finished": "then",
    }  # fmt: skip
    _write(folder / "slim.json", record)
    times = {"median": 0.004, "p20": 0.003, "p80": 0.005, "ratio": 1.0}
    half = {"median": 0.002, "p20": 0.001, "p80": 0.003, "ratio": 0.5}
    _write(folder / "profile.json", {"latency": {"1": {"before": times, "after": half}}})
    return folder


def write_salience(folder: Path) -> Path:
    """Write removal curves of two criteria, over groups with hostile names."""
    points = [Point("", None, None, None, 0.0, 0.0, 92.5, 1.0)]
    for (order, of), values in REMOVED.items():
        drawn = (None, 0, of) if order == RANDOM else (of, 0, None)
        points += [
            Point(order, *drawn, fraction, fraction, value, 1.0)
            for fraction, value in zip(FRACTIONS, values, strict=True)
        ]
    settings = {"fractions": FRACTIONS, "draws": 2, "seed": 0, "calibration": 20}
    about = {
        "host": HOSTILE[0], "attention": [HOSTILE[1]], "data": HOSTILE[4], "classes": 10,
        "versions": {"torch": "2"}, "commit": None, "machine": {"name": HOSTILE[3]},
    }  # fmt: skip
    scope = {"scope": 0, "silent": [[HOSTILE[5], "no norm; by magnitude"]]}
    records = RemovalRecords(
        run={"settings": settings, "data": {"val": 10_000}},
        about=about,
        groups=dict.fromkeys(HOSTILE, 8),
        refused=[[HOSTILE[6], "computes the classes"]],
        scopes=[list(HOSTILE)],
        criteria={"bn-scale": scope, "nam": scope},
        points=points,
    )
    folder.mkdir(parents=True, exist_ok=True)
    records.write(folder)
    return folder


def _side(accuracy: float, parameters: int) -> dict[str, Any]:
    cost = {"parameters": parameters, "macs": 8 * parameters, "paper_macs": 10 * parameters}
    return {"metrics": {"top1_error": 100 - accuracy}, "cost": cost, "seconds": 1.0}


def _epoch(epoch: int, accuracy: float) -> dict[str, float]:
    error = 100 - accuracy + (3 - epoch)
    return {
        "epoch": epoch, "train_top1_error": error - 1, "top1_error": error,
        "train_loss": 1 / epoch, "loss": 2 / epoch,
    }  # fmt: skip


def _plan(number: int) -> dict[str, Any]:
    groups = [
        {"name": name, "before": 64, "after": 64 - 20 * number, "layers": [{"layer": name}]}
        for name in HOSTILE
    ]
    return {"format": 1, "groups": groups, "refused": [["fc", HOSTILE[0]]]}


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
