"""What an inspection has seen of one model, ready to be shown."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..model.gates import Gates

Map = npt.NDArray[np.float32]  # (H, W)
Pixels = npt.NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True, eq=False)
class Guess:
    """What the model makes of one image.

    Args:
        place: of the image in the validation split.
        pixels: the image as the model sees it, before it is normalised: uint8 (C, H, W).
        truth: its class.
        predicted: the class that the model gives it.
        probability: of that class.
    """

    place: int
    pixels: Tensor
    truth: str
    predicted: str
    probability: float


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its maps.

    Args:
        guess: the image, and what the model makes of it.
        maps: by site, the gate, mean over the channels.
        cam: Grad-CAM of the predicted class, from 0; None where it could not be computed.
    """

    guess: Guess
    maps: dict[str, Map]
    cam: Map | None


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a site that matter most and least, and what they do on some images.

    Args:
        site: the place.
        size: (H, W) of its maps.
        by: what the channels are ranked by, in words.
        chosen: the most salient ones first, then the least salient ones, the very least last.
        most: how many of them are the most salient ones.
        salience: of each chosen one.
        activations: |x · gate|, (images, chosen, H, W).
    """

    site: str
    size: tuple[int, int]
    by: str
    chosen: tuple[int, ...]
    most: int
    salience: tuple[float, ...]
    activations: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Held:
    """What becomes of the predictions when every gate is held at its mean, one number a site.

    Args:
        images: how many images were predicted.
        right: how many the model gets right.
        held_right: how many it gets right with its gates held.
        changed: how many get another class.
    """

    images: int
    right: int
    held_right: int
    changed: int


@dataclass(frozen=True, eq=False)
class Inspected:
    """One model.

    Args:
        name: what to call it.
        gates: over the images.
        held: what the gates' movement is worth.
        mistakes: the wrong predictions with the highest probability, that one first.
        samples: images with maps; () where another model of the run shows them.
        channels: by stage.
        data: what the images are.
        notes: what could not be shown, in sentences.
    """

    name: str
    gates: Gates
    held: Held
    mistakes: tuple[Guess, ...]
    samples: tuple[Sample, ...] = ()
    channels: tuple[Channels, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> tuple[str, ...]:
        """What the gates do, and what their movement is worth, in sentences."""
        held = self.held
        said = (
            f"With every gate held at its mean, {held.changed:,} of {held.images:,} predictions "
            f"change: top-1 accuracy is {100 * held.held_right / held.images:.2f} % instead of "
            f"{100 * held.right / held.images:.2f} %."
        )
        return (*self.gates.summary, said)
