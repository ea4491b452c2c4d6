"""The page of a comparison, in a browser: its marks are the records, whatever these hold."""

import json
import math
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from browsing import opened
from written_pages import HOSTILE, SHOWN
from written_runs import ALL, MECHANISMS, call, history, write_run

from normattn.comparison.records import read_run
from normattn.comparison.report import write_report

SEEDS, EPOCHS = 3, 4
A4 = 718  # CSS pixels of 19 cm, which margins of 1 cm leave


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), seeds=SEEDS, epochs=EPOCHS)


@pytest.fixture(scope="module")
def page(run):
    return write_report(run)


@pytest.fixture(scope="module")
def shown(browser, page):
    with opened(browser, page) as found:
        yield found


@pytest.fixture(scope="module")
def errors(run):
    return {(t.mechanism, t.seed): t.metrics["top1_error"] for t in read_run(run).trials}


def mean(errors, mechanism):
    return sum(errors[mechanism, seed] for seed in range(SEEDS)) / SEEDS


def test_the_page_opens_without_error_and_asks_nothing_of_the_network(shown):
    assert shown.errors == []
    assert shown.requests == []


def test_every_trial_is_a_circle_at_its_error(shown, errors):
    marks = shown.marks("errors", "symbol")
    assert len(marks) == len(errors)
    assert {(m["mechanism"], m["seed"]): m["value"] for m in marks} == errors


def test_every_mechanism_has_its_mean_and_its_interval(shown, errors):
    bars = {m["mechanism"]: m for m in shown.marks("errors", "rect")}
    assert set(bars) == set(MECHANISMS)
    for name, bar in bars.items():
        values = [errors[name, seed] for seed in range(SEEDS)]
        half = 4.302652729911275 * np.std(values, ddof=1) / math.sqrt(SEEDS)  # t(0.975, 2)
        found = [bar["low"], bar["mean"], bar["high"]]
        expected = [np.mean(values) - half, np.mean(values), np.mean(values) + half]
        assert found == pytest.approx(expected)
    lines = [m for m in shown.marks("errors", "rule") if "mechanism" in m]
    assert {m["mechanism"]: m["low"] for m in lines} == {n: b["low"] for n, b in bars.items()}


def test_every_difference_is_a_circle_paired_by_seed(shown, errors):
    marks = shown.marks("to-none", "symbol")
    found = {(m["mechanism"], m["seed"]): m["value"] for m in marks}
    assert len(marks) == SEEDS * (len(MECHANISMS) - 1)
    for (name, seed), value in found.items():
        assert value == pytest.approx(errors[name, seed] - errors["none", seed])


def test_every_mechanism_is_a_point_at_its_error_and_its_cost(shown, run, errors):
    profile = json.loads((run / "profile.json").read_text())
    times = profile["latency"]["1"]
    costs = {
        "latency-1": {name: 1e3 * times[name]["median"] for name in MECHANISMS},
        "parameters": {n: profile["mechanisms"][n]["parameters"] for n in MECHANISMS},
        "paper-macs": {n: profile["mechanisms"][n]["paper_macs"] for n in MECHANISMS},
    }
    for chart, expected in costs.items():
        points = {m["mechanism"]: m for m in shown.marks(chart, "symbol")}
        assert {n: m["cost"] for n, m in points.items()} == pytest.approx(expected)
        assert {n: m["error"] for n, m in points.items()} == pytest.approx(
            {n: mean(errors, n) for n in MECHANISMS}
        )


@pytest.mark.parametrize("key", ["top1_error", "train_loss"])
def test_every_epoch_of_every_seed_is_a_point_of_a_line(shown, run, key):
    marks = shown.marks(f"curves-{key.replace('_', '-')}", "line")
    found = {(m["mechanism"], m["seed"], m["epoch"]): m["value"] for m in marks}
    assert len(found) == len(marks) == len(MECHANISMS) * (SEEDS + 1) * EPOCHS
    for name in MECHANISMS:
        rows = [history(run, name, seed) for seed in range(SEEDS)]
        for at in range(EPOCHS):
            values = [row[at][key] for row in rows]
            assert [found[name, str(seed), at + 1] for seed in range(SEEDS)] == values
            assert found[name, "mean", at + 1] == pytest.approx(sum(values) / SEEDS)


def test_curves_are_chosen_smoothed_and_put_on_a_logarithmic_scale(shown):
    chart = "curves-train-loss"
    part = shown.page.locator(f"#chart-{chart} .controls")
    part.get_by_label("Mechanism").select_option("nam")
    assert {m["mechanism"] for m in shown.marks(chart, "line")} == {"nam", "none"}  # and a baseline
    part.get_by_label("Log scale").check()
    for mark in shown.marks(chart, "line"):
        assert mark["height"] == pytest.approx(math.log10(mark["value"]))
    part.get_by_label("Log scale").uncheck()
    part.get_by_label("Smoothing").fill("1")
    lines = defaultdict(list)
    for mark in sorted(shown.marks(chart, "line"), key=lambda mark: mark["epoch"]):
        lines[mark["mechanism"], mark["seed"]].append(mark)
    for line in lines.values():
        values = [mark["value"] for mark in line]
        assert line[0]["height"] == pytest.approx(sum(values[:2]) / 2)
        assert line[1]["height"] == pytest.approx(sum(values[:3]) / 3)
    assert shown.errors == []


def test_every_size_of_scale_factors_is_a_field_with_its_count(shown, run):
    rows = [history(run, "none", seed) for seed in range(SEEDS)]
    expected = {}
    for at in range(EPOCHS):
        norms = [row[at]["histograms"]["norms"] for row in rows]
        counts = [[of["zeros"], *of["counts"]] for of in norms]
        for place, found in enumerate(zip(*counts, strict=True)):
            if sum(found):
                expected[at + 1, place] = sum(found)
    marks = shown.marks("scales-by-epoch", "rect")
    assert len(marks) == len(expected)
    assert {(m["epoch"], m["place"]): m["count"] for m in marks} == expected


def test_the_table_sorts_by_error(shown, errors):
    head = shown.page.locator("#table-table thead button", has_text=re.compile("Top-1 error"))
    head.click()
    names = shown.page.locator("#table-table tbody th > span").all_inner_texts()
    assert names == sorted(MECHANISMS, key=lambda name: mean(errors, name))
    assert names[0] == "nam"


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1280), ("light", 390)])
def test_axe_finds_nothing_serious(open_page, page, scheme, width):
    with open_page(page, scheme=scheme, width=width) as found:
        assert found.findings() == []
        assert found.sideways() == 0


def test_on_paper_no_table_is_wider_than_the_page(open_page, page):
    with open_page(page, width=A4) as found:
        found.page.emulate_media(media="print")
        assert found.sideways() == 0
        for table in found.page.locator("table").all():
            box = table.bounding_box()
            assert box["x"] + box["width"] <= A4


def test_hostile_names_of_mechanisms_classes_and_folders_are_text(open_page, tmp_path, monkeypatch):
    folder = tmp_path / HOSTILE[0].replace("/", "-")
    write_run(folder, mechanisms=ALL, epochs=2, data=f"folder:{HOSTILE[0]}", classes=HOSTILE)
    called = dict(zip(ALL[2:], HOSTILE[: len(ALL) - 2], strict=True))
    call(monkeypatch, called)
    with open_page(write_report(folder), width=390) as found:
        names = found.page.locator("#table-table tbody th > span").all_text_contents()
        assert names == ["none", "half", *SHOWN[: len(called)]]
        assert {m["mechanism"] for m in found.marks("errors", "symbol")} == set(names)
        text = found.page.locator("#main").text_content()
        assert all(name in text for name in SHOWN)
        choice = found.page.locator("#chart-curves-top1-error select")
        for name in SHOWN[: len(called)]:
            choice.select_option(name)
            lines = found.marks("curves-top1-error", "line")
            assert {m["mechanism"] for m in lines} == {"none", name}
        assert found.errors == []
        assert found.requests == []
        assert not found.ran()


def test_a_long_name_among_the_choices_does_not_widen_the_page(open_page, tmp_path, monkeypatch):
    run = write_run(tmp_path, mechanisms=MECHANISMS[:2], seeds=1, epochs=1)
    call(monkeypatch, {"se": "x" * 300})
    with open_page(write_report(run), width=390) as found:
        assert found.sideways() == 0


@pytest.mark.parametrize("seeds", [1, 30])
def test_3_trials_and_300_all_load(open_page, tmp_path, seeds):
    mechanisms = ALL if seeds == 30 else ALL[:3]
    page = write_report(write_run(tmp_path, mechanisms=mechanisms, seeds=seeds, epochs=30))
    assert Path(page).stat().st_size < 3e6
    with open_page(page) as found:
        assert found.errors == []
        assert len(found.marks("errors", "symbol")) == len(mechanisms) * seeds
        assert found.page.locator("figure.drawn").count() == found.page.locator("figure").count()
