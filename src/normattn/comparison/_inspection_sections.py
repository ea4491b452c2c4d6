"""The sections of an inspection's page: gates, what they are worth, their weights."""

from collections.abc import Sequence

from ..model.gates import GateSite
from . import charts
from ._inspection_charts import POINTS, enlarged, range_rows, sorted_weights
from ._inspection_records import Inspected
from ._inspection_shown import Room, channels, maps, mistakes, titled
from .page import Cell, Chart, Column, Item, Lines, Section, Table

_MODELS = 12  # whose gates are shown; gates.json has them all
_WEIGHTS = 4  # models whose sorted weights are drawn
_GATES = (
    Column("gate", "Gate", False), Column("mean", "Mean"), Column("spread", "Spread"),
    Column("low", "1 %"), Column("high", "99 %"), Column("width", "1 to 99 %"),
    Column("float32", "Different values"), Column("bfloat16", "in bfloat16"),
    Column("int8", "in int8"), Column("below", "Below 0.05 (%)"),
    Column("above", "Above 0.95 (%)"),
)  # fmt: skip


def sections(models: Sequence[Inspected], room: Room) -> tuple[Section, ...]:
    """Return what the page shows, in order."""
    return (
        _gates(models),
        _held(models),
        _weights(models),
        maps(models, room),
        channels(models, room),
        mistakes(models, room),
    )


def _gates(models: Sequence[Inspected]) -> Section:
    drawn: list[Item] = []
    for place, model in enumerate(models[:_MODELS]):
        said = " ".join(model.gates.summary)
        title, sites = titled(models, model, "On the scale from 0 to 1"), model.gates.sites
        drawn.append(Chart(f"ranges-{place}", title, charts.ranges(range_rows(sites)), said))
        title = titled(models, model, "Enlarged")
        widest = max(site.width for site in sites)
        text = f"How far the values of each gate are from its mean: up to {widest:.2g} wide."
        drawn.append(Chart(f"enlarged-{place}", title, enlarged(sites), text))
    more = len(models) - _MODELS
    hidden = f" Shown are {_MODELS} models; gates.json has {more} more." if more > 0 else ""
    tables = [_gate_table(models, place, model) for place, model in enumerate(models[:_MODELS])]
    left = [
        f"{titled(models, model, site)}: {reason}."
        for model in models
        for site, reason in model.gates.left_out
    ]
    unseen = [Lines("Attention that could not be looked at", tuple(left), warning=True)]
    return Section(
        "gates",
        "What the gates multiply by",
        "A gate multiplies every value of a map. On the left, 98 of 100 of its values lie within "
        "the line, and the dashed line is ½; on the right the same, enlarged, around the mean. The "
        f"table says how many different values are left in numbers of fewer bits.{hidden}",
        (*drawn, *tables, *(unseen if left else [])),
    )


def _gate_table(models: Sequence[Inspected], place: int, model: Inspected) -> Table:
    sampled = max(site.sampled for site in model.gates.sites)
    return Table(
        f"gates-{place}",
        titled(models, model, "The gates in numbers"),
        _GATES,
        tuple(_gate_row(site) for site in model.gates.sites),
        f"Over {model.gates.images:,} images. Mean, spread and shares are of all values; the rest "
        f"is of {sampled:,} values a gate, drawn by chance.",
    )


def _gate_row(site: GateSite) -> dict[str, Cell]:
    return {
        "gate": Cell(site.name),
        "mean": Cell(site.mean, f"{site.mean:.5f}"),
        "spread": Cell(site.spread, f"{site.spread:.2g}"),
        "low": Cell(site.low, f"{site.low:.5f}", f"{site.low - 0.5:+.2g} from ½"),
        "high": Cell(site.high, f"{site.high:.5f}", f"{site.high - 0.5:+.2g} from ½"),
        "width": Cell(site.width, f"{site.width:.2g}"),
        **{kind: Cell(count, f"{count:,}") for kind, count in site.distinct.items()},
        "below": Cell(100 * site.below, f"{100 * site.below:.3g}"),
        "above": Cell(100 * site.above, f"{100 * site.above:.3g}"),
    }


def _held(models: Sequence[Inspected]) -> Section:
    columns = (
        Column("model", "Model", False), Column("images", "Images"),
        Column("right", "Top-1 accuracy (%)"), Column("held", "with its gates held (%)"),
        Column("changed", "Predictions that change"), Column("share", "of all (%)"),
    )  # fmt: skip
    rows = tuple(
        {
            "model": Cell(model.name),
            "images": Cell(held.images),
            "right": Cell(100 * held.right / held.images, f"{100 * held.right / held.images:.2f}"),
            "held": Cell(
                100 * held.held_right / held.images, f"{100 * held.held_right / held.images:.2f}"
            ),
            "changed": Cell(held.changed),
            "share": Cell(
                100 * held.changed / held.images, f"{100 * held.changed / held.images:.2f}"
            ),
        }
        for model in models
        for held in [model.held]
    )
    return Section(
        "held",
        "Without the movement of the gates",
        "Every gate is replaced by its mean: one number a gate, the same for all images, channels "
        "and pixels. Nothing is trained again. What the predictions lose is what the gates' "
        "movement gives them.",
        (Table("held", "Gates held at their means", columns, rows),),
    )


def _weights(models: Sequence[Inspected]) -> Section:
    items: list[Item] = []
    for place, model in enumerate(models[:_WEIGHTS]):
        for which, title in (("scale", "Scale factors"), ("importance", "Importance")):
            sites = [site for site in model.gates.sites if len(getattr(site, which)) > 1]
            if sites:
                chart = sorted_weights(sites, which, title)
                name = titled(models, model, f"{title}, sorted")
                items.append(Chart(f"{which}-{place}", name, chart, _spans(sites, which)))
    more = len(models) - _WEIGHTS
    hidden = f" Shown are {_WEIGHTS} models; gates.json has {more} more." if more > 0 else ""
    return Section(
        "weights",
        "Scale factors and importance",
        "What each channel (or pixel) is weighted by in the gates, the largest first. Of a long "
        f"list {POINTS} evenly spaced values are drawn; gates.json has them all.{hidden}",
        tuple(items),
        "The gates of this mechanism have no scale factors.",
    )


def _spans(sites: Sequence[GateSite], which: str) -> str:
    def of(site: GateSite) -> str:
        values = getattr(site, which)
        return f"{site.name} {min(values):.3g} to {max(values):.3g}"

    more = f", and {len(sites) - 6} more" if len(sites) > 6 else ""
    return f"From the smallest to the largest: {', '.join(map(of, sites[:6]))}{more}."
