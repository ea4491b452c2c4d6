"""Images in, uint8 batches out; order and augmentation are functions of their keys."""

from .augment import AUGMENTS, Augment
from .batches import eval_batches, steps_per_epoch, to_float, train_batches
from .imagedata import ImageData
from .opening import open_data
from .splits import Batch, Split

__all__ = [
    "AUGMENTS",
    "Augment",
    "Batch",
    "ImageData",
    "Split",
    "eval_batches",
    "open_data",
    "steps_per_epoch",
    "to_float",
    "train_batches",
]
