"""Write the README's tables and pictures from ``benchmarks/results``: no figure is typed by hand.

``python benchmarks/readme.py`` rewrites; ``--check`` exits with 1 where something would change.
"""

import argparse
import io
import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from normattn.attention import MECHANISMS
from normattn.comparison import RunRecords, Summary, read_run, summarise
from normattn.comparison.statistics import ALPHA
from normattn.comparison.table import columns

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RUN = RESULTS / "cifar100-resnet20"
COSTS = RESULTS / "costs-resnet50-cifar100.jsonl"

INK, MUTED, ACCENT = "#57606a", "#8c959f", "#3b6fd4"

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
        "speed": speed(),
    }


def pictures() -> dict[Path, str]:
    """Return each generated picture as SVG."""
    images = ROOT / "docs" / "images"
    summary = summarise(read_run(RUN))
    return {
        images / "mechanism.svg": svg(draw_mechanism()),
        images / "cifar100.svg": svg(draw_comparison(summary)),
    }


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


def speed() -> str:
    """Return the newest figures of each benchmark case."""
    newest: dict[tuple[str, ...], dict[str, Any]] = {}
    for path in sorted(RESULTS.glob("*.jsonl")):
        if path != COSTS:
            for row in read_lines(path):
                key = (row["case"], row.get("layout", ""), row["provider"], row["device"])
                newest[key] = row
    lines = [
        "| what | measured | to reach | where (device, threads, torch, date) |",
        "|---|---|---|---|",
    ]
    for row in newest.values():
        said = sentence(row)
        if said:
            where = (
                f"{row['device']}, {row['threads']} threads, torch {row['torch']}, {row['date']}"
            )
            lines.append(f"| {said[0]} | {said[1]} | {said[2]} | {where} |")
    return "\n".join(lines)


def sentence(row: dict[str, Any]) -> tuple[str, str, str] | None:
    """Return what a result row says to a reader, or None for the rows it is relative to."""
    case, provider = row["case"], row["provider"]
    if case == "gate" and provider.startswith("normattn"):
        what = f"NAM channel gate in plain PyTorch, {row['layout']}, forward + backward"
        return what, f"{1 / row['ratio']:.2f}× the published form's speed", "≥ 1.5×"
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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def draw_mechanism() -> Figure:
    """Draw what every mechanism does at the end of a residual branch."""
    figure = Figure(figsize=(8.2, 1.9))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 82), ylim=(0, 19))
    axes.set_axis_off()

    def box(x: float, text: str, width: float, color: str = INK, y: float = 4) -> None:
        shape = FancyBboxPatch(
            (x, y), width, 5, boxstyle="round,pad=0,rounding_size=1", fill=False, ec=color, lw=1.4
        )
        axes.add_patch(shape)
        axes.text(x + width / 2, y + 2.4, text, ha="center", va="center", color=color, fontsize=10)

    def arrow(*points: tuple[float, float], color: str = INK) -> None:
        for start, end in pairwise(points[:-1]):
            axes.plot(*zip(start, end, strict=True), color=color, lw=1.4)
        style = {"arrowstyle": "-|>", "color": color, "lw": 1.4, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", points[-1], points[-2], arrowprops=style)

    def node(x: float, text: str, color: str = INK) -> None:
        axes.text(x, 6.4, text, ha="center", va="center", color=color, fontsize=17)

    arrow((1, 6.5), (6, 6.5))
    box(6, "convolutions, norm", 19)
    arrow((25, 6.5), (49.4, 6.5))
    axes.text(28, 7.8, "x", color=INK, fontsize=11, style="italic")
    box(32, "gate(x)", 11, ACCENT, y=11)
    arrow((30.5, 6.5), (30.5, 13.5), (32, 13.5), color=ACCENT)
    arrow((43, 13.5), (50.8, 13.5), (50.8, 8), color=ACCENT)
    node(50.8, "×", ACCENT)
    arrow((52.4, 6.5), (59.3, 6.5))
    node(60.8, "+")
    arrow((3.5, 6.5), (3.5, 1.5), (60.8, 1.5), (60.8, 5))
    axes.text(32, 2.1, "shortcut", ha="center", va="bottom", color=MUTED, fontsize=9)
    arrow((62.4, 6.5), (68, 6.5))
    box(68, "ReLU", 8)
    arrow((76, 6.5), (81, 6.5))
    axes.text(52.6, 13, "y = x · gate(x)", color=ACCENT, fontsize=10, va="center")
    return figure


def draw_comparison(summary: Summary) -> Figure:
    """Draw each mechanism's top-1 error: its interval and its mean, `none` and `half` as lines."""
    rows = [row for row in summary.rows if row.metrics["top1_error"] is not None]
    figure = Figure(figsize=(8.2, 0.42 * len(rows) + 0.9), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        estimate = row.metrics["top1_error"]
        assert estimate is not None
        color = INK if row.mechanism in summary.baselines else ACCENT
        if row.mechanism in summary.baselines:
            axes.axvline(estimate.mean, color=MUTED, lw=0.9, ls=(0, (4, 3)), zorder=0)
        if estimate.low is not None and estimate.high is not None:
            axes.plot([estimate.low, estimate.high], [place, place], color=color, lw=2)
        axes.plot(estimate.mean, place, "o", color=color, ms=7)
    axes.set_yticks(range(len(rows)), [row.mechanism for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("top-1 error (%), mean and 95 % interval")
    axes.tick_params(colors=INK, length=0)
    axes.xaxis.label.set_color(INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    return figure


def svg(figure: Figure) -> str:
    """Return the figure as SVG that is the same on every run; lines have no trailing blanks."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "normattn", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return re.sub(r"[ \t]+\n", "\n", buffer.getvalue())


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
