"""The shell of all pages, in a browser: it opens from disk, draws, sorts, saves, is readable."""

import csv
import io
import json
from pathlib import Path

import pytest
from browsing import DRAWN, opened
from written_pages import HOSTILE, PLAIN, SHOWN, write


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return write(tmp_path_factory.mktemp("hostile"), HOSTILE)


@pytest.fixture(scope="module")
def shown(browser, plain):
    with opened(browser, plain) as found:
        yield found


@pytest.fixture(scope="module")
def attacked(browser, hostile):
    with opened(browser, hostile) as found:
        yield found


def test_the_page_opens_without_error_and_asks_nothing_of_the_network(shown):
    assert shown.errors == []
    assert shown.requests == []


def test_it_asks_for_nothing_even_where_no_policy_forbids_it(open_page, hostile):
    with open_page(hostile, policy=False) as found:
        assert found.requests == []
        assert not found.ran()


def rows(found):
    return found.page.locator("#table-table tbody th > span").all_inner_texts()


def sorting(found):
    heads = found.page.locator("#table-table thead th")
    return [heads.nth(i).get_attribute("aria-sort") for i in range(heads.count())]


def test_a_table_sorts_by_click_upwards_downwards_and_back(shown):
    button = shown.page.locator("#table-table thead button").nth(1)
    button.click()
    assert rows(shown) == ["nam", "se", "none", "ean(groups=8)"]  # what has no number is last
    assert sorting(shown) == [None, "ascending", None]
    button.click()
    assert rows(shown) == ["none", "se", "nam", "ean(groups=8)"]
    assert sorting(shown) == [None, "descending", None]
    button.click()
    assert rows(shown) == list(PLAIN)
    assert sorting(shown) == [None, None, None]


def test_a_table_sorts_by_keyboard_alone(shown):
    page = shown.page
    page.locator("#save-all").focus()
    heads = page.locator("#table-table thead button")
    for _ in range(20):  # presses of the tab key until the first head has it
        page.keyboard.press("Tab")
        if heads.nth(0).evaluate("each => each === document.activeElement"):
            break
    page.keyboard.press("Enter")
    assert rows(shown) == ["ean(groups=8)", "nam", "none", "se"]
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert sorting(shown) == [None, None, "ascending"]
    assert rows(shown) == ["none", "ean(groups=8)", "se", "nam"]  # 9, 9, 10, 11, and not "10" < "9"
    page.keyboard.press("Space")
    page.keyboard.press("Space")
    assert rows(shown) == list(PLAIN)


def test_a_chart_has_a_mark_for_every_number_and_its_value(shown):
    drawn = {mark["name"]: mark["error"] for mark in shown.marks("points", "symbol")}
    assert drawn == {"none": 9.5, "se": 7.6875, "nam": 5.875}  # none where there is no number
    lines = {(m["name"], m["epoch"]): m["loss"] for m in shown.marks("lines", "line")}
    assert len(shown.marks("lines", "line")) == len(lines) == 3 * len(PLAIN)
    assert lines["nam", 4] == 0.75


@pytest.mark.parametrize("chart", ["points", "table"])
def test_the_numbers_saved_from_the_page_are_those_shown(shown, chart):
    part = shown.page.locator(f"[data-name={chart}]")
    texts = {}
    for kind in ("csv", "json"):
        with shown.page.expect_download() as caught:
            part.locator(f"[data-save={kind}]").click()
        assert caught.value.suggested_filename == f"{chart}.{kind}"
        texts[kind] = Path(caught.value.path()).read_text(encoding="utf-8")
    (saved,) = json.loads(texts["json"]).values()
    assert [row["error"] for row in saved] == [9.5, 7.6875, 5.875, None]
    read = list(csv.DictReader(io.StringIO(texts["csv"])))
    assert [row["name"] for row in read] == list(PLAIN)
    assert [row["error"] for row in read] == ["9.5", "7.6875", "5.875", ""]


def test_everything_is_saved_at_once_too(shown):
    with shown.page.expect_download() as caught:
        shown.page.locator("#save-all").click()
    saved = json.loads(Path(caught.value.path()).read_text(encoding="utf-8"))
    assert set(saved["parts"]) == {"table", "points", "lines"}
    assert saved["facts"]["Facts"] == {name: name for name in PLAIN}


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_serious(open_page, plain, scheme, width):
    with open_page(plain, scheme=scheme, width=width) as found:
        assert found.findings() == []
        assert found.sideways() == 0


def test_hostile_names_are_shown_as_text_and_nothing_runs(attacked):
    assert attacked.errors == []
    assert attacked.requests == []
    assert not attacked.ran()
    assert rows(attacked) == list(SHOWN)
    facts = attacked.page.locator(".facts dd").all_text_contents()
    assert facts == list(SHOWN)
    assert attacked.page.locator("img:not([src^='data:image/'])").count() == 0
    labels = {mark["name"] for mark in attacked.marks("points", "symbol")}
    assert labels == set(SHOWN[:-1])


def test_what_is_said_of_a_mark_is_text_whatever_its_name(attacked):
    page = attacked.page
    marks = page.locator("#chart-points .mark-symbol.role-mark path")
    for place, name in enumerate(SHOWN[:-1]):
        marks.nth(place).hover(force=True)
        page.wait_for_selector("#vg-tooltip-element.visible")
        said = page.locator("#vg-tooltip-element").text_content()
        assert name[:40] in said
    assert not attacked.ran()
    assert attacked.errors == []


# How far each of the last letters of an element stands from the one before, on the same line.
STEPS = """each => {
  const text = document.createTreeWalker(each, NodeFilter.SHOW_TEXT).nextNode();
  const places = Array.from({ length: 12 }, (_, i) => {
    const range = document.createRange();
    range.setStart(text, text.length - 12 + i);
    range.setEnd(text, text.length - 11 + i);
    return range.getBoundingClientRect();
  });
  const pairs = places.slice(1).map((place, i) => [places[i], place]);
  return pairs.filter(([a, b]) => a.top === b.top).map(([a, b]) => b.left - a.left);
}"""


@pytest.mark.parametrize("place", [".verdict", ".about", "main .intro", "pre code"])
def test_a_name_that_turns_the_direction_does_not_turn_what_follows_it(attacked, place):
    steps = attacked.page.locator(place).first.evaluate(STEPS)
    assert len(steps) > 3
    assert all(step > 0 for step in steps)


def test_hostile_names_do_not_widen_a_phones_page(open_page, hostile):
    with open_page(hostile, width=390, scheme="dark") as found:
        assert found.sideways() == 0


def test_a_hostile_name_saved_for_a_spreadsheet_is_no_formula(attacked):
    with attacked.page.expect_download() as caught:
        attacked.page.locator("[data-name=table] [data-save=csv]").click()
    text = Path(caught.value.path()).read_text(encoding="utf-8")
    read = [row["name"] for row in csv.DictReader(io.StringIO(text))]
    assert read == [f"'{name}" if name == "=1+1" else name for name in SHOWN]


def test_without_scripts_tables_and_still_pictures_are_there(open_page, plain):
    with open_page(plain, scripts=False) as found:
        assert found.requests == []
        page = found.page
        assert page.locator("img.still").count() == 2
        for still in page.locator("img.still").all():
            assert still.is_visible()
            assert still.bounding_box()["height"] > 100
        assert "7.69 ± 0.10" in page.locator("#table-table").inner_text()
        assert not page.locator("[data-save]").first.is_visible()


def test_on_paper_the_page_is_dark_on_white_with_still_pictures(open_page, plain):
    with open_page(plain, scheme="dark") as found:
        page = found.page
        page.emulate_media(media="print", color_scheme="dark")
        assert all(still.is_visible() for still in page.locator("img.still").all())
        assert not page.locator(".plot svg").first.is_visible()
        assert not page.locator("#save-all").is_visible()
        look = "each => { const s = getComputedStyle(each); return [s.color, s.backgroundColor] }"
        assert page.locator("body").evaluate(look) == ["rgb(28, 31, 35)", "rgb(255, 255, 255)"]
        assert page.pdf().startswith(b"%PDF")


def test_a_page_in_the_dark_draws_the_same_marks_in_other_colours(shown):
    page = shown.page

    def colors():  # of points by the chart itself, of lines by the page's look
        drawn = page.locator("#chart-points .mark-symbol path, #chart-lines .mark-line path")
        return [mark.get_attribute("stroke") for mark in drawn.all()]

    def redrawn(scheme, where):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_selector(f"#chart-points .mark-symbol path{where}", state="attached")
        page.wait_for_selector(DRAWN, state="attached")
        return colors()

    light, marks = colors(), shown.marks("points")
    first = f"[stroke='{light[0]}']"
    assert set(redrawn("dark", f":not({first})")).isdisjoint(light)
    assert shown.marks("points") == marks
    assert redrawn("light", first) == light
