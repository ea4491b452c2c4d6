"""Runs with little or nothing in them, torn or strange: the page opens and says what is missing."""

import json
import math
import shutil

import pytest
from written_runs import change, history, write, write_run

from normattn.comparison.protocol import trial_folder
from normattn.comparison.report import write_report

PAIR = ("none", "nam")


def nothing_finished(run):
    shutil.rmtree(run / "trials")
    (run / "profile.json").unlink()


def torn_last_lines(run):
    for name in PAIR:
        for seed in range(3):
            path = trial_folder(run, name, seed) / "history.jsonl"
            path.write_text(path.read_text()[:-60])
    place = trial_folder(run, "nam", 2) / "trial.json"
    place.write_text(place.read_text()[:40])
    (run / "profile.json").write_text('{"input_size": [3, 32')


def another_version(run):
    for seed in range(3):
        rows = history(run, "nam", seed)
        for row in rows:
            del row["histograms"], row["top5_error"]
            row["colour"] = {"of": "another version"}
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (trial_folder(run, "nam", seed) / "history.jsonl").write_text(lines)
    change(run, "nam", 0, kernels=None, versions={}, machine=None, more=[1])
    change(run, "nam", 1, data=["another", "version"])
    write(run / "profile.json", {"mechanisms": ["none", "nam"], "format": 7})


def no_numbers(run):
    for seed in range(3):
        metrics = {"top1_error": math.nan, "top5_error": None, "loss": math.inf}
        change(run, "nam", seed, metrics=metrics)
        path = trial_folder(run, "nam", seed) / "history.jsonl"
        path.write_text('{"epoch": 1, "train_loss": NaN, "top1_error": Infinity}\n' * 2)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            nothing_finished,
            (
                "No trial has finished yet: there is nothing to compare.",
                "Not begun: nam, seeds 0, 1, 2.",
                "No epoch has been recorded yet.",
                "0 of 6 trials done",
            ),
        ),
        (
            torn_last_lines,
            (
                "none, seed 0: line 4 of history.jsonl",
                "nam, seed 2: trial.json cannot be read",
                "profile.json cannot be read",
                "5 of 6 trials done",
            ),
        ),
        (
            another_version,
            (
                "nam, seed 1: trial.json holds values of another kind and is left out.",
                "profile.json holds other things than costs and is left out.",
                "5 of 6 trials done",
            ),
        ),
        (
            no_numbers,
            (
                "nam, seed 0: top1_error is nan and is left out of the means.",
                "nam, seed 2: loss is inf and is left out of the means.",
                "no finished trial",
            ),
        ),
    ],
)
def test_a_damaged_run_has_a_page_that_says_what_is_missing(open_page, tmp_path, damage, said):
    run = write_run(tmp_path, mechanisms=PAIR)
    damage(run)
    with open_page(write_report(run), width=390) as found:
        assert found.errors == []
        assert found.requests == []
        for words in said:
            assert words in found.text
        assert found.sideways() == 0
        assert found.page.locator("figure.failed").count() == 0


def test_one_seed_has_no_interval_and_no_verdict(open_page, tmp_path):
    run = write_run(tmp_path, mechanisms=PAIR, seeds=1, epochs=1)
    with open_page(write_report(run)) as found:
        assert found.errors == []
        assert "That is no verdict" in found.text
        assert "±" not in found.page.locator("#table-table tbody").inner_text()
        assert len(found.marks("errors", "symbol")) == 2
        bars = found.marks("errors", "rect")
        assert [(bar["low"], bar["high"]) for bar in bars] == [(None, None)] * 2
        lines = found.page.locator("#chart-errors .mark-rule.role-mark line").all()
        spans = [line.bounding_box() for line in lines]
        assert all(span["width"] < 3 for span in spans)  # none lies, as an interval would


def test_100_classes_with_long_names_have_room_on_a_phone(open_page, tmp_path):
    classes = tuple(f"{'long-name' * 12} {place}" for place in range(100))
    run = write_run(tmp_path, mechanisms=PAIR, seeds=2, classes=classes)
    with open_page(write_report(run), width=390, scheme="dark") as found:
        assert found.errors == []
        assert "100: long-name" in found.text
        assert found.sideways() == 0
