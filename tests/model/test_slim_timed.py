"""The search for a latency looks at few widths, finds the least, and trusts no short look."""

import pytest

from normattn.model._slim_timed import Timed

CHANNELS, LEAST = 32, 4


class Widths:
    """A choice of one group of 32 channels, of which four stay at least."""

    def __init__(self, step=1, start=0.0):
        self.step, self.start = step, start

    def removed(self, fraction):
        gone = min(CHANNELS - LEAST, round(fraction * CHANNELS / self.step) * self.step)
        return {"group": tuple(range(gone)), "another": ()}


class Clock:
    """Times by how many channels are left; counts what is asked."""

    def __init__(self, seconds, final=None):
        self.seconds, self.longer = seconds, final or seconds
        self.short, self.final = [], []

    def multiply_adds(self, removed):
        return (CHANNELS - len(removed["group"])) ** 2 + 1

    def measure(self, removed, *, final=False):
        gone = len(removed["group"])
        (self.final if final else self.short).append(gone)
        return 1.0, (self.longer if final else self.seconds)(CHANNELS - gone)


def search(clock, speedup, **options):
    timed = Timed(Widths(**options), clock)
    return timed.run(1 / speedup, lambda before, after: before / after >= speedup)


def left(found):
    return CHANNELS - len(found.removed["group"])


TIMES = {
    "as the multiply-adds": lambda left: (left / CHANNELS) ** 2,
    "as the channels": lambda left: left / CHANNELS,
    "half of it overhead": lambda left: 0.3 + 0.7 * (left / CHANNELS) ** 2,
    "in blocks of eight": lambda left: -(-left // 8) * 8 / CHANNELS,
}


@pytest.mark.parametrize("speedup", [1.3, 2, 2.9])
@pytest.mark.parametrize("name", TIMES)
def test_the_least_that_is_enough_is_found_in_few_measurements(name, speedup):
    clock = Clock(TIMES[name])
    found = search(clock, speedup)
    best = max(n for n in range(LEAST, CHANNELS) if TIMES[name](n) <= 1 / speedup)
    assert found.reached
    assert found.before / found.after >= speedup
    assert TIMES[name](left(found)) >= 0.9 * TIMES[name](best)
    assert len(clock.short) == len(set(clock.short)) <= 6
    assert len(clock.final) == 1


def test_the_first_look_is_where_the_multiply_adds_say():
    clock = Clock(TIMES["as the multiply-adds"])
    search(clock, 2)
    assert clock.short[0] == 10  # 22² of 32² are fewer than half


def test_where_few_widths_are_left_each_is_measured_once_at_most():
    clock = Clock(lambda left: left / CHANNELS)
    found = search(clock, 1.5, step=8)
    assert left(found) == 16
    assert sorted(clock.short) == sorted(set(clock.short))
    assert set(clock.short) <= {8, 16, 24, 32}


def test_out_of_reach_is_all_that_may_go_and_its_longer_measurement():
    clock = Clock(lambda left: 0.7 + 0.3 * left / CHANNELS)
    found = search(clock, 2)
    assert not found.reached
    assert left(found) == LEAST
    assert found.after == pytest.approx(0.7375)
    assert len(clock.short) <= 3


def test_more_goes_where_the_longer_measurement_falls_short():
    clock = Clock(lambda left: left / CHANNELS, final=lambda left: 1.1 * left / CHANNELS)
    found = search(clock, 2)
    assert found.reached
    assert found.after == pytest.approx(1.1 * left(found) / CHANNELS)
    assert left(found) <= 14
    assert len(clock.final) <= 5


def test_times_that_make_no_sense_end_the_search_all_the_same():
    clock = Clock(lambda left: 0.6 if left % 2 else 0.4, final=lambda left: 0.6)
    found = search(clock, 2)
    assert not found.reached
    assert len(clock.short) <= 6


def test_a_model_of_which_nothing_may_go_is_measured_as_it_is():
    class Nothing(Widths):
        def removed(self, fraction):
            return {"group": (), "another": ()}

    clock = Clock(lambda left: 1.0)
    found = Timed(Nothing(), clock).run(0.5, lambda before, after: before / after >= 2)
    assert (found.reached, left(found), clock.short) == (False, CHANNELS, [])


def test_the_same_widths_are_not_measured_again():
    clock = Clock(lambda left: 0.5)
    timed = Timed(Widths(), clock)
    removed = timed.candidates[3][1]
    assert timed.measure(removed) == timed.measure(dict(removed)) == (1.0, 0.5)
    timed.measure(removed, final=True)
    assert (len(clock.short), len(clock.final)) == (1, 1)
