import numpy as np
import pytest
import torch

from normattn.data import AUGMENTS, keyed
from normattn.data.augment import DRAWS

IMAGES = torch.randint(1, 256, (200, 3, 32, 24), dtype=torch.uint8, generator=torch.Generator())
NUMBERS = keyed.uniforms(torch.arange(200), DRAWS, 0)


def by_hand(image: torch.Tensor, numbers: np.ndarray, flip: bool) -> torch.Tensor:
    """Crop one image of its zero-padded self, then mirror it."""
    _, height, width = image.shape
    top, left = height // 8, width // 8
    padded = torch.nn.functional.pad(image, (left, left, top, top))
    row, column = int(numbers[0] * (2 * top + 1)), int(numbers[1] * (2 * left + 1))
    crop = padded[:, row : row + height, column : column + width]
    return crop.flip(2) if flip and numbers[2] < 0.5 else crop


@pytest.mark.parametrize(("name", "flip"), [("pad-crop", False), ("pad-crop-flip", True)])
def test_pad_crop_restated_by_hand_for_each_image(name, flip):
    expected = torch.stack([by_hand(i, n, flip) for i, n in zip(IMAGES, NUMBERS, strict=True)])
    assert torch.equal(AUGMENTS[name].apply(IMAGES, NUMBERS), expected)


def test_none_changes_nothing():
    assert torch.equal(AUGMENTS["none"].apply(IMAGES, NUMBERS), IMAGES)


def test_augmenting_leaves_the_original_images_as_they_were():
    before = IMAGES.clone()
    AUGMENTS["pad-crop-flip"].apply(IMAGES, NUMBERS)
    assert torch.equal(IMAGES, before)


def test_every_offset_and_both_directions_occur():
    ramp = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 1, 8, 8).repeat(2000, 1, 1, 1)
    numbers = keyed.uniforms(torch.arange(2000), DRAWS, 1)
    seen = {image.numpy().tobytes() for image in AUGMENTS["pad-crop-flip"].apply(ramp, numbers)}
    assert len(seen) == 3 * 3 * 2
    seen = {image.numpy().tobytes() for image in AUGMENTS["pad-crop"].apply(ramp, numbers)}
    assert len(seen) == 3 * 3


def test_images_too_small_to_pad_are_only_mirrored():
    tiny = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 2, 2)
    flipped = AUGMENTS["pad-crop-flip"].apply(tiny, np.array([[0.9, 0.9, 0.1]]))
    assert flipped.flatten().tolist() == [1, 0, 3, 2]
