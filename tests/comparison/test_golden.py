"""Tables and words of the reports, as they were looked at: `pytest --overwrite` writes them anew.

Whoever does so reads the difference. Records are made up and never touch a disk.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from normattn.comparison import _slimmed_records, slimmed_page
from normattn.comparison._removal_page import removal_document
from normattn.comparison._removal_records import LEAST, MOST, RANDOM, Point, RemovalRecords
from normattn.comparison.page import Document, Section, Table, render_markdown
from normattn.comparison.protocol import Protocol
from normattn.comparison.records import RunRecords, TrialRecord
from normattn.comparison.report import build_document
from normattn.comparison.statistics import summarise
from normattn.training import recipe
from normattn.training.slimming import SlimJob

GOLDEN = Path(__file__).parent / "golden"
ERRORS = {  # by seed; nan and a trial that never ended among them
    "none": (8.91, 8.42, 9.13),
    "half": (8.83, 8.51, 9.02),
    "nam": (7.02, 6.47, 7.31),
    "ean(groups=8)": (9.94, None, 10.27),
    "se": (8.05, float("nan"), 8.61),
}


def comparison() -> Document:
    """One mechanism better, one with a failed trial, one with a value that is no number."""
    mechanisms = tuple(ERRORS)
    protocol = Protocol("digits", "resnet20", mechanisms, (0, 1, 2), recipe("quick", epochs=2))
    trials = tuple(
        trial(name, seed, error)
        for name, errors in ERRORS.items()
        for seed, error in enumerate(errors)
    )
    counts, latency = {}, {}
    for place, name in enumerate(mechanisms):
        macs = 41.4e6 + 3e5 * place
        counts[name] = {"parameters": 272474 + 670 * place, "macs": macs, "paper_macs": macs + 5e5}
        latency[name] = {"median": 0.00241 + 0.00053 * place, "p20": 0.002, "p80": 0.003}
    profile = {
        "device": "cpu", "threads": 2, "kernels": "plain", "input_size": [1, 8, 8], "notes": [],
        "mechanisms": counts, "latency": {"1": latency},
    }  # fmt: skip
    notes = ("nam, seed 2: line 3 of history.jsonl is damaged and was dropped.",)
    records = RunRecords(Path("run"), protocol, trials, profile, notes)
    return build_document(records, summarise(records))


def trial(mechanism: str, seed: int, error: float | None) -> TrialRecord:
    if error is None:
        return TrialRecord(mechanism, seed, "failed", reason="The loss is nan.", attempts=2)
    history = tuple(
        {"epoch": epoch, "top1_error": error + 2 - epoch, "train_loss": 1 / epoch}
        for epoch in (1, 2)
    )
    details = {
        "versions": {"normattn": "0.1.0", "torch": "2.15.0"}, "commit": "0123456",
        "machine": {"device": "cpu", "name": "made up"}, "notes": ["No whole batch."],
        "data": {"spec": "digits", "train": 1437, "val": 360, "classes": ["0", "<b>|`*"]},
    }  # fmt: skip
    metrics = {"top1_error": error, "top5_error": 0.75, "loss": 0.31, "best_top1_error": error}
    return TrialRecord(mechanism, seed, "done", metrics, history, details=details)


def slimming() -> Document:
    """Two rounds, the second of which had nothing to do."""
    job = SlimJob("runs/a|model", "digits", {"params": 0.5}, steps=2, max_drop=1.0)

    def side(error: float, parameters: int) -> dict[str, Any]:
        cost = {"parameters": parameters, "macs": 8 * parameters, "paper_macs": 10 * parameters}
        return {"metrics": {"top1_error": error}, "cost": cost}

    first = {"round": 1, "target": {"params": 0.7071}, "skipped": False, "note": "", "drop": 0.53}
    first |= {"before": side(51.25, 1000), "after": {**side(10.53, 1000), "seconds": 12.3}}
    record = {
        "status": "done", "job": job.to_json(), "drop": 0.53, "summary": "Reached the target.",
        "original": {**side(10.0, 4000), "bytes": 16_000}, "widths": {"conv1": [16, 8]},
        "result": {**side(10.53, 1000), "bytes": 5_000}, "notes": [], "commit": None,
        "data": {"spec": "digits", "train": 64, "val": 359}, "versions": {"torch": "2"},
    }  # fmt: skip
    times = {
        "before": {"median": 0.004, "p20": 0.0035, "p80": 0.005, "ratio": 1.0},
        "after": {"median": 0.0022, "p20": 0.002, "p80": 0.003, "ratio": 0.5},
    }
    second = {"round": 2, "target": {"params": 0.5}, "skipped": True, "note": "It is there."}
    groups = [{"name": "conv1", "before": 16, "after": 8, "layers": [{"layer": "conv1"}]}]
    plan = {"format": 1, "groups": groups, "refused": [["fc", "computes the classes"]]}
    rounds = (
        _slimmed_records.RoundRecord(1, first, plan),
        _slimmed_records.RoundRecord(2, second),
    )
    found = _slimmed_records.Slimmed(
        Path("slim"), record, {"latency": {"1": times}}, plan, rounds, None, ("No history.jsonl.",)
    )
    return slimmed_page.slimmed_document(found)


def salience() -> Document:
    """A criterion that knows, and one that is not finished."""
    drawn = {(LEAST, "bn-scale", None): 80.04, (MOST, "bn-scale", None): 40.12}
    drawn |= {(RANDOM, None, draw): 60.0 + draw for draw in range(3)}
    points = [Point("", None, None, None, 0.0, 0.0, 90.25, 1.0)]
    points += [
        Point(o, of, 0, draw, 0.3, 0.3, value, 1.0) for (o, of, draw), value in drawn.items()
    ]
    return removal_document(
        RemovalRecords(
            run={
                "settings": {"fractions": [0.3], "draws": 3, "seed": 0, "calibration": 20},
                "data": {"val": 10_000},
            },
            about={
                "host": "resnet20", "attention": ["nam"], "data": "digits", "classes": 10,
                "versions": {"torch": "2"}, "commit": None, "machine": {"name": "made up"},
            },
            groups={"a": 8, "b": 16},
            scopes=[["a"]],
            criteria={
                name: {"scope": 0, "silent": [["b", "no norm"]]} for name in ("bn-scale", "nam")
            },
            points=points,
        ),
        ("1 point holds no accuracy.",),
    )  # fmt: skip


DOCUMENTS = {"comparison": comparison, "slimming": slimming, "salience": salience}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_report_says_what_it_said_when_it_was_looked_at(name, golden):
    document = DOCUMENTS[name]()
    golden(GOLDEN / f"{name}.md", render_markdown(replace(document, sections=tables(document))))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_numbers_of_a_report_are_those_that_were_looked_at(name, golden):
    found = {
        item.name: [
            {column.key: told(cell.value) for column, cell in item.cells(row)} for row in item.rows
        ]
        for section in tables(DOCUMENTS[name]())
        for item in section.items
        if isinstance(item, Table)
    }
    golden(GOLDEN / f"{name}.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def tables(document: Document) -> tuple[Section, ...]:
    """Return the sections that have tables, with nothing else in them.

    Lists of settings change with every new one, and charts are looked at in a browser.
    """
    found = (
        replace(each, items=tuple(item for item in each.items if isinstance(item, Table)))
        for each in document.sections
    )
    return tuple(each for each in found if each.items)


def told(value: object) -> object:
    """Every digit that no machine rounds otherwise."""
    return f"{value:.9g}" if isinstance(value, float) else value
