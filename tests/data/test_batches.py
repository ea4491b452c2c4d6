import pytest
import torch

from normattn.data import eval_batches, steps_per_epoch, to_float, train_batches
from normattn.data.splits import MemorySplit
from normattn.errors import ConfigError

N = 103
SPLIT = MemorySplit(
    torch.randint(0, 256, (N, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator()),
    torch.arange(N) % 7,
)


def read(**changes):
    settings = {"batch_size": 10, "seed": 0, "epoch": 0, "augment": "pad-crop-flip"}
    return list(train_batches(SPLIT, **{**settings, **changes}))


def by_index(batches):
    return {
        int(index): image
        for batch in batches
        for index, image in zip(batch.indices, batch.images, strict=True)
    }


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b)
        for x, y in zip(first, second, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_an_epoch_holds_every_sample_at_most_once_and_drops_the_last_incomplete_batch():
    batches = read()
    indices = torch.cat([batch.indices for batch in batches])
    assert len(batches) == steps_per_epoch(SPLIT, 10) == 10
    assert len(indices.unique()) == 100
    assert torch.equal(torch.cat([batch.labels for batch in batches]), SPLIT.labels[indices])
    assert batches[0].images.dtype == torch.uint8
    assert batches[0].images.is_contiguous()


def test_the_same_keys_give_the_same_batches_and_other_keys_others():
    assert same(read(), read())
    assert not same(read(), read(epoch=1))
    assert not same(read(), read(seed=1))


def test_the_global_generator_has_no_say_and_is_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = read()
    assert torch.equal(torch.rand(2), expected)
    assert same(first, read())


def test_an_epoch_resumes_at_any_batch_to_the_same_bytes():
    whole = read()
    for start in (0, 1, 7, 10):
        assert same(read(start=start), whole[start:])


@pytest.mark.parametrize(
    "changes", [{"batch_size": 7}, {"batch_size": 25}, {"augment": "pad-crop"}]
)
def test_a_sample_s_crop_depends_neither_on_the_batch_size_nor_on_its_neighbours(changes):
    augment = {"augment": changes.get("augment", "pad-crop-flip")}
    reference, other = by_index(read(**augment)), by_index(read(**changes))
    common = reference.keys() & other.keys()
    assert len(common) > 90
    assert all(torch.equal(reference[index], other[index]) for index in common)


@pytest.mark.parametrize("world", [2, 5])
def test_ranks_share_each_global_batch_and_change_nothing_else(world):
    whole = read()
    shares = [read(rank=rank, world=world) for rank in range(world)]
    for step, batch in enumerate(whole):
        for rank in range(world):
            share = shares[rank][step]
            assert torch.equal(share.indices, batch.indices[rank::world])
            assert torch.equal(share.images, batch.images[rank::world])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_reads_every_sample_once_over_all_ranks_in_order(world):
    shares = [list(eval_batches(SPLIT, batch_size=10, rank=r, world=world)) for r in range(world)]
    indices = torch.cat([batch.indices for share in shares for batch in share])
    assert torch.equal(indices.sort().values, torch.arange(N))
    for batch in shares[0]:
        assert torch.equal(batch.images, SPLIT.images[batch.indices])


def test_a_rank_without_a_sample_of_the_last_batch_yields_one_less():
    split = MemorySplit(SPLIT.images[:11], SPLIT.labels[:11])
    first, second = (list(eval_batches(split, batch_size=10, rank=r, world=2)) for r in range(2))
    assert (len(first), len(second)) == (2, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch size from 1 to the 103 training images, got 0"),
        ({"batch_size": 104}, "batch size from 1 to the 103 training images, got 104"),
        ({"start": 11}, "start from 0 to the epoch's 10 batches, got 11"),
        ({"start": -1}, "got -1"),
        ({"rank": 2, "world": 2}, "rank from 0 to 1, got 2"),
        ({"world": 3}, "that 3 processes share equally, got 10. Choose a multiple of 3"),
        ({"augment": "pad-crop-flop"}, "Did you mean 'pad-crop-flip'"),
        ({"augment": "resized-crop-flip"}, "for images decoded once .*got resized-crop-flip"),
    ],
)
def test_a_wrong_argument_is_refused_before_the_first_batch(changes, message):
    settings = {"batch_size": 10, "seed": 0, "epoch": 0, "augment": "none"}
    with pytest.raises(ConfigError, match=message):
        train_batches(SPLIT, **{**settings, **changes})


def test_evaluation_refuses_an_impossible_batch_size():
    with pytest.raises(ConfigError, match="1 or more, got 0"):
        eval_batches(SPLIT, batch_size=0)


@pytest.mark.parametrize("channels_last", [False, True])
def test_to_float_restated_by_hand_in_float64(channels_last):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    floats = to_float(SPLIT.images, mean, std, channels_last=channels_last)
    spread = torch.tensor(std).double()[:, None, None]
    expected = (SPLIT.images.double() / 255 - torch.tensor(mean).double()[:, None, None]) / spread
    torch.testing.assert_close(floats.double(), expected, atol=1e-5, rtol=1e-5)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert floats.dtype == torch.float32
    assert floats.is_contiguous(memory_format=layout)


def test_half_precision_rounds_only_the_result():
    exact = to_float(SPLIT.images, (0.5,) * 3, (0.2,) * 3)
    half = to_float(SPLIT.images, (0.5,) * 3, (0.2,) * 3, dtype=torch.bfloat16)
    assert torch.equal(half, exact.bfloat16())


def test_to_float_leaves_the_bytes_as_they_were():
    before = SPLIT.images.clone()
    to_float(SPLIT.images, (0.5,) * 3, (0.2,) * 3)
    assert torch.equal(SPLIT.images, before)
