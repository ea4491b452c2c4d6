"""Statistics against numbers worked by hand and against scipy."""

import itertools
import math
from pathlib import Path

import pytest
from scipy import stats

from normattn.comparison.protocol import Protocol
from normattn.comparison.records import RunRecords, TrialRecord
from normattn.comparison.statistics import estimate, holm, paired_difference, summarise
from normattn.training import recipe


def run(errors: dict[str, list[float | None]], **options) -> RunRecords:
    """A run in which every trial is done; ``None`` is a trial that was not begun."""
    seeds = tuple(range(max(len(values) for values in errors.values())))
    protocol = Protocol(
        data="digits",
        host="resnet20",
        mechanisms=tuple(errors),
        seeds=seeds,
        recipe=recipe("quick"),
        **options,
    )
    trials = tuple(
        TrialRecord(mechanism, seed, "missing")
        if value is None
        else TrialRecord(mechanism, seed, "done", {"top1_error": value, "loss": value / 10})
        for mechanism, values in errors.items()
        for seed, value in enumerate(values)
    )
    return RunRecords(Path("run"), protocol, trials)


def verdicts(errors: dict[str, list[float | None]], baseline: str) -> dict[str, str]:
    rows = summarise(run(errors)).rows
    return {r.mechanism: r.differences[baseline].verdict for r in rows if baseline in r.differences}


def test_an_interval_is_the_t_interval_worked_by_hand():
    # mean 3, s = sqrt((4 + 0 + 4) / 2) = 2, t(0.975, 2) = 4.302653, ± 4.302653 * 2 / sqrt 3
    found = estimate([1.0, 3.0, 5.0])
    assert (found.n, found.mean, found.std) == (3, 3.0, 2.0)
    assert found.low == pytest.approx(3 - 4.968276)
    assert found.high == pytest.approx(3 + 4.968276)


def test_a_single_value_has_no_spread():
    found = estimate([7.0])
    assert (found.n, found.mean, found.std, found.low, found.high) == (1, 7.0, None, None, None)


def test_the_order_of_the_values_does_not_change_a_bit():
    values = [0.1, 1e-9, 33.3, 0.7, 12.1]
    assert len({estimate(list(order)) for order in itertools.permutations(values)}) == 1


def test_holm_agrees_with_numbers_worked_by_hand():
    # Sorted 0.01 0.02 0.03 0.04 times 4 3 2 1: 0.04 0.06 0.06 0.04, and the last is lifted.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_a_paired_difference_is_scipys_paired_test():
    ours, base = [30.1, 29.8, 31.0, 30.4], [31.0, 30.2, 31.9, 30.5]
    found = paired_difference("none", dict(enumerate(ours)), dict(enumerate(base)))
    expected = stats.ttest_rel(ours, base)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx(-0.575)


def test_only_common_seeds_are_paired():
    found = paired_difference("none", {0: 1.0, 1: 2.5, 3: 9.0}, {1: 2.0, 2: 5.0, 3: 8.0})
    assert (found.seeds, found.n, found.mean) == ((1, 3), 2, 0.75)


def test_a_clear_gain_is_better_and_a_clear_loss_is_worse():
    errors = {"none": [30.0, 31.0, 32.0], "se": [28.0, 29.1, 29.9], "bam": [33.0, 34.1, 34.9]}
    assert verdicts(errors, "none") == {"se": "better", "bam": "worse"}


def test_a_difference_within_the_noise_is_not_distinguishable():
    errors = {"none": [30.0, 31.0, 32.0], "se": [29.0, 32.5, 31.0]}
    assert verdicts(errors, "none") == {"se": "not distinguishable with n=3"}


def test_what_is_significant_alone_need_not_be_in_a_family_of_many():
    base, gain = [30.0, 31.0, 32.0], [28.9, 29.5, 31.2]
    alone = verdicts({"none": base, "se": gain}, "none")
    noisy = {name: [30.0 + k, 31.0 - k, 32.5] for k, name in enumerate(("cbam", "bam", "ean"), 1)}
    family = verdicts({"none": base, "se": gain, **noisy}, "none")
    assert (alone["se"], family["se"]) == ("better", "not distinguishable with n=3")


def test_one_seed_gives_no_verdict_and_no_interval():
    row = summarise(run({"none": [30.0], "se": [20.0]})).rows[1]
    difference = row.differences["none"]
    assert difference.verdict == "one seed: no verdict"
    assert (difference.mean, difference.low, difference.p, difference.p_holm) == (-10, *[None] * 3)


def test_without_a_common_seed_there_is_no_verdict():
    assert verdicts({"none": [30.0, None], "se": [None, 29.0]}, "none") == {
        "se": "no common seed: no verdict"
    }


def test_equal_results_are_called_identical():
    assert verdicts({"none": [30.0, 31.0], "se": [30.0, 31.0]}, "none") == {
        "se": "identical results"
    }


def test_a_difference_that_never_varies_has_no_p_and_says_so():
    errors = {"none": [0.3, 1.1, 30.7], "se": [0.4, 1.2, 30.8]}  # 0.1 each, up to rounding
    difference = summarise(run(errors)).rows[1].differences["none"]
    assert difference.p is None
    assert "the same difference with every seed" in difference.verdict
    assert difference.mean == pytest.approx(0.1)


def test_half_is_compared_to_none_but_none_not_again_to_half():
    errors = {"none": [30.0, 31.0], "half": [30.5, 31.2], "se": [29.0, 30.9]}
    rows = {row.mechanism: row for row in summarise(run(errors)).rows}
    assert {name: set(row.differences) for name, row in rows.items()} == {
        "none": set(),
        "half": {"none"},
        "se": {"none", "half"},
    }


def test_a_run_without_baselines_still_has_means():
    summary = summarise(run({"se": [30.0, 31.0], "bam": [29.0, 28.0]}))
    assert summary.baselines == ()
    assert [row.metrics["top1_error"].mean for row in summary.rows] == [30.5, 28.5]


def test_a_value_that_is_not_finite_is_left_out_and_named():
    summary = summarise(run({"none": [30.0, math.nan, 32.0], "se": [29.0, 30.0, 31.5]}))
    none, se = summary.rows
    assert (none.seeds, none.metrics["top1_error"].mean) == ((0, 2), 31.0)
    assert se.differences["none"].seeds == (0, 2)
    assert any("none, seed 1: top1_error is nan" in note for note in summary.notes)


def test_a_metric_that_no_trial_has_is_none_without_a_note():
    summary = summarise(run({"none": [30.0, 31.0]}))
    assert summary.rows[0].metrics["top5_error"] is None
    assert not any("top5" in note for note in summary.notes)


def test_the_order_of_the_trials_does_not_matter():
    records = run(
        {"none": [30.0, 31.0, 32.0], "half": [29.0, 31.5, 30.0], "se": [28.0, 29.1, 29.9]}
    )
    turned = RunRecords(records.folder, records.protocol, records.trials[::-1])
    assert summarise(turned).rows == summarise(records).rows


def test_costs_come_from_the_profile_and_parameters_from_the_trial_without_one():
    records = run({"none": [30.0]})
    profile = {
        "mechanisms": {"none": {"parameters": 7, "macs": 8.0, "paper_macs": 9.0}},
        "latency": {"1": {"none": {"median": 0.5, "p20": 0.4, "p80": 0.6}}},
    }
    row = summarise(RunRecords(records.folder, records.protocol, records.trials, profile)).rows[0]
    assert (row.parameters, row.macs, row.paper_macs, row.latency) == (7, 8.0, 9.0, {1: 0.5})
    trial = TrialRecord("none", 0, "done", {"top1_error": 1.0}, details={"parameters": 5})
    row = summarise(RunRecords(records.folder, records.protocol, (trial,))).rows[0]
    assert (row.parameters, row.macs, row.latency) == (5, None, {})


def test_failed_trials_stand_in_their_row():
    records = run({"none": [30.0]})
    trial = TrialRecord("none", 0, "failed", reason="no memory")
    row = summarise(RunRecords(records.folder, records.protocol, (trial,))).rows[0]
    assert (row.n, row.metrics["top1_error"], row.failed) == (0, None, ((0, "no memory"),))
