"""What a slimming brought: the table, the page, the picture, and that all of it is text."""

import dataclasses
import xml.etree.ElementTree as ElementTree

import pytest
from rich.console import Console

import normattn
from normattn import _files
from normattn.comparison import Protocol, RunRecords, TrialRecord, slimmed
from normattn.comparison._slimmed_picture import draw_widths
from normattn.comparison.protocol import trial_folder
from normattn.comparison.slimmed import (
    best_model,
    lines,
    measure,
    read,
    slimmed_table,
)
from normattn.comparison.slimmed_page import command, write_slimmed
from normattn.errors import RunError
from normattn.training import recipe
from normattn.training.slimming import SlimJob, fine_tuning

EVIL = "a<script>|`*[x](y)`|$\\frac$"


@pytest.fixture
def record():
    """Return the record of a slimming in two rounds, of which the second had nothing to do."""
    job = SlimJob(f"runs/{EVIL}", "digits", {"params": 0.5}, steps=2, max_drop=1.0, batch=64)

    def side(error, parameters):
        cost = {"parameters": parameters, "macs": 8 * parameters, "paper_macs": 10 * parameters}
        return {"metrics": {"top1_error": error}, "cost": cost}

    first = {"before": side(50.0, 1000), "after": side(10.5, 1000), "drop": 0.5, "round": 1}
    first |= {"target": {"params": 0.7071}, "skipped": False, "note": ""}
    second = {
        "round": 2,
        "target": {"params": 0.5},
        "skipped": True,
        "note": "It is there already.",
    }
    return {
        "status": "done",
        "job": job.to_json(),
        "data": {
            "spec": "digits",
            "train": 64,
            "val": 359,
            "notes": [EVIL],
            "channels": 1,
            "size": [8, 8],
        },
        "original": {**side(10.0, 4000), "bytes": 16_000},
        "rounds": [first, second],
        "result": {**side(10.5, 1000), "bytes": 5_000},
        "drop": 0.5,
        "summary": "Reached the target.",
        "widths": {"conv1": [16, 8], EVIL: [64, 64], "fc": [10, 10]},
        "notes": [],
        "versions": {"torch": "2"},
        "commit": None,
        "machine": {"device": "cpu", "threads": 1},
        "started": "now",
        "finished": "then",
    }


@pytest.fixture
def profile():
    """Return latencies of batch 1; batch 32 could not be timed."""
    before = {"median": 0.004, "p20": 0.003, "p80": 0.005, "ratio": 1.0}
    after = {"median": 0.0022, "p20": 0.002, "p80": 0.003, "ratio": 0.5}
    return {"latency": {"1": {"before": before, "after": after}}, "notes": ["No batch 32."]}


def test_the_table_has_before_after_and_how_many_times_less(record, profile):
    found = {line.name: (line.before, line.after, line.ratio) for line in lines(record, profile)}
    assert found == {
        "Top-1 accuracy (%)": ("90.00", "89.50", "−0.50"),
        "Parameters": ("4,000", "1,000", "4.00×"),
        "Multiply-adds": ("40,000", "10,000", "4.00×"),
        "Latency, batch 1 (ms)": ("4.00", "2.20", "2.00×"),  # of the rounds, not of the medians
        "Latency, batch 32 (ms)": ("–", "–", "–"),
        "Latency, batch 64 (ms)": ("–", "–", "–"),  # of the batch that was planned for
        "File (bytes)": ("16,000", "5,000", "3.20×"),
    }


def test_the_tone_says_what_got_better_and_worse(record, profile):
    tones = [line.tone for line in lines(record, profile)]
    assert tones == ["worse", "better", "better", "better", "", "", "better"]
    record["drop"], record["result"]["bytes"] = -0.5, 20_000
    tones = [line.tone for line in lines(record, profile)]
    assert (tones[0], tones[-1]) == ("better", "worse")


def test_a_terminal_shows_the_same_cells(record, profile):
    console = Console(width=100, record=True, quiet=True)
    console.quiet = False
    with console.capture() as captured:
        console.print(slimmed_table(record, profile))
    for line in lines(record, profile):
        assert line.name in captured.get()
        assert line.ratio in captured.get()


def test_the_page_shows_names_as_text(record, profile, tmp_path):
    _files.write_json(tmp_path / "slim.json", record)
    page = write_slimmed(tmp_path, profile).read_text()
    prose, _, shell = page.partition("## Run it again")
    assert "<script>" not in prose
    assert "\\[x\\](y)" in prose
    assert "| Parameters | 4,000 | 1,000 | 4.00× |" in prose
    assert "| 1 | params 0.707 | 1,000 | 10,000 | 50.00 | 89.50 | −0.50 |" in prose
    assert "| 2 | params 0.5 | – | – | – | – | It is there already. |" in prose
    assert "No batch 32." in prose
    assert "normattn slim" in shell
    assert {p.name for p in tmp_path.iterdir()} == {"slim.json", "slim.md", "slim.png", "slim.svg"}


def test_the_picture_has_a_bar_a_layer_and_its_letters_are_text(record):
    record["widths"]["con\x1bv2"] = [5, 5]  # no XML has this character
    content, said = draw_widths(record["widths"], "svg")
    root = ElementTree.fromstring(content)
    assert not [e for e in root.iter() if e.tag.endswith("script")]
    texts = ["".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("}text")]
    assert {"conv1", "con v2", EVIL, "8 of 16", "64"} <= set(texts)
    assert said == (
        "Width of every layer before and after: 1 of 4 layers are narrower, 87 outputs of 95 are "
        "left."
    )
    assert content == draw_widths(record["widths"], "svg")[0]
    assert draw_widths(record["widths"], "png")[0].startswith(b"\x89PNG")


def test_latencies_are_measured_only_once(record, tmp_path, monkeypatch):
    monkeypatch.setattr(slimmed, "_ROUNDS", (1, 1))
    model = normattn.host("resnet20", 10, in_chans=1)
    for place in ("original", "slimmed"):
        normattn.save(model, tmp_path / place)
    _files.write_json(tmp_path / "slimmed" / "slim.json", record)
    found = measure(tmp_path / "slimmed", tmp_path / "original")
    assert set(found["latency"]) == {"1", "32", "64"}
    for times in found["latency"].values():
        assert times["before"]["ratio"] == 1
        assert times["after"]["median"] > 0
    monkeypatch.setattr(slimmed, "latency", None)
    assert measure(tmp_path / "slimmed", tmp_path / "original") == found


@pytest.mark.parametrize("content", [None, [], {"status": "running"}])
def test_a_slimming_that_is_not_finished_has_no_table(tmp_path, content):
    if content is not None:
        _files.write_json(tmp_path / "slim.json", content)
    with pytest.raises(RunError, match=r"slim\.json"):
        read(tmp_path)


def test_the_command_says_what_differs_from_the_usual():
    job = SlimJob(
        "runs/a model",
        "digits",
        {"latency_ms": 5},
        recipe=fine_tuning(lr=0.01, distill=0.0),
        max_drop=0.5,
        skip=("layer4.*", "fc"),
        fuse=False,
    )
    text = command(job)
    assert text.startswith("normattn slim 'runs/a model' --data digits --latency-ms 5 --max-drop")
    for words in ("--skip 'layer4.*,fc'", "--set lr=0.01", "--set distill=0.0", "--no-fuse"):
        assert words in text
    assert "epochs" not in text
    assert "--batch" not in text
    assert "--batch 32" in command(dataclasses.replace(job, batch=32))


def test_the_best_model_is_the_best_seed_of_the_best_mechanism(tmp_path):
    """SE has the best single trial and NAM the best mean."""
    protocol = Protocol("digits", "resnet20", ("se", "nam", "cbam"), (0, 1), recipe("quick"))
    errors = {("se", 0): 1.0, ("se", 1): 9.0, ("nam", 0): 4.0, ("nam", 1): 3.0}
    trials = tuple(
        TrialRecord(name, seed, "done", {"top1_error": error})
        for (name, seed), error in errors.items()
    )
    found = best_model(RunRecords(tmp_path, protocol, trials))
    assert found == ("nam, seed 1", trial_folder(tmp_path, "nam", 1))
    with pytest.raises(RunError, match="finished trial"):
        best_model(RunRecords(tmp_path, protocol, ()))
