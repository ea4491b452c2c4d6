import numpy as np
import pytest
import torch

from normattn.data import keyed


def test_a_key_is_the_same_on_every_machine_and_in_every_version():
    assert keyed.key(0, "order", 3) == 386106667988085106
    assert 0 <= keyed.key("x") < 2**63


@pytest.mark.parametrize("other", [(1, "order", 3), (0, "augment", 3), (0, "order", 4), (0, "3")])
def test_other_parts_give_another_key(other):
    assert keyed.key(*other) != keyed.key(0, "order", 3)


def test_parts_do_not_run_into_each_other():
    assert keyed.key("ab", "c") != keyed.key("a", "bc")
    assert keyed.key(1, 23) != keyed.key(12, 3)
    assert keyed.key("1") != keyed.key(1)


def test_a_permutation_holds_every_number_once_and_follows_its_key():
    order = keyed.permutation(1000, 0, "order", 0)
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(order, keyed.permutation(1000, 0, "order", 0))
    assert not torch.equal(order, keyed.permutation(1000, 0, "order", 1))


def test_a_permutation_neither_reads_nor_moves_the_global_generator():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    keyed.permutation(10, 5)
    assert torch.equal(torch.rand(3), expected)


def test_seeded_draws_follow_the_key_and_leave_no_trace():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with keyed.seeded(1, "host"):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with keyed.seeded(1, "host"):
        assert torch.equal(torch.rand(3), inside)


def test_a_sample_s_numbers_depend_on_its_index_alone():
    all_at_once = keyed.uniforms(torch.arange(100), 3, 0, "augment", 0)
    some = torch.tensor([99, 7, 7, 0])
    assert np.array_equal(keyed.uniforms(some, 3, 0, "augment", 0), all_at_once[some.numpy()])


def test_uniform_numbers_are_uniform_and_uncorrelated():
    numbers = keyed.uniforms(torch.arange(20_000), 3, 0, "augment", 0)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.stack([np.histogram(column, bins=10, range=(0, 1))[0] for column in numbers.T])
    # chi-squared with 9 degrees of freedom: 27.9 is its 99.9 % point
    assert (((counts - 2000) ** 2 / 2000).sum(1) < 27.9).all()
    assert np.abs(np.corrcoef(numbers.T) - np.eye(3)).max() < 0.03
    assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.03


def test_uniform_numbers_restate_splitmix64():
    def splitmix(state):
        mask = 2**64 - 1
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        return state ^ (state >> 31)

    seed, index = keyed.key(0, "augment", 0), 5
    expected = [
        (splitmix((seed + (index * 2 + draw + 1) * 0x9E3779B97F4A7C15) % 2**64) >> 11) / 2**53
        for draw in range(2)
    ]
    assert keyed.uniforms(torch.tensor([index]), 2, 0, "augment", 0)[0].tolist() == expected


def test_no_samples_give_no_numbers():
    assert keyed.uniforms(torch.zeros(0, dtype=torch.int64), 3, 0).shape == (0, 3)
