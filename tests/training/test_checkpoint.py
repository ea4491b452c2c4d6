"""The state on disk: plain, checked, and never fewer than one good generation."""

import pytest
import torch

from normattn.errors import RunError
from normattn.training.checkpoint import PREVIOUS, STATE, Saver, read_state, write_state
from normattn.training.distributed import Ranks


def state(number):
    return {"step": number, "weights": torch.full((100,), float(number)), "list": [None, {"a": 1}]}


def fail(text):
    raise AssertionError(text)


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def test_the_last_state_comes_back(tmp_path):
    for number in (1, 2, 3):
        write_state(tmp_path, state(number))
    again = read_state(tmp_path, note=fail)
    assert again["step"] == 3
    assert torch.equal(again["weights"], state(3)["weights"])
    assert again["list"] == [None, {"a": 1}]


def test_no_state_is_none(tmp_path):
    assert read_state(tmp_path, note=fail) is None


def test_it_is_a_plain_torch_file_without_objects(tmp_path):
    write_state(tmp_path, state(1))
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 1


# the archive's head · the middle of a tensor · the checksum
@pytest.mark.parametrize("at", [2, 700, -1])
def test_a_flipped_bit_sends_us_to_the_generation_before(tmp_path, at):
    write_state(tmp_path, state(1))
    write_state(tmp_path, state(2))
    flip(tmp_path / STATE, at)
    notes = []
    assert read_state(tmp_path, notes.append)["step"] == 1
    assert "damaged" in notes[0]
    assert str(tmp_path / STATE) in notes[0]


@pytest.mark.parametrize("length", [0, 10, 1000])
def test_a_truncated_state_sends_us_to_the_generation_before(tmp_path, length):
    write_state(tmp_path, state(1))
    write_state(tmp_path, state(2))
    (tmp_path / STATE).write_bytes((tmp_path / STATE).read_bytes()[:length])
    assert read_state(tmp_path, note=[].append)["step"] == 1


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    write_state(tmp_path, state(1))
    (tmp_path / STATE).rename(tmp_path / PREVIOUS)
    assert read_state(tmp_path, note=fail)["step"] == 1


def test_two_damaged_generations_are_refused_not_trained_over(tmp_path):
    write_state(tmp_path, state(1))
    write_state(tmp_path, state(2))
    flip(tmp_path / STATE, 700)
    flip(tmp_path / PREVIOUS, 700)
    with pytest.raises(RunError, match="Remove both to train anew"):
        read_state(tmp_path, note=[].append)


def test_a_foreign_pickle_is_not_opened(tmp_path):
    (tmp_path / STATE).write_bytes(b"\x80\x04cos\nsystem\n" + b"0" * 100)
    with pytest.raises(RunError, match="checksums"):
        read_state(tmp_path, note=fail)


def test_what_a_kill_left_half_written_is_swept_away(tmp_path):
    write_state(tmp_path, state(1))
    (tmp_path / f".{STATE}.abc123").write_bytes(b"half")
    Saver(tmp_path, 300, Ranks(torch.device("cpu")))
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


def test_a_damaged_state_never_replaces_the_whole_one_before_it(tmp_path):
    """A kill between the two renames of the next save must leave a whole generation."""
    write_state(tmp_path, state(1))
    write_state(tmp_path, state(2))
    flip(tmp_path / STATE, 100)
    write_state(tmp_path, state(3))
    (tmp_path / STATE).unlink()
    assert read_state(tmp_path, note=fail)["step"] == 1
