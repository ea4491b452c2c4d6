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
from rich.console import Console
from typer.testing import CliRunner

from normattn.cli import app
from normattn.comparison.figures import Mark, intervals, tradeoff
from normattn.comparison.protocol import Protocol, trial_folder
from normattn.comparison.records import RunRecords, read_run
from normattn.comparison.report import build_page, render, results_csv, write_report
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
    """What a browser would see: tags, attributes, text, and the cells of the table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
        elif tag == "small":
            self.rows[-1][-1] += " | "

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        within = [tag for tag, _ in self.tags if tag in ("th", "td", "caption", "table", "section")]
        if within and within[-1] in ("th", "td") and data.strip():
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "full")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text())


def test_the_page_needs_nothing_from_outside_and_runs_nothing(page: Page) -> None:
    policy = next(a["content"] for t, a in page.tags if "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"script", "link", "iframe", "object", "embed", "img", "image", "form", "base"}
    )
    for _, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("href", "src", "xlink:href"):
            assert attributes.get(key, "#").startswith("#")
        assert not re.search(r"url\((?!#)", attributes.get("style", ""))


def test_ids_are_unique_and_every_reference_finds_its_target(page: Page) -> None:
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        targets = re.findall(r"#([^)\"']+)", attributes.get("clip-path", ""))
        targets += [attributes["href"][1:]] if "href" in attributes else []
        targets += attributes.get("aria-labelledby", "").split()
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


def dots(svg: str, row: int) -> list[float]:
    group = re.search(rf'-seeds-{row}">(.*?)</g>\s*</g>', svg, re.DOTALL)
    return [float(x) for x in re.findall(r'<use [^>]*x="([-\d.]+)"', group[1] if group else "")]


@pytest.mark.parametrize("baseline", [None, "none", "half"])
def test_every_trial_is_a_dot_at_its_error_or_difference(run: Path, baseline: str | None) -> None:
    records = read_run(run)
    page = (run / "report.html").read_text()
    pictures = re.findall("<svg.*?</svg>", page, re.DOTALL)
    place = [None, "none", "half"].index(baseline)
    names = MECHANISMS[place:]  # a baseline is not compared to itself or to a later one
    drawn = [x for row in range(len(names)) for x in dots(pictures[place], row)]
    errors = {(t.mechanism, t.seed): t.metrics["top1_error"] or 0.0 for t in records.trials}
    true = [
        errors[n, s] - (errors[baseline, s] if baseline else 0) for n in names for s in range(3)
    ]
    assert len(drawn) == len(true) == 3 * len(names)
    slope, offset = np.polyfit(true, drawn, 1)
    assert slope > 0
    np.testing.assert_allclose(np.polyval([slope, offset], true), drawn, atol=1e-3)


def test_the_page_has_a_panel_of_each_curve_for_each_mechanism(page: Page) -> None:
    labels = [a["aria-label"] for t, a in page.tags if t == "svg"]
    assert len(labels) == 3 + 3 + 7 + 7
    assert all(labels)
    assert any(
        label.startswith("Training loss by epoch for ean(groups=8): 3 seeds") for label in labels
    )


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
    assert "Neither counts nor latencies have been measured yet." in page.text
    assert not [tag for tag, _ in page.tags if tag == "svg"]


def test_one_seed_gets_no_interval_and_no_verdict(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", mechanisms=("none", "nam"), seeds=(5,), epochs=1)
    page = Page(write_report(folder).read_text())
    assert "±" not in " ".join(cell for row in page.rows for cell in row)
    assert "That is no verdict" in page.text
    assert "No interval and no verdict: they need two seeds or more." in page.text


def test_a_metric_that_is_no_number_is_left_out_and_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", mechanisms=("none", "nam"))
    change(folder, "nam", 1, metrics={"top1_error": None, "top5_error": math.nan, "loss": None})
    history = trial_folder(folder, "nam", 1) / "history.jsonl"
    history.write_text('{"epoch": 1, "train_loss": NaN, "top1_error": null}\n{"epoch": 2, "tr')
    page = Page(write_report(folder).read_text())
    assert "nam, seed 1: top1_error is None and is left out of the means." in page.text
    assert "line 2 of history.jsonl is damaged" in page.text
    assert "nan" not in (folder / "report.html").read_text().split("<svg", 1)[1]


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
    shown = build_page(records, summary)
    html = render("report.html.j2", shown)
    page = Page(html)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert page.rows[-2][0].startswith("<img src=x onerror=alert(1)>")
    drawn = html[html.index("<svg") :]
    assert "&lt;img src=x on" in drawn
    assert "<img" not in html
    markdown = render("report.md.j2", shown)
    assert "<img" not in markdown.split("## Run it again")[0]  # below it, a fence holds it
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {10}


def test_hostile_classes_folders_and_reasons_are_shown_as_text(tmp_path: Path) -> None:
    classes = ("<script>alert(1)</script>", "../x", "ع", "😀", "\ud800", "x" * 300)
    folder = make_run(
        tmp_path / "run", mechanisms=("none", "nam"), data="folder:/<b>", classes=classes
    )
    change(folder, "nam", 0, status="failed", reason="=HYPERLINK(1)\n```\n<script>")
    page = Page(write_report(folder).read_text())
    assert not [tag for tag, _ in page.tags if tag in ("script", "b")]
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


@pytest.mark.parametrize("label", ["$\\frac$", "a\x00b\ud800", "😀 ع", "<b>&\"'</b>", "]]>-->"])
def test_odd_labels_are_drawn_as_text(label: str) -> None:
    mark = Mark(label, 1.0, 0.5, 1.5, (0.5, 1.5))
    for picture in (
        intervals("a", label, "x", [mark], [(label, 1.0)]),
        tradeoff("b", label, "x", [(label, 1.0, mark)]),
    ):
        page = Page(picture.svg)
        assert label.replace("\x00", " ").replace("\ud800", " ") in page.words
        assert "b" not in [tag for tag, _ in page.tags]


def test_an_axis_of_errors_ends_at_0_and_100_percent() -> None:
    wide = [Mark("none", 50.0, -400.0, 500.0, (20.0, 80.0))]
    words = Page(intervals("a", "A", "x", wide, [], percent=True).svg).words
    assert "−200" not in words
    assert "0" in words
    assert "100" in words
    assert "200" not in Page(tradeoff("b", "B", "x", [("none", 1.0, wide[0])]).svg).words


def test_figures_stand_many_marks_equal_marks_and_none_measured() -> None:
    many = [Mark(f"m{i}", 5.0, None, None, (5.0,)) for i in range(40)]
    assert intervals("a", "A", "x", many, [("none", 5.0), ("half", 5.0)]).svg.count("<text") > 40
    assert tradeoff("b", "B", "x", [(m.label, 1.0, m) for m in many]).svg.startswith("<svg")


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
    command = build_page(records, summarise(records)).command
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


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_every_colour_of_text_is_readable_on_every_ground(page: Page, mode: int) -> None:
    style = "".join(page.words)
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[mode]
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for ground in ("paper", "card", "note"):
        for ink in ("ink", "muted", "accent", "better", "worse"):
            assert contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
