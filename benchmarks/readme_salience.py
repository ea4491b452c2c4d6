"""The README's part on salience: whether a criterion knows which channels matter."""

from pathlib import Path
from typing import Any

from normattn.comparison._removal_picture import draw
from normattn.comparison._removal_sections import within
from normattn.comparison._removal_summary import curves
from normattn.comparison.removal import read_removal, summarise_removal


def salience_section(run: Path, picture: Path) -> str:
    """Return the sentence, the table and the picture of removal curves."""
    records = read_removal(run)
    rows = summarise_removal(records)
    settings = records.run["settings"]
    at = f"{100 * rows[0].fraction:g} %"
    lines = [
        "resnet20 with `nam-channel` on CIFAR-100: channels become zeros in the order of each "
        f"criterion, the same share of every group that it ranks; nothing is fine-tuned; "
        f"{settings['images']:,} validation images, {settings['draws']} random orders.",
        "",
        f"| criterion | groups | least salient {at} gone | random | most salient gone | "
        "least − random | area between the curves |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| `{row.criterion}` | {row.groups} | {row.least:.1f} | {row.random:.1f} | {row.most:.1f} "
        f"| {within(row.gain, row.chance)} | {within(row.area, row.area_chance)} |"
        for row in rows
    ]
    lines += [
        "",
        "Top-1 accuracy in %, differences in points; ± is what chance alone stays within in 95 of "
        "100 cases.",
        "",
        f"![Accuracy against channels removed, by criterion]({picture.as_posix()})",
        "",
        f"Evidence: [`benchmarks/results/{run.name}`](benchmarks/results/{run.name}/salience.md).",
    ]
    return "\n".join(lines)


def draw_salience(run: Path) -> Any:
    """Draw the curves of every criterion."""
    records = read_removal(run)
    found = [curves(records, row.criterion) for row in summarise_removal(records)]
    return draw(found, 100 / records.about["classes"])
