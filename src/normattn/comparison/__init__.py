"""What "fair" means: protocol, trials, statistics, report."""

from typing import TYPE_CHECKING, Any

from .engine import compare as compare
from .protocol import Protocol as Protocol
from .records import RunRecords as RunRecords
from .records import TrialRecord as TrialRecord
from .records import read_run as read_run
from .statistics import Summary as Summary
from .statistics import summarise as summarise
from .table import table as table

if TYPE_CHECKING:
    from .report import write_report as write_report


def __getattr__(name: str) -> Any:
    # Every trial's process imports this package; only the report needs matplotlib.
    if name == "write_report":
        from .report import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
