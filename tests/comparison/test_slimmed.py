"""What a slimming brought: the table, the page, the picture, and that all of it is text."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from rich.console import Console

import normattn
from normattn import _files
from normattn.comparison import Protocol, RunRecords, TrialRecord, slimmed
from normattn.comparison._chart_files import as_file
from normattn.comparison._slimmed_picture import (
    ERROR,
    curve_rows,
    draw_curves,
    draw_rounds,
    draw_widths,
    round_rows,
    said_of_widths,
)
from normattn.comparison._slimmed_plan import plan_section
from normattn.comparison._slimmed_records import read_slimmed
from normattn.comparison.protocol import trial_folder
from normattn.comparison.slimmed import (
    best_model,
    lines,
    measure,
    read,
    slimmed_table,
)
from normattn.comparison.slimmed_page import command, slimmed_document, write_slimmed
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


def slimmed_of(record, profile, folder):
    """Return the record as it is read back from ``folder``."""
    _files.write_json(folder / "slim.json", record)
    return read_slimmed(folder, profile)


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
    assert "a<script>" not in page
    assert "a&lt;script&gt;" in page
    prose, _, shell = (tmp_path / "slim.md").read_text().partition("## Run it again")
    assert "<script>" not in prose
    assert "\\[x\\](y)" in prose
    assert "| Parameters | 4,000 | 1,000 | 4.00× (better) |" in prose
    assert "| 1 | params 0.707 | 1,000 | 10,000 | 50.00 | 89.50 | −0.50 | – | done |" in prose
    assert "| 2 | params 0.5 | – | – | – | – | – | – | skipped (It is there already.) |" in prose
    assert "No batch 32." in prose
    assert "normattn slim" in shell
    assert "](slim.png)" in shell
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"slim.json", "report.html", "slim.md", "slim.png", "slim.svg"}


def test_the_verdict_says_how_it_ended_and_what_that_is_worth(record, profile, tmp_path):
    (first, second) = slimmed_document(slimmed_of(record, profile, tmp_path)).verdict
    assert first == "Reached the target."
    assert second == (
        "For 0.50 points less accuracy, it has 4.00 times fewer parameters and 4.00 times fewer "
        "multiply-adds, and is 2.00 times as fast at batch 1."
    )


def test_the_chart_of_rounds_has_every_accuracy_and_the_line_of_the_allowed_drop(
    record, profile, tmp_path
):
    found = slimmed_of(record, profile, tmp_path)
    rows = [(row["round"], row["what"], row["accuracy"]) for row in round_rows(found)]
    assert rows == [
        (0, "fine-tuned", 90.0), (1, "channels removed", 50.0), (1, "fine-tuned", 89.5),
    ]  # fmt: skip
    assert "allowed: 1 points less, 89.00 %" in as_file(draw_rounds(found), "svg").decode()


def test_training_curves_count_epochs_over_the_rounds(record, profile, tmp_path):
    for number, errors in ((1, (30.0, 20.0)), (2, (25.0,))):
        (tmp_path / f"round-{number}").mkdir()
        lines = [json.dumps({"top1_error": e, "train_top1_error": None, "loss": 1}) for e in errors]
        (tmp_path / f"round-{number}" / "history.jsonl").write_text("\n".join([*lines, '{"top1_e']))
    found = slimmed_of(record, profile, tmp_path)
    errors = [row for row in curve_rows(found) if row["measure"] == ERROR]
    rows = [(row["round"], row["epoch"], row["value"]) for row in errors]
    assert rows == [(1, 1, 30.0), (1, 2, 20.0), (2, 3, 25.0)]
    assert draw_curves(found, ERROR) is not None
    assert "Round 1: line 3 of history.jsonl cannot be read." in found.missing


def planned(number, **after):
    """Return the content of a round's plan.json: groups of 16 channels, `after` of them left."""
    layers = [{"layer": name} for name in ("conv1", "bn1", "conv2", "bn2")]
    groups = [
        {"name": name, "before": 16, "after": left, "removed": [], "layers": layers}
        for name, left in after.items()
    ]
    return {"format": number, "groups": groups, "refused": [["fc", "computes the classes <b>"]]}


def test_the_plan_says_what_goes_per_group_and_what_was_refused(record, profile, tmp_path):
    _files.write_json(tmp_path / "plan.json", planned(1, a=4, b=16))
    for number, left in ((1, 12), (2, 8)):
        (tmp_path / f"round-{number}").mkdir()
        content = {"plan": planned(1, a=left, b=16)}
        _files.write_json(tmp_path / f"round-{number}" / "plan.json", content)
    groups, refused = plan_section(slimmed_of(record, profile, tmp_path)).items
    shown = [[cell.shown for _, cell in groups.cells(row)] for row in groups.rows]
    assert shown == [
        ["a", "16", "4", "12", "8", "50.0", "4"],
        ["b", "16", "16", "16", "16", "100.0", "4"],
    ]
    assert groups.rows[0]["layers"].note == "conv1, bn1, conv2 and 1 more"
    assert [cell.shown for _, cell in refused.cells(refused.rows[0])] == [
        "fc", "computes the classes <b>"
    ]  # fmt: skip


def test_a_slimming_that_was_stopped_in_round_1_has_a_page_that_says_so(record, profile, tmp_path):
    del record["result"], record["drop"], record["summary"], record["widths"], record["rounds"]
    place = tmp_path / "round-1"
    place.mkdir()
    _files.write_json(place / "plan.json", {"plan": planned(1, a=8), "target": {"params": 0.7}})
    _files.write_json(place / "removed.json", {"metrics": {"top1_error": 60.0}, "cost": {}})
    (place / "history.jsonl").write_text('{"epoch": 1, "top1_error": 20.0}\n')
    found = slimmed_of({**record, "status": "running"}, None, tmp_path)
    (said,) = slimmed_document(found).verdict
    assert said == (
        "This slimming is not finished. 0 of 2 rounds are done. Round 1 has removed its channels "
        "and was fine-tuned for 1 of 10 epochs. The command that began it goes on."
    )
    page = write_slimmed(tmp_path).read_text()
    assert "The widths are known when the slimming is finished." in page
    assert "1 epochs of fine-tuning" in page
    assert not (tmp_path / "slim.png").exists()


def test_of_a_torn_record_the_page_shows_what_the_rounds_hold(tmp_path):
    (tmp_path / "slim.json").write_text('{"status": "done", "job"')
    (tmp_path / "round-1").mkdir()
    after = {"metrics": {"top1_error": 20.0}, "cost": {"parameters": 5, "paper_macs": 7}}
    _files.write_json(tmp_path / "round-1" / "round.json", {"round": 1, "after": after})
    page = write_slimmed(tmp_path).read_text()
    assert "slim.json cannot be read and is left out" in page
    assert "80.00" in page
    with pytest.raises(RunError, match=r"slim\.json"):
        write_slimmed(tmp_path / "nowhere")


def test_no_number_is_made_up_where_a_record_holds_none(record, profile, tmp_path):
    """NaN, text, lists and nothing at all: each is a dash in the table and a line on the page."""
    record["original"]["metrics"]["top1_error"] = float("nan")
    record["result"]["cost"] = {"parameters": "many", "paper_macs": [3]}
    record["rounds"].append("torn")
    record["widths"]["odd"] = [1]
    record["job"] = {**record["job"], "steps": {"new": 1}, "recipe": 3}
    profile["latency"]["1"]["after"] = {"ratio": 0}
    (tmp_path / "slim.json").write_text(json.dumps(record))
    page = write_slimmed(tmp_path, profile).read_text()
    assert "slim.json holds no number for the original&#39;s accuracy: nan." in page
    assert "The command cannot be told" in page
    assert "Round 3: slim.json holds no figures of it." in page
    table = lines(json.loads((tmp_path / "slim.json").read_text()), profile)
    assert [line.after for line in table][:4] == ["89.50", "–", "–", "–"]


def test_two_hundred_layers_with_long_names_fit_on_a_page(record, profile, tmp_path):
    name = "stages.{}.a_block_with_a_name_that_nobody_reads_to_its_end.conv_pwl"
    record["widths"] = {name.format(i): [64, 32] for i in range(200)}
    _files.write_json(tmp_path / "slim.json", record)
    page = write_slimmed(tmp_path, profile)
    assert page.stat().st_size < 3_000_000
    letters = (tmp_path / "slim.svg").read_text()
    assert "stages.199.a_b…" in letters or "stages.199" in letters
    assert name.format(0) not in re.findall(">([^<]*)</text>", letters)


def test_the_picture_has_a_bar_a_layer_and_side_and_its_letters_are_text(record):
    record["widths"]["con\x1bv2"] = [5, 5]  # no XML has this character
    chart = draw_widths(record["widths"])
    content = as_file(chart, "svg")
    root = ElementTree.fromstring(content)
    assert not [e for e in root.iter() if e.tag.endswith("script")]
    texts = ["".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("}text")]
    assert {"conv1", "con v2", EVIL, "8 of 16", "64"} <= set(texts)
    bars = [e for e in root.iter() if e.get("aria-roledescription") == "bar"]
    assert len(bars) == 2 * len(record["widths"])
    assert content == as_file(draw_widths(record["widths"]), "svg")
    assert as_file(chart, "png").startswith(b"\x89PNG")
    assert said_of_widths(record["widths"]) == (
        "Width of every layer before and after: 1 of 4 layers are narrower, 87 outputs of 95 are "
        "left."
    )


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
    assert "--runtime" not in text
    assert "--batch 32" in command(dataclasses.replace(job, batch=32))
    assert "--runtime openvino" in command(dataclasses.replace(job, runtime="openvino"))


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
