"""The report of a run, finished or not: one page, its Markdown, and a row for each trial.

``write_report`` reads the records and nothing else. What the page shows is a ``Document``: a new
section is a function of ``sections.py``.
"""

import csv
import io
from pathlib import Path

from .. import _files
from . import facts, sections
from .page import Document, render_markdown, render_page
from .records import RunRecords, read_run
from .statistics import Summary, summarise

_CSV = (
    "mechanism", "seed", "status", "parameters", "macs", "paper_macs", "top1_error", "top5_error",
    "loss", "best_top1_error", "epochs", "images_per_second",
)  # fmt: skip


def write_report(folder: Path | str) -> Path:
    """Write ``report.html``, ``report.md`` and ``results.csv`` of a run; return the page's path.

    A run that is partial or damaged has a report too: it says what is missing.

    Raises:
        RunError: ``folder`` holds no protocol, or cannot be written.
    """
    folder = Path(folder)
    records = read_run(folder)
    summary = summarise(records)
    document = build_document(records, summary)
    for name, content in {
        "results.csv": results_csv(records, summary),
        "report.md": render_markdown(document),
        "report.html": render_page(document),
    }.items():
        # A file name that is no UTF-8 reaches us with lone surrogates, which no file can hold.
        _files.write_bytes(folder / name, content.encode(errors="replace"))
    return folder / "report.html"


def build_document(records: RunRecords, summary: Summary) -> Document:
    """Gather what the page shows."""
    protocol = records.protocol
    return Document(
        title=f"Attention in {protocol.host} on {protocol.data}",
        kind="comparison of attention mechanisms",
        verdict=sections.verdict(summary),
        about=facts.about(records),
        missing=facts.incomplete(records, summary),
        sections=sections.sections(records, summary),
        command=facts.command(protocol),
        again=facts.again(protocol),
    )


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
