"""The pages of a slimming and of removal curves, in a browser, over layers with hostile names."""

import pytest
from browsing import opened
from written_pages import SHOWN
from written_slims import ACCURACY, FRACTIONS, REMOVED, WIDTHS, write_salience, write_slim

from normattn.comparison._page_charts import printable
from normattn.comparison._removal_records import LEAST, MOST, RANDOM
from normattn.comparison._removal_report import write_removal
from normattn.comparison.slimmed_page import write_slimmed


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return {
        "slim": write_slimmed(write_slim(folder / "slim")),
        "salience": write_removal(write_salience(folder / "salience")),
    }


@pytest.fixture(scope="module")
def slimmed(browser, pages):
    with opened(browser, pages["slim"], width=390) as found:
        yield found


@pytest.fixture(scope="module")
def removed(browser, pages):
    with opened(browser, pages["salience"], width=390, scheme="dark") as found:
        yield found


@pytest.mark.parametrize("name", ["slimmed", "removed"])
def test_the_page_opens_on_a_phone_without_error_request_or_anything_run(name, request):
    found = request.getfixturevalue(name)
    assert found.errors == []
    assert found.requests == []
    assert not found.ran()
    assert found.sideways() == 0
    assert found.findings() == []
    assert found.page.locator("img:not([src^='data:image/'])").count() == 0


def test_every_layer_has_a_bar_for_its_width_before_and_after(slimmed):
    bars = slimmed.marks("widths", "rect")
    assert len(bars) == 2 * len(WIDTHS)
    expected = {
        (printable(name), side): width
        for name, both in WIDTHS.items()
        for side, width in zip(("before", "after"), both, strict=True)
    }
    assert {(bar["layer"], bar["side"]): bar["outputs"] for bar in bars} == expected


def test_every_round_has_its_accuracy_before_and_after_fine_tuning(slimmed):
    points = slimmed.marks("accuracy-over-rounds", "symbol")
    found = {(p["round"], p["what"]): p["accuracy"] for p in points}
    expected = {(0, "fine-tuned"): 92.5}
    for number, (before, after) in ACCURACY.items():
        expected |= {(number, "channels removed"): before, (number, "fine-tuned"): after}
    assert len(points) == len(expected)
    assert found == pytest.approx(expected)


def test_every_epoch_of_fine_tuning_is_a_point_counted_over_the_rounds(slimmed):
    points = slimmed.marks("error-curves", "symbol")
    found = {(p["epoch"], p["split"]): p["value"] for p in points}
    assert len(points) == len(found) == 12
    assert found[6, "validation"] == pytest.approx(100 - 88.75)
    assert found[1, "training"] == pytest.approx(100 - 91.25 + 2 - 1)


def test_the_tables_hold_every_name_as_text(slimmed, removed):
    groups = slimmed.page.locator("#table-plan tbody th > span").all_text_contents()
    assert groups == list(SHOWN)
    text = removed.page.locator("main").text_content()
    for name in (SHOWN[1], SHOWN[3], SHOWN[5], SHOWN[6]):
        assert name in text


@pytest.mark.parametrize(("chart", "criterion"), [("curves-1", "bn-scale"), ("curves-2", "nam")])
def test_every_order_of_removal_has_its_points(removed, chart, criterion):
    points = removed.marks(chart, "symbol")
    found = {}
    for point in points:
        found.setdefault(point["order"], {})[point["removed"]] = point["accuracy"]
    shares = [0.0, *(100 * fraction for fraction in FRACTIONS)]
    draws = [REMOVED[RANDOM, draw] for draw in (0, 1)]
    means = [sum(values) / 2 for values in zip(*draws, strict=True)]
    assert len(points) == 3 * len(shares)
    for order, values in (
        ("least salient first", REMOVED[LEAST, criterion]),
        ("random (and its range)", means),
        ("most salient first", REMOVED[MOST, criterion]),
    ):
        assert found[order] == pytest.approx(dict(zip(shares, (92.5, *values), strict=True)))
