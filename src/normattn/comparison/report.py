"""The report of a run, finished or not: one page, its Markdown, and a row for each trial.

``write_report`` reads the records and nothing else. ``Page`` holds everything that the templates
show, as plain text and pictures: a new section is a function that returns a ``Group``.
"""

import csv
import io
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from .. import _files
from . import facts, sections
from .records import RunRecords, read_run
from .sections import Group
from .statistics import Summary, summarise
from .table import Cell, Column, caption, columns

_CSV = (
    "mechanism", "seed", "status", "parameters", "macs", "paper_macs", "top1_error", "top5_error",
    "loss", "best_top1_error", "epochs", "images_per_second",
)  # fmt: skip


@dataclass(frozen=True)
class Page:
    """What the templates show."""

    title: str
    verdict: tuple[str, ...]
    about: str
    incomplete: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str
    groups: tuple[Group, ...]
    unequal: tuple[str, ...]
    facts: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    notes: tuple[str, ...]
    command: str
    again: str


def write_report(folder: Path | str) -> Path:
    """Write ``report.html``, ``report.md`` and ``results.csv`` of a run; return the page's path.

    A run that is partial or damaged has a report too: it says what is missing.

    Raises:
        RunError: ``folder`` holds no protocol, or cannot be written.
    """
    folder = Path(folder)
    records = read_run(folder)
    summary = summarise(records)
    page = build_page(records, summary)
    for name, content in {
        "results.csv": results_csv(records, summary),
        "report.md": render("report.md.j2", page),
        "report.html": render("report.html.j2", page),
    }.items():
        # A file name that is no UTF-8 reaches us with lone surrogates, which no file can hold.
        _files.write_bytes(folder / name, content.encode(errors="replace"))
    return folder / "report.html"


def build_page(records: RunRecords, summary: Summary) -> Page:
    """Gather what the page shows."""
    protocol = records.protocol
    found = columns(summary)
    return Page(
        title=f"Attention in {protocol.host} on {protocol.data}",
        verdict=sections.verdict(summary),
        about=facts.about(records),
        incomplete=facts.incomplete(records, summary),
        columns=found,
        rows=tuple(zip(*(column.cells for column in found), strict=True)),
        caption=caption(summary),
        groups=sections.groups(records, summary),
        unequal=summary.unequal or ("Nothing that the records show.",),
        facts=facts.held_equal(records),
        notes=facts.notes(records),
        command=facts.command(protocol),
        again=facts.again(protocol),
    )


def render(template: str, page: Page) -> str:
    """Fill a template; whatever a record holds is shown as text, never taken as markup."""
    return _environment(template).get_template(template).render(page=page)


def results_csv(records: RunRecords, summary: Summary) -> str:
    """Return a row for each trial of the protocol, begun or not."""
    rows = {row.mechanism: row for row in summary.rows}
    batches = sorted({batch for row in summary.rows for batch in row.latency})
    latencies = [f"latency_batch_{batch}_ms" for batch in batches]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*_CSV, *latencies, "attempts", "reason"])
    for trial in records.trials:
        row = rows[trial.mechanism]
        seconds = [row.latency.get(batch) for batch in batches]
        values = {
            "mechanism": trial.mechanism, "seed": trial.seed, "status": trial.status,
            "parameters": row.parameters, "macs": row.macs, "paper_macs": row.paper_macs,
            "epochs": len(trial.history),
        }  # fmt: skip
        known = [values.get(name, trial.metrics.get(name)) for name in _CSV]
        times = [None if s is None else s * 1e3 for s in seconds]
        writer.writerow(map(_inert, [*known, *times, trial.attempts, trial.reason]))
    return buffer.getvalue()


def _inert(value: object) -> object:
    """Keep a spreadsheet from running text as a formula; numbers stay numbers."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


@cache
def _environment(template: str) -> Environment:
    markdown = template.endswith(".md.j2")
    environment = Environment(
        loader=PackageLoader("normattn.comparison", ""),
        autoescape=not markdown,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        finalize=_markdown if markdown else None,
    )
    environment.filters["code"] = _fenced
    return environment


class _Code(str):
    """Text that is already safe inside a fence."""

    __slots__ = ()


def _fenced(text: str) -> _Code:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return _Code(f"{fence}\n{text}\n{fence}")


def _markdown(value: object) -> object:
    """Escape what Markdown or the HTML inside it would act on, and keep a cell on one line."""
    if not isinstance(value, str) or isinstance(value, _Code):
        return value
    text = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", " ".join(value.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
