"""The shell of all pages: one file, nothing from outside, text as text, numbers in full."""

import base64
import dataclasses
import hashlib
import json
import math
import re
from typing import Any

import altair as alt
import pytest

from normattn.comparison import _page_charts, _page_look
from normattn.comparison import page as pages
from normattn.comparison.page import (
    Cell,
    Chart,
    Column,
    Document,
    Facts,
    Lines,
    Picture,
    Section,
    Table,
    render_markdown,
    render_page,
)
from normattn.errors import InputError

HOSTILE = "</script><img src=x onerror=alert(1)>&'\"`|*\x00\ud800\u202eé😀ع"
CLEAN = HOSTILE.replace("\x00", " ").replace("\ud800", " ").replace("\u202e", " ")


def dots(rows: list[dict[str, Any]]) -> Any:
    data = alt.InlineData(values=rows, name="dots")
    encoded = alt.Chart(data).mark_point().encode(x="x:Q", y="y:Q", color="name:N")
    return encoded.properties(width="container", height=100)


def document(text: str = "plain", chart: Any = None) -> Document:
    rows = [{"name": text, "x": 1, "y": 2.5}, {"name": text, "x": 2, "y": math.nan}]
    table = Table(
        "numbers",
        "Numbers",
        (Column("name", "Name", False), Column("error", text)),
        (
            {"name": Cell(text), "error": Cell(1 / 3, "0.33 ± 0.10", text, "better")},
            {"name": Cell("b"), "error": Cell(math.nan)},
            {"name": Cell("c"), "error": Cell(None)},
            {"name": Cell("d")},
        ),
        text,
    )
    items = (
        table,
        Chart("dots", text, chart or dots(rows), text, text),
        Picture(text, b"\x89PNG", text, text),
        Facts(text, ((text, text),)),
        Lines(text, (text, "two"), warning=True),
    )
    sections = (
        Section("all", "All", text, items),
        Section("empty", "Empty", "never said", (), text),
    )
    return Document(text, text, (text,), text, (text,), sections, text, text)


@pytest.fixture(scope="module")
def plain() -> str:
    return render_page(document())


@pytest.fixture(scope="module")
def hostile() -> str:
    return render_page(document(HOSTILE))


def spec(html: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json">(.*?)</script>', html)
    return dict(json.loads(found))


def test_the_policy_names_the_checksums_of_all_that_runs_and_of_the_style(plain: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', plain)
    assert policy
    named = set(re.findall("sha256-[A-Za-z0-9+/=]+", policy[1].replace("&#39;", "'")))
    parts = re.findall(r"<script>(.*?)</script>|<style>(.*?)</style>", plain, re.DOTALL)
    digests = [hashlib.sha256("".join(part).encode()).digest() for part in parts]
    assert named == {f"sha256-{base64.b64encode(d).decode()}" for d in digests}
    assert len(named) == 3
    assert policy[1].startswith("default-src 'none'; ")
    assert "unsafe" not in policy[1]


def test_a_page_without_charts_does_without_the_charts_bundle() -> None:
    bare = dataclasses.replace(document(), sections=())
    html = render_page(bare)
    assert len(html) < 60_000
    assert html.count("<script>") == 1


def test_markup_in_any_text_is_shown_and_never_closes_what_it_stands_in(
    plain: str, hostile: str
) -> None:
    assert "<img src=x" not in hostile
    for tag in ("script", "img", "section", "figure", "p", "td"):
        assert hostile.count(f"<{tag}") == plain.count(f"<{tag}")
        assert hostile.count(f"</{tag}") == plain.count(f"</{tag}")
    hostile.encode()  # no lone surrogate is left
    assert spec(hostile)["description"] == CLEAN


def test_markup_is_text_in_markdown_too() -> None:
    markdown = render_markdown(document(HOSTILE))
    words, command = markdown.split("## Run it again")
    assert "<img" not in words
    assert CLEAN in command  # in a fence, longer than any in it
    rows = [line for line in words.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}


def test_a_cell_holds_its_number_in_full_and_what_is_none_as_text(plain: str) -> None:
    cells = re.findall(r'<td data-value="([^"]*)"><span>([^<]*)</span>', plain)
    assert cells == [(repr(1 / 3), "0.33 ± 0.10"), ("", "nan"), ("", "–"), ("", "–")]
    assert '<small class="better">plain</small>' in plain


def test_a_charts_data_is_in_the_page_in_full_and_no_number_is_null(plain: str) -> None:
    data = spec(plain)["data"]
    assert data["name"] == "dots"
    assert data["values"]["rows"] == 2
    columns = data["values"]["columns"]
    assert columns["x"] == [1, 2]
    assert columns["y"] == [2.5, None]
    assert columns["name"] == {"of": ["plain"], "at": [0, 0]}


def test_an_empty_section_says_that_it_is(plain: str) -> None:
    assert "never said" not in plain
    assert re.search(r'<h2 id="empty">Empty</h2>\s*<p>plain</p>', plain)


def test_a_chart_has_a_still_picture_with_its_words(plain: str) -> None:
    (address,) = re.findall(r'<img class="still" src="([^"]*)" alt="plain">', plain)
    assert address.startswith("data:image/svg+xml,%3Csvg")
    assert 'width="container"' not in address


def test_still_pictures_that_have_no_room_are_left_out_with_their_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pages, "STILLS", 10)
    html = render_page(document())
    assert 'class="still"' not in html
    assert "plain It has more numbers than a still picture holds" in html


def test_ids_of_pictures_count_from_0_in_each() -> None:
    drawn = '<clipPath id="clip7"></clipPath><g clip-path="url(#clip7)"></g><a id="clip9"/>'
    expected = '<clipPath id="clip0"></clipPath><g clip-path="url(#clip0)"></g><a id="clip1"/>'
    assert _page_charts.numbered(drawn) == expected


def test_the_same_document_gives_the_same_page(plain: str) -> None:
    assert render_page(document()) == plain


def test_a_chart_that_would_load_its_data_is_refused() -> None:
    remote = alt.Chart(alt.UrlData("https://example.org/x.json")).mark_point()
    with pytest.raises(InputError, match=r"expected a chart with its data inside, got the address"):
        render_page(document(chart=remote))


@pytest.mark.parametrize("name", ["Bad Name", "", "a/b", "all", "missing"])
def test_names_that_are_no_slug_or_stand_twice_are_refused(name: str) -> None:
    made = document()
    again = Section(name, "Again", "", (), "nothing")
    with pytest.raises(InputError, match=r"expected names of small letters"):
        render_page(dataclasses.replace(made, sections=(*made.sections, again)))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_colour_of_text_is_readable_on_every_ground(dark: bool) -> None:
    colors = {name: pair[dark] for name, pair in _page_look.COLORS.items()}
    for ground in ("paper", "card", "note"):
        for ink in ("ink", "muted", "accent", "better", "worse"):
            assert contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)
    for pair in _page_look.CATEGORIES:
        assert contrast(pair[dark], colors["card"]) >= 3, pair


def test_every_light_colour_has_one_counterpart_in_the_dark() -> None:
    pairs = {*_page_look.COLORS.values(), *_page_look.CATEGORIES, *_page_look.RAMP}
    assert len(_page_look.swaps()) == len(pairs)
    named = re.findall("#[0-9a-f]{6}", json.dumps(_page_look.config()))
    assert set(named) <= set(_page_look.swaps())


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
