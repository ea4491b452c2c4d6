"""Which channels go, in one plan or in several, each for what the last one left."""

import pytest
import torch

from normattn.model._groups import Group
from normattn.model._slim_choice import Choice

FIRST = {"narrow": 16, "middle": 40, "wide": 64, "pairs": 48}


def groups(widths, pairs=2):
    found = []
    for name, width in widths.items():
        size = pairs if name == "pairs" else 1
        unit = tuple(tuple(range(i, i + size)) for i in range(0, width, size))
        found.append(Group(name, width, unit, (), False))
    return found


def choice(widths, first=None, *, across="group", round_to=8, least=1 / 8):
    scores = {name: torch.arange(float(width)) for name, width in widths.items()}
    return Choice(groups(widths), scores, across, round_to, least, first)


def left(made, fraction, widths):
    return {name: widths[name] - len(gone) for name, gone in made.removed(fraction).items()}


@pytest.mark.parametrize("across", ["group", "model"])
@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("way", [(0.3, 0.5), (0.2, 0.4, 0.6), (0.5, 0.6, 0.7, 0.9), (0.9, 1.0)])
def test_several_steps_end_where_one_does(way, round_to, across):
    options = {"across": across, "round_to": round_to}
    now = FIRST
    for fraction in way:
        now = left(choice(now, FIRST, **options), fraction, now)
    if across == "group":
        assert now == left(choice(FIRST, **options), way[-1], FIRST)
    assert all(width % 8 == 0 for width in now.values()) or round_to == 1
    assert all(8 * now[name] >= FIRST[name] for name in FIRST)


def test_a_width_that_is_rounded_once_is_not_broken_by_the_next_plan():
    """A group of 8 of 16 channels can get no narrower; one of 8 channels may have any width."""
    assert left(choice({"narrow": 8}, FIRST), 0.75, {"narrow": 8}) == {"narrow": 8}
    assert left(choice({"narrow": 8}), 0.75, {"narrow": 8}) == {"narrow": 2}


def test_the_least_counts_from_the_first():
    now = {"wide": 16}
    assert left(choice(now, FIRST, round_to=1, least=0.25), 1.0, now) == {"wide": 16}
    assert left(choice(now, round_to=1, least=0.25), 1.0, now) == {"wide": 4}


def test_a_width_that_the_first_plan_would_not_have_left_may_stay():
    now = {"narrow": 6}
    assert left(choice(now, FIRST), 0.6, now) == {"narrow": 6}


def test_a_group_that_the_first_plan_does_not_name_counts_from_now():
    now = {"wide": 32, "other": 32}
    assert left(choice(now, FIRST), 0.5, now) == {"wide": 32, "other": 16}


def test_nothing_more_goes_at_the_start_and_something_soon_after():
    now = {"narrow": 16, "wide": 32}
    made = choice(now, FIRST, round_to=1)
    assert made.start == 0
    now = {"narrow": 8, "wide": 32}
    made = choice(now, FIRST, round_to=1)
    assert made.start == 0.5
    assert left(made, 0.5, now) == now
    assert left(made, 0.6, now) == {"narrow": 6, "wide": 26}


def test_a_part_of_what_is_left_is_told_as_a_part_of_the_first():
    made = choice({"narrow": 8, "wide": 32}, FIRST)
    assert made.of_first(0.0) == 0.5
    assert made.of_first(0.5) == 0.75
    assert made.share({"narrow": (0, 1), "wide": (0, 1)}) == 0.1
