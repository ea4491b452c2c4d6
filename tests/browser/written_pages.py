"""A page with one of everything that a page can hold, written for the tests."""

import io
from collections.abc import Iterable
from pathlib import Path

import altair as alt
from PIL import Image

from normattn.comparison import page
from normattn.comparison._page_charts import printable
from normattn.comparison._page_look import ACCENT, BETTER, WORSE

SET = "window.ran=1"  # what no name may ever do
HOSTILE = (
    f"<img src=x onerror={SET}>",
    f"</script><script>{SET}</script>",
    f'"><svg onload={SET}>',
    f"'; {SET}; '",
    "../x",
    "😀 ع",
    "a\u202egnp.b",  # turns what follows from right to left
    "x" * 300,
    "=1+1",
    "{{ 7 * 7 }} ${7 * 7} $\\frac{1}{2}$",
)
SHOWN = tuple(map(printable, HOSTILE))  # as text that a page can hold
PLAIN = ("none", "se", "nam", "ean(groups=8)")


def document(names: Iterable[str] = PLAIN) -> page.Document:
    """Return a page of made-up numbers for these names; the last has none."""
    names = tuple(names)
    values: list[float | None] = [9.5 - 7.25 * place / len(names) for place in range(len(names))]
    values[-1] = None
    rows = [
        {"name": page.Cell(name), "error": _cell(value), "size": page.Cell(place % 3 + 9)}
        for place, (name, value) in enumerate(zip(names, values, strict=True))
    ]
    columns = (
        page.Column("name", "Mechanism", numeric=False),
        page.Column("error", "Error (%)"),
        page.Column("size", "Parameters"),
    )
    said = ", ".join(names)
    points = [{"name": n, "error": v, "size": i} for i, (n, v) in enumerate(zip(names, values))]  # noqa: B905
    return page.Document(
        title=f"Attention in {said}",
        kind="made up",
        verdict=(f"Better: {said}.",),
        about=said,
        missing=(f"Not begun: {names[-1]}, seed 1.", said),
        sections=(
            page.Section(
                "numbers",
                "Numbers",
                said,
                (
                    page.Table("table", "Table", columns, tuple(rows), caption=said),
                    page.Chart("points", f"Points of {names[0]}", _points(points), said, said),
                    page.Chart("lines", "Lines", _lines(names), said, wide=True),
                    page.Picture(f"A picture of {names[0]}", png(), said, said),
                    page.Facts("Facts", tuple((name, name) for name in names)),
                    page.Lines("Not equal", names, warning=True),
                ),
            ),
            page.Section("later", "Later", "", (), nothing=f"Nothing of {names[0]}."),
        ),
        command=f"normattn compare --mechanisms '{said}'",
        again=said,
    )


def write(folder: Path, names: Iterable[str] = PLAIN) -> Path:
    path = folder / "page.html"
    path.write_text(page.render_page(document(names)), encoding="utf-8")
    return path


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(file, "PNG")
    return file.getvalue()


def _cell(value: float | None) -> page.Cell:
    if value is None:
        return page.Cell(None, note="no finished trial")
    return page.Cell(value, f"{value:.2f} ± 0.10", note="better", verdict="better")


def _points(rows: list[dict[str, object]]) -> alt.Chart:
    return (
        alt.Chart(alt.Data(values=rows), width="container")
        .mark_point(size=80)
        .encode(
            x=alt.X("error:Q").title("Error (%)"),
            y=alt.Y("name:N").title(None),
            color=alt.Color("name:N").legend(None).scale(range=[ACCENT, BETTER, WORSE]),
            tooltip=["name:N", "error:Q"],
        )
    )


def _lines(names: tuple[str, ...]) -> alt.Chart:
    rows = [
        {"name": name, "epoch": epoch, "loss": (place + 1) / epoch}
        for place, name in enumerate(names)
        for epoch in (1, 2, 4)
    ]
    return (
        alt.Chart(alt.Data(values=rows), width="container")
        .mark_line()
        .encode(x="epoch:Q", y="loss:Q", color=alt.Color("name:N").title("Mechanism"))
    )
