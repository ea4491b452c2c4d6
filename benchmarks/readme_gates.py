"""The README's part on gates: what trained ones multiply by, and what that movement is worth."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt

from normattn.comparison._page_look import ACCENT, INK, MUTED
from normattn.model.gates import Gates

Model = Mapping[str, Any]


def read_gates(path: Path) -> dict[str, Any]:
    """Return what `gates.py` kept."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def gates_section(path: Path, ranges: Path, maps: Path) -> str:
    """Return the sentence, the picture, the table and the maps."""
    content = read_gates(path)
    lines = [
        f"What the gates of trained models multiply by, on {content['limit']:,} validation images "
        "of CIFAR-100 (resnet20; the line holds 98 % of a gate's values, the tick is its mean, "
        "dashed is ½):",
        "",
        f"![Ranges of the gates of each model]({ranges.as_posix()})",
        "",
        "| model | epochs | widest gate, 1–99 % | values left in bfloat16 | top-1 (%) "
        "| with every gate held at its mean |",
        "|---|---:|---:|---:|---:|---:|",
        *(row(name, model) for name, model in content["models"].items()),
        "",
        "Held at its mean a gate is one number, which `normattn.fold` puts into the convolution "
        "in front. One seed each after a short training: the last two columns of a row say what "
        "the movement of its gates is worth; one row against another says little.",
        "",
        f"![Attention maps beside Grad-CAM]({maps.as_posix()})",
        "",
        "The gate of `nam-channel`, mean over channels, at three depths, beside Grad-CAM: above "
        "each on its own scale, below on the scale from 0 to 1. "
        f"Commit {content['commit']}, {content['date']}; made by `python benchmarks/gates.py`.",
    ]
    return "\n".join(lines)


def row(name: str, model: Model) -> str:
    """Return a line of the table."""
    found, held = Gates.from_json(model["gates"]), model["held"]
    widest = max(found.sites, key=lambda site: site.width)
    kept = [site.distinct["bfloat16"] for site in found.sites]
    accuracy, without = (100 * held[key] / held["images"] for key in ("right", "held_right"))
    return (
        f"| `{name}` | {model['epochs']} | {widest.low:.3f} to {widest.high:.3f} | "
        f"{min(kept)}–{max(kept):,} | {accuracy:.1f} | {without:.1f} |"
    )


def draw_gates(path: Path) -> Any:
    """Draw the range of every gate, a panel a model, all on the scale from 0 to 1."""
    rows = [
        {"model": name, "gate": site.name, "low": site.low, "high": site.high, "mean": site.mean}
        for name, model in read_gates(path)["models"].items()
        for site in Gates.from_json(model["gates"]).sites
    ]
    order = list(dict.fromkeys(row["gate"] for row in rows))
    names = list(dict.fromkeys(row["model"] for row in rows))
    x = alt.X("low:Q", scale=alt.Scale(domain=[0, 1], nice=False), title=None)
    y = alt.Y("gate:N", sort=order, title=None, axis=alt.Axis(ticks=False, labelColor=INK))
    base = alt.Chart().encode(y=y)
    half = alt.Chart().mark_rule(color=MUTED, strokeDash=[4, 3]).encode(x=alt.datum(0.5))
    line = base.mark_rule(strokeWidth=5, color=ACCENT, opacity=0.6).encode(x=x, x2="high:Q")
    tick = base.mark_tick(thickness=2, height=11, color=INK).encode(x=alt.X("mean:Q", title=None))
    panels = alt.layer(half, line, tick, data=alt.InlineData(values=rows)).properties(
        width=170, height=17 * len(order)
    )
    return panels.facet(column=alt.Column("model:N", sort=names, title=None), spacing=14)
