"""The page of several slimmings of one model."""

from pathlib import Path

from .. import _files
from ._lenient import mapping, text
from ._slimmings_sections import beside
from .facts import _pairs
from .page import Document, Facts, Section, render_page
from .slimmings import CONTROL, Slimmings, read_slimmings

PAGE = "report.html"


def write_slimmings(folder: Path | str) -> Path:
    """Write ``report.html`` of the slimmings that lie in a folder; return its path.

    Raises:
        RunError: there is no finished slimming in ``folder``, or it cannot be written.
    """
    folder = Path(folder)
    page = render_page(slimmings_document(read_slimmings(folder)))
    _files.write_bytes(folder / PAGE, page.encode(errors="replace"))
    return folder / PAGE


def slimmings_document(found: Slimmings) -> Document:
    """Return the page: accuracy against latency by criterion, and what all share."""
    first = found.first
    made = {
        key: first.record[key] for key in ("versions", "commit", "machine") if key in first.record
    }
    groups = {"Fine-tuning, each round": mapping(first.record, "job", "recipe")}
    groups |= {"Software and hardware": made}
    facts = tuple(Facts(title, tuple(_pairs(values))) for title, values in groups.items() if values)
    name = Path(text(first.record, "job", "artifact") or "A model").name
    return Document(
        title=f"{name} slimmed by {', '.join(found.criteria)}",
        kind="slimmings of one model",
        verdict=_verdict(found),
        about=f"{len(found.outcomes)} slimmings · {text(first.record, 'data', 'spec')}",
        missing=found.missing,
        sections=(
            beside(found, least=1),
            Section("protocol", "Protocol", f"Of {first.folder.name}.", facts),
        ),
        command=f"normattn slim {text(first.record, 'job', 'artifact')} --out ...",
        again="Each slimming's own page has the command that does it again.",
    )


def _verdict(found: Slimmings) -> tuple[str, ...]:
    """Say how criteria compare with the control where both went for the same target."""
    first = f"Of {len(found.criteria)} criteria, {len(found.outcomes)} slimmings are finished."
    control = {o.target: o.accuracy for o in found.outcomes if o.criterion == CONTROL}
    same = [o for o in found.outcomes if o.criterion != CONTROL and o.target in control]
    if not same:
        return (
            first,
            "None at random went for the same target: what ranking adds is not known.",
        )
    gains = {
        name: [o.accuracy - control[o.target] for o in same if o.criterion == name]
        for name in dict.fromkeys(o.criterion for o in same)
    }
    said = ", ".join(f"{name} {_range(values)}" for name, values in gains.items())
    return (first, f"Points of accuracy above removal at random, at the same target: {said}.")


def _range(values: list[float]) -> str:
    low, high = (f"{value:+.2f}".replace("-", "−") for value in (min(values), max(values)))
    return low if len(values) == 1 else f"{low} to {high}"
