"""Random changes to training images, each a function of (seed, epoch, sample) and nothing else."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

DRAWS = 3  # row, column, flip: drawn for every in-memory augmentation, so that all share them


@dataclass(frozen=True)
class Augment:
    """What happens to a training image.

    Args:
        pad_crop: pad with zeros by an eighth of each side (4 pixels for 32), crop at random.
        resized_crop: crop 8 to 100 % of the area at random, resize. Needs the original image.
        flip: mirror left and right with probability ½.
    """

    pad_crop: bool = False
    resized_crop: bool = False
    flip: bool = False

    def apply(self, images: Tensor, draws: NDArray[np.float64]) -> Tensor:
        """Return augmented ``images``, uint8 (B, C, H, W), given ``draws`` in [0, 1) (B, DRAWS)."""
        if self.pad_crop:
            images = _pad_crop(images, draws[:, 0], draws[:, 1])
        if self.flip:
            mirrored = torch.from_numpy(draws[:, 2] < 0.5)[:, None, None, None]
            images = torch.where(mirrored, images.flip(-1), images)
        return images

    def apply_original(self, image: Image.Image, size: int) -> Image.Image:
        """Return one original ``image`` at ``size``; draws from torch's current generator."""
        from torchvision import transforms  # deferred: images in memory never need it

        mirrored = self.flip and bool(torch.rand(()) < 0.5)
        cropped: Image.Image = transforms.RandomResizedCrop(size)(image)
        return ImageOps.mirror(cropped) if mirrored else cropped


AUGMENTS: dict[str, Augment] = {
    "none": Augment(),
    "pad-crop": Augment(pad_crop=True),
    "pad-crop-flip": Augment(pad_crop=True, flip=True),
    "resized-crop-flip": Augment(resized_crop=True, flip=True),
}


def _pad_crop(images: Tensor, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Tensor:
    batch, channels, height, width = images.shape
    top, left = height // 8, width // 8
    padded = np.zeros((batch, channels, height + 2 * top, width + 2 * left), np.uint8)
    padded[:, :, top : top + height, left : left + width] = images.numpy()
    # every crop as a view, (B, C, offsets, offsets, H, W); the index copies one crop a sample
    crops = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    row = (rows * (2 * top + 1)).astype(np.intp)
    column = (columns * (2 * left + 1)).astype(np.intp)
    return torch.from_numpy(crops[np.arange(batch), :, row, column])
