"""The README tells the truth: its figures are those of the results, and its code runs."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"<!-- generated: (\w+) -->", README)

DEVICE = {
    "device": "AMD EPYC",
    "threads": 2,
    "torch": "2.15.0",
    "commit": "a1b2c3d",
    "date": "2026-11-20",
}
OPERATION = {"layout": "NCHW", "shape": "32x256x32x32"}
STEP = {"layout": "NCHW", "shape": "batch 8, 32 px, float32"}


@pytest.fixture(scope="module")
def generator():
    path = ROOT / "benchmarks" / "readme.py"
    spec = importlib.util.spec_from_file_location("readme", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)
        spec.loader.exec_module(module)
    return module


def timed(case, times, *, spread=0.01, about=DEVICE, **labels):
    """Return rows as `run.py` appends them; the first provider is the baseline."""
    baseline = next(iter(times))
    return [
        {
            "case": case,
            **labels,
            "provider": name,
            "median_ms": time,
            "p20_ms": time * (1 - spread),
            "p80_ms": time * (1 + spread),
            "ratio": round(time / times[baseline], 3),
            "baseline": baseline,
            "n": 15,
            "saved_bytes_an_element": 4.0,
            "saved_activations": 1.0,
            **about,
        }
        for name, time in times.items()
    ]


def gate(ours, plain=10.0, clone=2.0, **about):
    times = {
        "clone of x": clone,
        "authors' form": 90.0,
        "eager formula": 41.0,
        "normattn": ours,
        "BatchNorm alone": plain,
        "floor: 8 accesses": 7.0,
    }
    return timed("gate", times, about=DEVICE | about, **OPERATION)


def step(ours, spread=0.01):
    times = {
        "no attention, eager": 100.0,
        "authors' form": 143.0,
        "normattn": ours,
        "no attention, normattn": 91.0,
    }
    return timed("step-cifar", times, spread=spread, **STEP)


def text(generator, rows):
    return generator.kernels(rows, {})


def test_every_figure_is_the_one_in_the_results(generator):
    assert generator.fill(README, generator.generated()) == README


@pytest.mark.parametrize("name", BLOCKS)
def test_a_changed_figure_is_noticed(generator, name):
    """The test above can fail: add to what stands in a generated block."""
    start = f"<!-- generated: {name} -->\n"
    changed = README.replace(start, start + "1.00×\n")
    assert generator.fill(changed, generator.generated()) == README != changed


def test_a_changed_result_changes_the_readme(generator, tmp_path, monkeypatch):
    monkeypatch.setattr(generator, "RESULTS", tmp_path)
    file = tmp_path / "amd-epyc.jsonl"
    written = []
    for ours in (9.0, 9.1):
        file.write_text("".join(json.dumps(row) + "\n" for row in gate(ours)))
        written.append(generator.generated()["kernels"])
    assert "| gate | NCHW | 32×256×32×32 | 45.0 | 20.5 | – | **4.50** | 5.00 | 3.50 |" in written[0]
    assert "**4.55**" in written[1]
    assert "docs/images/kernels.svg" in written[0]


def test_without_results_a_line_says_how_to_get_them(generator, tmp_path, monkeypatch):
    monkeypatch.setattr(generator, "RESULTS", tmp_path)
    assert generator.kernel_pictures() == {}
    said = generator.generated()["kernels"]
    assert "\n" not in said
    assert "python benchmarks/run.py gate tail others inference" in said


def test_only_the_newest_run_of_a_case_is_shown(generator):
    new = gate(9.0, commit="b2c3d4e", date="2026-11-21")
    old = [*gate(5.0), *({**row, "layout": "channels_last"} for row in gate(5.0))]
    said = text(generator, [*old, *new])
    assert "**4.50**" in said
    assert "| gate | channels_last |" not in said
    assert "commit b2c3d4e, 2026-11-21" in said
    assert "**2.50**" not in said
    assert DEVICE["commit"] not in said


def test_each_device_has_its_tables(generator):
    gpu = {"device": "NVIDIA H200", "threads": 16}
    said = text(generator, [*gate(9.0, **gpu), *gate(5.0)])
    assert re.findall(r"^\*\*(.*?)\*\* \(", said, re.MULTILINE) == ["AMD EPYC", "NVIDIA H200"]
    assert said.count("| gate | NCHW |") == 2


def test_rows_from_before_the_kernels_are_shown_nowhere(generator, tmp_path, monkeypatch):
    old = {"literal published form": 50.0, "normattn NAMChannel": 30.0}
    rows = timed("gate", old, **OPERATION)
    assert text(generator, rows) == text(generator, [])
    monkeypatch.setattr(generator, "RESULTS", tmp_path)
    (tmp_path / "amd-epyc.jsonl").write_text(json.dumps(rows[1]) + "\n")
    assert "NAM" not in generator.speed()


def test_two_operations_of_one_case_are_told_apart(generator):
    rows = []
    for ours in (8.0, 6.0):  # EAN, then NAM spatial, each in both layouts
        for layout in ("NCHW", "channels_last"):
            times = {"clone of x": 2.0, "normattn": ours}
            rows += timed("others", times, layout=layout, shape="32x256x32x32")
    said = text(generator, rows)
    for name, ratio in (("EAN", "4.00"), ("NAM spatial", "3.00")):
        for layout in ("NCHW", "channels_last"):
            assert f"| {name} | {layout} | 32×256×32×32 | – | – | – | **{ratio}** |" in said


def test_whole_models_are_summed_up_from_their_rows(generator):
    said = text(generator, step(97.0))
    assert "normattn takes 0.97× the time of no attention" in said
    assert "authors' form: 1.43×" in said
    assert "Without attention it takes 0.91× the time" in said
    assert "Nowhere in these rows is normattn slower" in said


def test_where_we_lose_it_says_so(generator):
    assert "Slower" not in text(generator, gate(6.0))
    said = text(generator, [*gate(11.0), *step(108.0)])
    assert "than no attention in plain PyTorch: gate NCHW 1.10×" in said
    assert "ResNet-50, CIFAR stem NCHW 1.08×" in said


def test_what_the_spread_hides_is_no_defeat(generator):
    assert "NCHW ≈ 1.02×" in text(generator, step(102.0, spread=0.05))
    assert "NCHW 1.02×" in text(generator, step(102.0, spread=0.001))


def test_missed_goals_are_named(generator):
    assert "2 of 2 are reached." in text(generator, gate(6.9))
    said = text(generator, gate(7.1))
    assert "1 of 2 are reached; missed: gate 32×256×32×32 against no attention NCHW 0.710×" in said


def test_the_picture_shows_what_was_measured_and_is_the_same_each_time(generator):
    groups = generator.newest(gate(9.0))["AMD EPYC"]
    figure = generator.draw_kernels(groups)
    (axes,) = (each for each in figure.axes if each.get_title(loc="left"))
    assert axes.get_title(loc="left") == "gate, NCHW"
    assert [bar.get_width() for bar in axes.patches] == [12.5, 12.5, 4.5, 5.0]  # two are cut
    assert [label.get_text() for label in axes.texts] == ["45.0 →", "20.5 →", "4.50", "5.00"]
    assert generator.svg(figure) == generator.svg(generator.draw_kernels(groups))


@pytest.mark.parametrize("number", range(len(re.findall(r"```python\n", README))))
def test_the_code_runs(number, tmp_path):
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[number]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
