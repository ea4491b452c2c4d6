"""What folding did, site by site, and the error that it made."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Became = Literal["nothing", "factor", "constants", "itself"]

_WORDS = {
    "nothing": "its mean, in",
    "factor": "its mean, a factor",
    "constants": "x·σ(slope·x+offset)",
    "itself": "stays",
}


@dataclass(frozen=True)
class FoldedGateSite:
    """What became of one gate.

    Args:
        site: the place of the attention.
        gate: the mechanism's class.
        became: "nothing" (its mean went into the layer in front), "factor" (its mean, multiplied
            where no layer can take it), "constants" (NAM's slope and offset), or "itself".
        into: the layer that took its mean.
        lowest: the smallest value of the gate over the data; None without data.
        highest: the largest.
        width: the widest range (highest - lowest) of a channel.
        note: why it was not folded further.
    """

    site: str
    gate: str
    became: Became
    into: str | None = None
    lowest: float | None = None
    highest: float | None = None
    width: float | None = None
    note: str = ""


@dataclass(frozen=True)
class FoldError:
    """How far the folded model's outputs are from the original's.

    Args:
        largest: the largest difference of an output.
        relative: that divided by the original's largest output (in absolute value).
        changed: the fraction of images whose highest output is another.
        accuracy: the fraction that the original got right; None without labels.
        folded_accuracy: likewise, of the folded model.
        images: how many images were compared.
        source: "data", or "noise" where no data were given.
    """

    largest: float
    relative: float
    changed: float
    accuracy: float | None
    folded_accuracy: float | None
    images: int
    source: Literal["data", "noise"]


@dataclass(frozen=True)
class FoldReport:
    """What `fold` did; ``str(report)`` is a table.

    Args:
        sites: what became of each gate, in the order of the model.
        norms: how many norms went into the layers in front of them.
        norms_left: the batch norms that stay, each with the reason.
        tolerance: the width below which a gate became its mean; None for the exact form.
        error: measured, not estimated.
    """

    sites: tuple[FoldedGateSite, ...]
    norms: int
    norms_left: tuple[tuple[str, str], ...]
    tolerance: float | None
    error: FoldError

    @property
    def constant(self) -> int:
        """How many gates have become their mean."""
        return sum(site.became in ("nothing", "factor") for site in self.sites)

    def to_json(self) -> dict[str, Any]:
        """Return plain containers."""
        return asdict(self)

    def __str__(self) -> str:
        left = f", {len(self.norms_left)} stay" if self.norms_left else ""
        lines = [f"{self.norms} norms folded into the layers in front of them{left}."]
        reasons = Counter(reason for _, reason in self.norms_left)
        lines += [f"  {count} × {reason}" for reason, count in reasons.items()]
        if self.sites:
            rule = "" if self.tolerance is None else f" (range below {self.tolerance:g})"
            lines.append(f"{self.constant} of {len(self.sites)} gates became their mean{rule}.")
            lines += _table(self.sites)
        return "\n".join([*lines, _sentence(self.error)])


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows of text as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in rows]
    return [f"  {'  '.join(row)}".rstrip() for row in padded]


def _table(sites: tuple[FoldedGateSite, ...]) -> list[str]:
    rows: list[tuple[str, ...]] = [("site", "gate", "lowest", "highest", "range", "became")]
    for site in sites:
        numbers = (site.lowest, site.highest, site.width)
        became = " ".join(filter(None, (_WORDS[site.became], site.into)))
        became += f" ({site.note})" if site.note else ""
        cells = ["–" if n is None else f"{n:.4g}" for n in numbers]
        rows.append((site.site, site.gate, *cells, became))
    return aligned(rows)


def _sentence(error: FoldError) -> str:
    what = "real images" if error.source == "data" else "images of noise"
    text = (
        f"Error on {error.images} {what}: outputs differ by at most {error.largest:.2g} "
        f"({error.relative:.2g} of the largest); another class for {100 * error.changed:.2f} %"
    )
    if error.accuracy is None or error.folded_accuracy is None:
        return f"{text}."
    return (
        f"{text}; accuracy {100 * error.accuracy:.2f} % before, "
        f"{100 * error.folded_accuracy:.2f} % after."
    )
