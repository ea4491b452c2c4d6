"""Write the README's tables and pictures from ``benchmarks/results``: no figure is typed by hand.

``python benchmarks/readme.py`` rewrites; ``--check`` exits with 1 where something would change.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from readme_gates import draw_gates, gates_section
from readme_kernels import kernels
from readme_pictures import draw_kernels, draw_mechanism, pictured, svg
from readme_rows import Row, newest
from readme_salience import draw_salience, salience_section
from readme_slimming import one_slimming, slimming

from normattn.attention import MECHANISMS
from normattn.comparison import RunRecords, Summary, read_run, summarise
from normattn.comparison._chart_files import as_file
from normattn.comparison._slimmings_picture import slimmed_tradeoff
from normattn.comparison.page import Chart
from normattn.comparison.report import build_document
from normattn.comparison.slimmings import read_slimmings
from normattn.comparison.statistics import ALPHA
from normattn.comparison.table import columns

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RUN = RESULTS / "cifar100-resnet20"
COSTS = RESULTS / "costs-resnet50-cifar100.jsonl"
SLIMMING = RESULTS / "slimming-resnet20"
SLIMMING_56 = RESULTS / "slimming-resnet56"
SALIENCE = RESULTS / "salience-resnet20"
GATES = RESULTS / "gates-cifar100.json"
IMAGES = Path("docs", "images")  # from the README

#: name → (the gate in a line, where it comes from)
FORMULAS = {
    "none": ("1", "the plain host"),
    "half": ("½", "our control"),
    "nam-channel": ("σ(w ⊙ BN(x)), w = |γ| / Σ|γ|", "NAM 2021, eq. 2"),
    "nam-spatial": ("the same, with statistics and λ for each pixel", "NAM 2021, eq. 3"),
    "nam": ("channel, then spatial", "NAM 2021"),
    "ean": ("σ(α ⊙ γ/rms(γ) ⊙ IN(x) + δ)", "EAN, AAAI 2024"),
    "se": ("σ(W₂ ReLU(W₁ mean(x)))", "CVPR 2018"),
    "bam": ("1 + σ(M_c · M_s)", "BMVC 2018"),
    "cbam": ("σ(MLP(mean) + MLP(max)), then σ(BN(conv7×7))", "ECCV 2018"),
    "triplet": ("mean of three σ(BN(conv7×7)) on turned maps", "WACV 2021"),
}


def generated() -> dict[str, str]:
    """Return the content of each generated block of the README."""
    records = read_run(RUN)
    return {
        "cifar100": comparison(records, summarise(records)),
        "mechanisms": mechanisms(),
        "kernels": kernels(
            measured(), {d: path.as_posix() for d, path in kernel_pictures().items()}
        ),
        "speed": speed(),
        "salience": salience_section(SALIENCE, IMAGES / "salience.svg"),
        "gates": gates_section(GATES, IMAGES / "gates.svg", IMAGES / "maps.png"),
        "slimming": slimming(SLIMMING, IMAGES / "slimming.svg"),
        "slimming56": one_slimming(SLIMMING_56),
    }


def pictures() -> dict[Path, str]:
    """Return each generated picture as SVG: drawn here, or a chart of the pages."""
    groups = newest(measured())
    drawn = {IMAGES / "mechanism.svg": draw_mechanism()}
    drawn |= {path: draw_kernels(groups[device]) for device, path in kernel_pictures().items()}
    return {
        **{ROOT / path: svg(figure) for path, figure in drawn.items()},
        **{ROOT / path: as_file(chart, "svg").decode() for path, chart in charts().items()},
    }


def charts() -> dict[Path, Any]:
    """Return the charts that the pages show of the same records."""
    records = read_run(RUN)
    document = build_document(records, summarise(records))
    known = {
        item.name: item.chart
        for section in document.sections
        for item in section.items
        if isinstance(item, Chart)
    }
    slimmed = slimmed_tradeoff(read_slimmings(SLIMMING))
    assert slimmed is not None, f"{SLIMMING}: nothing was timed"
    return {
        IMAGES / "cifar100.svg": known["errors"],
        IMAGES / "latency.svg": known["latency-32"],
        IMAGES / "slimming.svg": slimmed.chart,
        IMAGES / "salience.svg": draw_salience(SALIENCE),
        IMAGES / "gates.svg": draw_gates(GATES),
    }


def kernel_pictures() -> dict[str, Path]:
    """Return, by device, where the picture of its kernels is: the first has the short name."""
    devices = [d for d, groups in newest(measured()).items() if pictured(groups)]
    slugs = ["", *("-" + re.sub(r"[^a-z0-9]+", "-", d.lower()).strip("-") for d in devices[1:])]
    return {d: IMAGES / f"kernels{slug}.svg" for d, slug in zip(devices, slugs, strict=False)}


def comparison(records: RunRecords, summary: Summary) -> str:
    """Return the sentence, the table and the picture of the CIFAR-100 comparison."""
    protocol = records.protocol
    trial = next(t for t in records.trials if t.status == "done")
    images = trial.details["data"]["train"]
    machine, versions = trial.details["machine"], trial.details["versions"]
    finished = max(t.details["finished"] for t in records.trials if t.status == "done")[:10]
    commit = str(trial.details.get("commit") or "unknown")[:9]
    evidence = RUN.relative_to(ROOT).as_posix()
    done = sum(t.status == "done" for t in records.trials)
    lines = [
        f"CIFAR-100, {protocol.host}, {images:,} training images, "
        f"{protocol.recipe.epochs} epochs ({protocol.recipe.name} recipe, "
        f"{protocol.recipe.precision}), {len(protocol.seeds)} seeds, {done} of "
        f"{len(records.trials)} trials finished. Every mechanism of a seed starts from the same "
        "weights and sees the same batches and crops. The schedule is what a CPU session "
        "allows; the papers train for 200 epochs, so read differences, not levels.",
        "",
        markdown(summary),
        "",
        "![Top-1 error of each mechanism with its interval](docs/images/cifar100.svg)",
        "",
        "![Top-1 error against latency](docs/images/latency.svg)",
        "",
        uncorrected(summary),
        "",
        "Lower is better; mean ± half of the 95 % t-interval; Δ in points, paired by seed, "
        f"verdicts after Holm's correction. Commit {commit}, "
        f"torch {versions['torch']}, {machine['name']}, {finished}. Evidence: [`{evidence}`]"
        f"({evidence}/report.md); made by `python benchmarks/cifar100.py`.",
    ]
    return "\n".join(lines)


def uncorrected(summary: Summary) -> str:
    """Say which differences only the correction keeps from counting: "≈" alone would hide them."""
    found = [
        f"{row.mechanism} to {difference.baseline}"
        for row in summary.rows
        for difference in row.differences.values()
        if difference.p is not None and difference.p_holm is not None
        if difference.p < ALPHA <= difference.p_holm
    ]
    if not found:
        return "No difference changes its verdict by the correction for several comparisons."
    return (
        f"Before the correction for several comparisons, p < {ALPHA:g} for: {', '.join(found)}. "
        "More seeds would have to decide."
    )


def markdown(summary: Summary) -> str:
    """Return the comparison's table in Markdown, remarks in the cell."""
    found = columns(summary)
    lines = ["| " + " | ".join(column.title for column in found) + " |"]
    lines.append("|" + "|".join("---:" if column.numeric else "---" for column in found) + "|")
    for cells in zip(*(column.cells for column in found), strict=True):
        texts = [f"{c.text} ({c.remark})" if c.remark else c.text for c in cells]
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


def mechanisms() -> str:
    """Return the table of mechanisms with their costs."""
    rows = {row["mechanism"]: row for row in read_lines(COSTS)}
    plain = rows["none"]
    lines = ["| name | gate | from | parameters | multiply-adds |", "|---|---|---|---:|---:|"]
    for name in MECHANISMS:
        gate, source = FORMULAS[name]
        row = rows[name]
        added = row["parameters"] - plain["parameters"]
        parameters = f"{row['parameters']:,}" if name == "none" else f"+{added:,}"
        lines.append(
            f"| `{name}` | {gate} | {source} | {parameters} | {row['paper_macs'] / 1e9:.2f} G |"
        )
    return "\n".join(lines)


def measured() -> list[Row]:
    """Return the rows of all devices, each device's in the order in which they were measured."""
    paths = [path for path in sorted(RESULTS.glob("*.jsonl")) if path != COSTS]
    return [row for path in paths for row in read_lines(path)]


def speed() -> str:
    """Return the newest figures of the cases that are not of kernels."""
    newest_rows: dict[tuple[str, ...], Row] = {}
    for row in measured():
        newest_rows[row["case"], row["provider"], row["device"]] = row
    lines = [
        "| what | measured | to reach | where (device, threads, torch, date) |",
        "|---|---|---|---|",
    ]
    for row in newest_rows.values():
        said = sentence(row)
        if said:
            where = (
                f"{row['device']}, {row['threads']} threads, torch {row['torch']}, {row['date']}"
            )
            lines.append(f"| {said[0]} | {said[1]} | {said[2]} | {where} |")
    return "\n".join(lines)


def sentence(row: Row) -> tuple[str, str, str] | None:
    """Return what a result row says to a reader, or None for the rows it is relative to."""
    case, provider = row["case"], row["provider"]
    if case == "start" and provider.startswith("import normattn"):
        return "importing normattn", f"{row['ratio']:.2f}× `import torch, timm`", "< 1.5×"
    if case == "start" and provider == "normattn --help":
        return "`normattn --help`, all of it", f"{row['median_ms'] / 1e3:.2f} s", "< 1 s"
    if case == "epoch" and provider == "epoch 3":
        what = "epoch of resnet20 outside forward, backward and step"
        return what, f"{100 * row['outside_share']:.1f} %", "≤ 5 %"
    if case == "images" and provider == "pad-crop-flip":
        what = "augmented 32×32 images a second, one thread"
        return what, f"{row['images_per_second']:,}", "≥ 50,000"
    return None


def read_lines(path: Path) -> list[Row]:
    """Read one JSON object a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def fill(text: str, blocks: dict[str, str]) -> str:
    """Return ``text`` with each ``<!-- generated: name -->`` block replaced."""
    for name, content in blocks.items():
        pattern = rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(
            pattern, lambda m, c=content: f"{m[1]}{c}\n{m[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise SystemExit(f"README.md: expected one block {name!r}, found {count}.")
    return text


def main() -> None:
    """Write or check the README and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    readme = ROOT / "README.md"
    wanted = {readme: fill(readme.read_text(), generated())}
    if not check:  # pictures differ in their last digits between versions of matplotlib
        wanted |= pictures()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{'differs' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
