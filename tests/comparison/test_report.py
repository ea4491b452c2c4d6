"""The report: what it shows, what it says is missing, and that text stays text."""

import csv
import dataclasses
import io
import json
import math
import random
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import normattn
from normattn.cli import app
from normattn.comparison import _sections_epochs
from normattn.comparison._page_charts import compact, specification
from normattn.comparison.page import Chart, Table, render_markdown, render_page
from normattn.comparison.protocol import Protocol, trial_folder
from normattn.comparison.records import RunRecords, read_run
from normattn.comparison.report import build_document, results_csv, write_report
from normattn.comparison.sections import verdict
from normattn.comparison.statistics import Summary, summarise
from normattn.comparison.table import table
from normattn.training import recipe

MECHANISMS = ("none", "half", "se", "cbam", "nam-channel", "nam", "ean(groups=8)")
# Invented for the tests: (final top-1 error, parameters, multiply-adds, milliseconds).
TRUTH = {
    "none": (8.9, 272474, 41.4e6, 2.41),
    "half": (8.7, 272474, 41.4e6, 2.52),
    "se": (8.2, 276122, 41.5e6, 3.62),
    "cbam": (7.1, 277004, 42.6e6, 6.93),
    "nam-channel": (8.8, 273818, 42.0e6, 3.05),
    "nam": (8.6, 277842, 42.4e6, 4.10),
    "ean(groups=8)": (10.6, 273818, 42.1e6, 3.64),
}


def make_run(
    folder: Path,
    *,
    mechanisms: tuple[str, ...] = MECHANISMS,
    seeds: tuple[int, ...] = (0, 1, 2),
    epochs: int = 10,
    data: str = "digits",
    classes: tuple[str, ...] = tuple("0123456789"),
    profile: bool = True,
) -> Path:
    """Write a run folder whose numbers are made up, but plausible."""
    folder.mkdir(parents=True, exist_ok=True)
    protocol = Protocol(
        data=data,
        host="resnet20",
        stem="cifar",
        mechanisms=mechanisms,
        seeds=seeds,
        recipe=recipe("quick", epochs=epochs),
    )
    write(folder / "protocol.json", protocol.to_json())
    for mechanism in protocol.mechanisms:
        for seed in seeds:
            write_trial(folder, mechanism, seed, epochs=epochs, data=data, classes=classes)
    if profile:
        write(folder / "profile.json", made_up_profile(protocol.mechanisms))
    return folder


def write_trial(
    folder: Path,
    mechanism: str,
    seed: int,
    *,
    epochs: int = 10,
    data: str = "digits",
    classes: tuple[str, ...] = (),
) -> None:
    place = trial_folder(folder, mechanism, seed)
    place.mkdir(parents=True)
    shared, own = random.Random(seed), random.Random(f"{mechanism} {seed}")
    final = TRUTH[mechanism][0] + shared.gauss(0, 0.35) + own.gauss(0, 0.22)
    rows = []
    for epoch in range(1, epochs + 1):
        left = math.exp(-4 * epoch / epochs)
        noise = own.gauss(0, 0.8) * (1 - epoch / epochs)
        rows.append(
            {
                "epoch": epoch,
                "train_loss": 0.12 + 2.1 * left + abs(own.gauss(0, 0.03)),
                "loss": 0.3 + 1.9 * left,
                "top1_error": final + 70 * left - 70 * math.exp(-4) + noise,
                "top5_error": final / 12,
                "images_per_second": 1000.0 + own.gauss(0, 30),
                "histograms": histograms(own, "nam" in mechanism or "ean" in mechanism),
            }
        )
    metrics = {
        "top1_error": final,
        "top5_error": final / 12,
        "loss": rows[-1]["loss"],
        "best_top1_error": min(row["top1_error"] for row in rows),
        "images_per_second": 1000.0,
    }
    write(
        place / "trial.json",
        {
            "status": "done",
            "metrics": metrics,
            "machine": {"device": "cpu", "name": "made up", "threads": 2, "cores": 2},
            "kernels": {"name": "c++ made up", "blocks": 9, "mechanisms": 0},
            "notes": ["29 images were left out: no whole batch."],
            "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:01:00+00:00",
            "parameters": TRUTH[mechanism][1],
            "commit": "0123456",
            "versions": {"normattn": "0.1.0", "torch": "2.15.0", "timm": "1.0.31"},
            "data": {
                "spec": data,
                "train": 1437,
                "val": 360,
                "train_limit": None,
                "classes": list(classes),
                "channels": 1,
                "size": [8, 8],
                "mean": [0.3053],
                "std": [0.3762],
                "skipped": [],
            },
        },
    )
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (place / "history.jsonl").write_text(lines)


def histograms(own: random.Random, gates: bool) -> dict[str, object]:
    def sizes(scales: int) -> dict[str, object]:
        counts = [0] * 38
        for _ in range(scales):
            counts[own.randrange(28, 36)] += 1
        return {"scales": scales + 3, "zeros": 3, "counts": counts}

    edges = {"first": 1e-8, "last": 10.0, "count": 37}
    gate = sizes(20) if gates else None
    return {"edges": edges, "attention": gate, "norms": sizes(40), "closing": None}


def made_up_profile(mechanisms: tuple[str, ...]) -> dict[str, object]:
    counts = {
        name: {
            "parameters": TRUTH[name][1],
            "macs": TRUTH[name][2] - 5e5,
            "paper_macs": TRUTH[name][2],
            "elementwise": 3e5,
        }
        for name in mechanisms
    }
    latency = {
        str(batch): {
            name: {"median": ms / 1e3, "p20": 0.98 * ms / 1e3, "p80": 1.1 * ms / 1e3}
            for name in mechanisms
            for ms in [TRUTH[name][3] * (1 if batch == 1 else 17)]
        }
        for batch in (1, 32)
    }
    return {
        "input_size": [1, 8, 8],
        "device": "cpu",
        "threads": 2,
        "mechanisms": counts,
        "kernels": "plain",
        "latency": latency,
        "notes": [],
    }


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def change(folder: Path, mechanism: str, seed: int, **values: object) -> None:
    path = trial_folder(folder, mechanism, seed) / "trial.json"
    write(path, json.loads(path.read_text()) | values)


class Page(HTMLParser):
    """What a browser would see: tags, attributes, text, cells of the first table, charts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.charts: dict[str, dict[str, list[dict[str, object]]]] = {}
        self._tables, self._script = 0, False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        self._tables += tag == "table"
        self._script = tag == "script"
        if self._tables != 1:
            return
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
        elif tag == "small":
            self.rows[-1][-1] += " | "

    def handle_endtag(self, tag: str) -> None:
        self._script = self._script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._script:
            figures = [a["data-name"] for t, a in self.tags if t == "figure" and "data-name" in a]
            if self.tags[-1][1].get("type") and "id" not in self.tags[-1][1]:
                self.charts[figures[-1]] = unpacked(json.loads(data))
            return
        self.words.append(data)
        within = [tag for tag, _ in self.tags if tag in ("th", "td", "table", "section")]
        if within and within[-1] in ("th", "td") and data.strip() and self._tables == 1:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def unpacked(spec: object) -> dict[str, list[dict[str, object]]]:
    """The data of a chart by name, row by row, as the page's script makes it."""
    found: dict[str, list[dict[str, object]]] = {}
    if isinstance(spec, list):
        for item in spec:
            found |= unpacked(item)
    elif isinstance(spec, dict):
        data = spec.get("data")
        if isinstance(data, dict) and "values" in data:
            packed = data["values"]
            columns = {
                key: [of["of"][at] for at in of["at"]] if isinstance(of, dict) else of
                for key, of in packed["columns"].items()
            }
            found[data["name"]] = [
                {key: of[row] for key, of in columns.items()} for row in range(packed["rows"])
            ]
        for key, item in spec.items():
            found |= unpacked(item) if key != "data" else {}
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "full")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text())


def test_the_page_needs_nothing_from_outside_and_runs_two_scripts_only(page: Page) -> None:
    policy = next(a["content"] for t, a in page.tags if "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"link", "iframe", "object", "embed", "image", "form", "base"}
    )
    assert [a for t, a in page.tags if t == "script" and "type" not in a] == [{}, {}]
    for _, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on") or key == "style"]
        assert attributes.get("href", "#").startswith("#")
        assert attributes.get("src", "data:image/").startswith("data:image/")


def test_ids_are_unique_and_every_reference_finds_its_target(page: Page) -> None:
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        targets = [attributes["href"][1:]] if "href" in attributes else []
        targets += attributes.get("aria-labelledby", "").split()
        targets += attributes.get("aria-describedby", "").split()
        assert set(targets) <= set(ids)


def test_the_table_holds_the_means_and_half_intervals_of_the_records(run: Path, page: Page) -> None:
    values = [t.metrics["top1_error"] for t in read_run(run).of("cbam")]
    half = 4.302652729911275 * np.std(values, ddof=1) / math.sqrt(3)  # t(0.975, 2)
    row = next(row for row in page.rows if row[0] == "cbam")
    assert row[1:4] == ["0.2770", "42.60", f"{np.mean(values):.2f} ± {half:.2f}"]
    assert row[5:7] == ["6.93", "117.81"]
    none = [t.metrics["top1_error"] for t in read_run(run).of("none")]
    difference = f"{np.mean(values) - np.mean(none):.2f}".replace("-", "−")
    assert row[7].startswith(difference)
    assert row[7].endswith("| better")
    assert page.rows[-1][7].endswith("| worse")


@pytest.mark.parametrize("baseline", [None, "none", "half"])
def test_every_trial_is_in_the_charts_at_its_error_or_difference(
    run: Path, page: Page, baseline: str | None
) -> None:
    place = [None, "none", "half"].index(baseline)
    names = MECHANISMS[place:]  # a baseline is not compared to itself or to a later one
    errors = {(t.mechanism, t.seed): t.metrics["top1_error"] or 0.0 for t in read_run(run).trials}
    drawn = page.charts[f"to-{baseline}" if baseline else "errors"]["trials"]
    found = {(row["mechanism"], row["seed"]): row["value"] for row in drawn}
    assert len(found) == len(drawn)
    assert found == pytest.approx(
        {(n, s): errors[n, s] - (errors[baseline, s] if baseline else 0)
         for n in names for s in range(3)}
    )  # fmt: skip


def test_costs_are_those_of_the_profile_and_the_front_is_marked(page: Page) -> None:
    for chart, place, factor in (("latency-1", 3, 1), ("parameters", 1, 1), ("paper-macs", 2, 1)):
        rows = page.charts[chart]["points"]
        assert {row["mechanism"]: row["cost"] for row in rows} == pytest.approx(
            {name: factor * TRUTH[name][place] for name in MECHANISMS}
        )
    front = {row["mechanism"] for row in page.charts["latency-1"]["points"] if row["front"]}
    assert {"none", "cbam"} <= front  # the cheapest, and the most accurate
    assert "ean(groups=8)" not in front


def test_the_curves_have_every_epoch_of_every_seed_and_the_mean(run: Path, page: Page) -> None:
    for key in ("top1_error", "train_loss"):
        rows = page.charts[f"curves-{key.replace('_', '-')}"]["curves"]
        found = {(r["mechanism"], r["seed"], r["epoch"]): r["value"] for r in rows}
        assert len(found) == len(rows) == 7 * 4 * 10
        trials = read_run(run).of("nam")
        values = [trial.history[4][key] for trial in trials]
        assert [found["nam", str(seed), 5] for seed in range(3)] == values
        assert found["nam", "mean", 5] == pytest.approx(sum(values) / 3)


def test_scale_factors_are_counted_by_size_over_all_seeds(run: Path, page: Page) -> None:
    rows = page.charts["scales-by-epoch"]["histograms"]
    groups = {row["group"] for row in rows}
    assert "nam: scales of the gates" in groups
    assert "se: scales of the gates" not in groups
    mine = [r for r in rows if r["group"] == "nam: scales of the gates" and r["epoch"] == 3]
    counts = [t.history[2]["histograms"]["attention"]["counts"] for t in read_run(run).of("nam")]
    assert {r["place"]: r["count"] for r in mine} == {0: 9} | {
        place: sum(of) for place, of in enumerate(zip(*counts, strict=True), start=1) if sum(of)
    }
    assert {r["scales"] for r in mine} == {69}
    assert {r["size"] for r in mine if r["place"] == 0} == {"exactly 0"}
    assert {r["size"] for r in mine if r["place"] == 34} == {"1 to 1.78"}


def test_many_trials_thin_their_curves_out_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sections_epochs, "_VALUES", 40)
    folder = make_run(tmp_path / "run", mechanisms=("none", "nam"), seeds=(0, 1))
    document = build_document(records := read_run(folder), summarise(records))
    section = next(section for section in document.sections if section.name == "curves")
    _, loss = section.items
    assert isinstance(loss, Chart)
    rows = unpacked(compact(specification("x", loss.chart, "")))["curves"]
    assert {row["epoch"] for row in rows} == {1, 3, 5, 7, 9, 10}
    assert "one epoch in 2 and the last are drawn and saved here" in loss.caption


def test_every_trial_has_a_row_with_its_status(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", mechanisms=("none", "nam"), seeds=(0, 1))
    change(folder, "nam", 1, status="failed", reason="It burst.")
    records = read_run(folder)
    shown = build_document(records, summarise(records))
    (table,) = next(s for s in shown.sections if s.name == "trials").items
    assert isinstance(table, Table)
    assert [row["status"].value for row in table.rows] == ["done", "done", "done", "failed"]
    assert table.rows[3]["status"].note == "It burst."
    assert table.rows[0]["top1_error"].value == records.trials[0].metrics["top1_error"]


def test_a_list_of_many_names_is_cut_and_counted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", mechanisms=("none", "se"))
    summary = summarise(read_run(run))
    se = summary.rows[1]
    many = [dataclasses.replace(se, mechanism=f"m{i}") for i in range(40)]
    said = verdict(dataclasses.replace(summary, rows=(summary.rows[0], *many)))
    assert "m10, m11 and 28 more are " in said[0]


def test_the_page_states_protocol_versions_machine_data_and_command(page: Page) -> None:
    for words in (
        "batch size 128", "torch 2.15.0", "name made up", "training images 1437",
        "classes 10: 0, 1, 2", "commit 0123456", "images skipped 0", "seeds 0, 1, 2",
        "kernels c++ made up", "latency: kernels plain",
        "29 images were left out", "normattn compare --data digits --host resnet20",
    ):  # fmt: skip
        assert words in page.text


def test_kernels_that_only_some_trials_ran_by_are_not_said_to_be_equal(tmp_path: Path) -> None:
    run = make_run(tmp_path, mechanisms=("none", "ean(groups=8)"))
    change(run, "none", 0, kernels={"name": "plain", "blocks": 0, "mechanisms": 0, "share": 0.0})
    write_report(run)
    text = Page((run / "report.html").read_text()).text
    assert "kernels not the same in all trials" in text
    assert "different kernels: c++ made up for most, plain for none, seed 0" in text


def test_the_verdict_names_who_is_better_and_who_is_worse(page: Page) -> None:
    assert (
        "Against none: cbam is better; ean(groups=8) is worse; half, se, nam-channel" in page.text
    )


def test_two_reports_of_the_same_records_are_the_same_bytes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", mechanisms=("none", "nam"))
    write_report(folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.name.startswith("re")}
    write_report(folder)
    assert len(before) == 3
    assert all((folder / name).read_bytes() == content for name, content in before.items())


def test_failed_unfinished_and_missing_trials_stand_in_plain_sight(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", mechanisms=("none", "se", "nam"))
    change(folder, "se", 1, status="failed", reason="Fault: the loss is <b>nan</b>.")
    change(folder, "se", 2, status="running")
    shutil.rmtree(trial_folder(folder, "nam", 0))
    shutil.rmtree(trial_folder(folder, "nam", 2))
    page = Page(write_report(folder).read_text())
    assert "Failed: se, seed 1, after 0 attempts: Fault: the loss is <b>nan</b>." in page.text
    assert "Begun and not finished: se, seed 2, 10 of 10 epochs." in page.text
    assert "Not begun: nam, seeds 0, 2." in page.text
    assert "5 of 9 trials done" in page.text
    assert next(row for row in page.rows if row[0] == "se")[3].endswith("| n = 1 of 3")
    rows = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    assert [row["status"] for row in rows] == [
        "done", "done", "done", "done", "failed", "partial", "missing", "done", "missing",
    ]  # fmt: skip


def test_a_run_without_a_finished_trial_has_a_page_that_says_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", profile=False)
    shutil.rmtree(folder / "trials")
    page = Page(write_report(folder).read_text())
    assert "No trial has finished yet: there is nothing to compare." in page.text
    assert "Neither counts nor latencies have been measured yet" in page.text
    assert "No epoch has been recorded yet." in page.text
    assert page.charts == {}


def test_one_seed_gets_no_interval_and_no_verdict(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", mechanisms=("none", "nam"), seeds=(5,), epochs=1)
    page = Page(write_report(folder).read_text())
    assert "±" not in " ".join(cell for row in page.rows for cell in row)
    assert "That is no verdict" in page.text
    assert "No interval and no verdict: they need two seeds or more." in page.text
    means = page.charts["errors"]["means"]
    assert [(row["low"], row["high"], row["n"]) for row in means] == [(None, None, 1)] * 2


def test_a_metric_that_is_no_number_is_left_out_and_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", mechanisms=("none", "nam"))
    change(folder, "nam", 1, metrics={"top1_error": None, "top5_error": math.nan, "loss": None})
    history = trial_folder(folder, "nam", 1) / "history.jsonl"
    history.write_text('{"epoch": 1, "train_loss": NaN, "top1_error": null}\n{"epoch": 2, "tr')
    page = Page(write_report(folder).read_text())
    assert "nam, seed 1: top1_error is None and is left out of the means." in page.text
    assert "line 2 of history.jsonl is damaged" in page.text
    assert "NaN" not in json.dumps(page.charts)
    assert len(page.charts["errors"]["trials"]) == 5


HOSTILE = "<img src=x onerror=alert(1)>$\\frac|`*é😀ع\x00\ud800" + "x" * 300


def renamed(run: Path, label: str) -> tuple[RunRecords, Summary]:
    """The records of a run whose ``nam`` is called ``label``, as no registry would allow."""
    records = read_run(run)
    summary = summarise(records)

    def name(old: str) -> str:
        return label if old == "nam" else old

    rows = tuple(dataclasses.replace(row, mechanism=name(row.mechanism)) for row in summary.rows)
    trials = tuple(dataclasses.replace(t, mechanism=name(t.mechanism)) for t in records.trials)
    labels = tuple(name(old) for old in records.protocol.mechanisms)
    object.__setattr__(records.protocol, "mechanisms", labels)
    return dataclasses.replace(records, trials=trials), dataclasses.replace(summary, rows=rows)


def test_a_hostile_label_is_shown_as_text_everywhere(run: Path) -> None:
    records, summary = renamed(run, HOSTILE)
    shown = build_document(records, summary)
    html = render_page(shown)
    page = Page(html)
    assert not [a for tag, a in page.tags if tag == "img" and "alt" not in a]
    clean = HOSTILE.replace("\x00", " ").replace("\ud800", " ")
    assert page.rows[-2][0] == clean
    assert clean in {row["mechanism"] for row in page.charts["errors"]["trials"]}
    assert "<img src=x" not in html
    markdown = render_markdown(shown)
    assert "<img" not in markdown.split("## Run it again")[0]  # below it, a fence holds it
    rows = [line for line in markdown.split("## Trials")[0].splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {10}


def test_hostile_classes_folders_and_reasons_are_shown_as_text(tmp_path: Path) -> None:
    classes = ("<script>alert(1)</script>", "../x", "ع", "😀", "\ud800", "x" * 300)
    folder = make_run(
        tmp_path / "run", mechanisms=("none", "nam"), data="folder:/<b>", classes=classes
    )
    change(folder, "nam", 0, status="failed", reason="=HYPERLINK(1)\n```\n<script>")
    page = Page(write_report(folder).read_text())
    assert not [tag for tag, _ in page.tags if tag == "b"]
    assert len([tag for tag, _ in page.tags if tag == "script"]) == len(page.charts) + 3
    assert "<script>alert(1)</script>" in page.text
    assert "<script" not in (folder / "report.md").read_text()
    assert "'=HYPERLINK(1)" in (folder / "results.csv").read_text()


def test_the_csv_keeps_negative_numbers_and_disarms_text(run: Path) -> None:
    records, summary = renamed(run, "=1+1")
    odd = dataclasses.replace(records.trials[0], metrics={"loss": -0.5}, reason="@x")
    records = dataclasses.replace(records, trials=(odd, *records.trials[1:]))
    rows = list(csv.DictReader(io.StringIO(results_csv(records, summary))))
    assert rows[0]["loss"] == "-0.5"
    assert rows[0]["reason"] == "'@x"
    assert rows[-4]["mechanism"] == "'=1+1"
    assert len(rows) == 21


def test_gates_beside_the_records_are_shown_and_torn_ones_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", mechanisms=("none", "nam"), seeds=(0, 1))
    text = Page(write_report(folder).read_text()).text
    assert "No gates have been measured: there is no gates.json" in text
    (trial_folder(folder, "nam", 1) / "gates.json").write_text('{"format": 77')
    text = Page(write_report(folder).read_text()).text
    assert "nam, seed 1: gates.json cannot be read" in text
    model = normattn.graft(normattn.host("resnet20", 4, stem="cifar"), "nam", input_size=16)
    found = normattn.gates(model, [torch.rand(4, 3, 16, 16)])
    write(trial_folder(folder, "nam", 0) / "gates.json", found.to_json())
    page = Page(write_report(folder).read_text())
    drawn = page.charts["gates-0"]["gates"]
    assert [row["gate"] for row in drawn] == [site.name for site in found.sites]
    assert [row["mean"] for row in drawn] == [site.mean for site in found.sites]


def test_the_command_on_the_page_asks_for_the_same_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shlex

    import normattn.comparison

    protocol = Protocol(
        data="folder:my images",
        host="resnet18",
        stem="cifar",
        mechanisms=("none", "ean(groups=8)"),
        seeds=(4,),
        recipe=recipe("nam-cifar", epochs=3, milestones=(0.5, 0.75), nesterov=True, lr=1e-5),
        sites=("layer1.*", "layer2.*"),
        train_limit=500,
        on_bad_image="skip",
        start="preserve",
        image_size=32,
        pretrained=True,
        fuse=False,
    )
    write(tmp_path / "protocol.json", protocol.to_json())
    records = read_run(tmp_path)
    command = build_document(records, summarise(records)).command
    asked: list[Protocol] = []

    class Asked(Exception):
        pass

    def compare(protocol: Protocol, *_: object, **__: object) -> None:
        asked.append(protocol)
        raise Asked

    monkeypatch.setattr(normattn.comparison, "compare", compare)
    CliRunner().invoke(app, shlex.split(command)[1:])
    assert asked[0].difference(protocol) == []


def test_the_terminal_table_has_every_mechanism_and_its_verdict(run: Path) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table(summarise(read_run(run))))
    text = console.export_text()
    assert all(name in text for name in MECHANISMS)
    assert "better" in text
    assert "worse" in text
    assert "≈" in text
