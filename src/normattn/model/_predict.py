"""``model.predict``: class names and probabilities for images of any kind and size."""

import contextlib
import itertools
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from ..errors import ArtifactError, ConfigError, DataError, Fault, unknown
from ._artifact_images import Preprocessing, separate

if TYPE_CHECKING:
    from PIL import Image

_ATTRIBUTE = "predict"


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model makes of one image.

    Args:
        classes: The name of each output.
        probabilities: Of each, float32 (K,) on the CPU; they add up to 1.
    """

    classes: tuple[str, ...]
    probabilities: Tensor

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.top(1)[0][0]

    @property
    def probability(self) -> float:
        """The probability of `label`."""
        return self.top(1)[0][1]

    def top(self, count: int = 5) -> tuple[tuple[str, float], ...]:
        """Return the most probable classes, each with its probability, the first one first."""
        found = self.probabilities.topk(min(count, len(self.classes)))
        pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return tuple((self.classes[index], value) for index, value in pairs)

    def to_json(self, count: int = 5) -> list[dict[str, str | float]]:
        """Return `top` as plain values: ``class`` and ``probability``."""
        return [{"class": name, "probability": value} for name, value in self.top(count)]

    def __str__(self) -> str:
        return f"{self.label} {100 * self.probability:.1f} %"

    def __repr__(self) -> str:
        return f"Prediction({self.label!r}, {self.probability:.4f})"


class Predictor:
    """``model.predict``: from images to class names and probabilities.

    A plain attribute that `normattn.load` gives to a model, so copies and pickles of the model have
    one of their own, and whatever is done to the model in place is what it uses.

    Args:
        model: The model; it stays on its device, and in its mode.
        classes: The name of each output, or None, which refuses to predict.
        given: The preprocessing as saved, or None, likewise.
        slimming: What was removed from the model, for the next artifact.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: tuple[str, ...] | None,
        given: Mapping[str, Any] | None,
        slimming: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.classes, self.given = model, classes, given
        self.slimming, self.parameters = slimming, count_parameters(model)

    @overload
    def __call__(
        self, images: "str | Path | Image.Image", *, batch_size: int = ...
    ) -> Prediction: ...
    @overload
    def __call__(self, images: Any, *, batch_size: int = ..., on_bad_image: str = ...) -> Any: ...

    def __call__(
        self, images: Any, *, batch_size: int = 64, on_bad_image: str = "stop"
    ) -> Prediction | list[Prediction | None] | None:
        """Return what the model makes of an image, or of each of several.

        Images are decoded, turned upright, resized and cropped at the centre, and normalised, as
        those that the model was evaluated on. Files are read a batch at a time.

        Args:
            images: One image: a path, a PIL image, a uint8 tensor (C, H, W) or (H, W), or a uint8
                array (H, W, C) or (H, W), of 1, 3 or 4 channels. Or several: a list or any other
                iterable of these, a tensor (B, C, H, W) or an array (B, H, W, C).
            batch_size: Images that go through the model together.
            on_bad_image: "stop" raises at an image that cannot be read; "skip" puts None in its
                place.

        Raises:
            ArtifactError: the model was saved without classes or preprocessing, or they are not
                the model's.
            DataError: an image is missing or damaged, or is none; names it.
            ConfigError: an argument is none of those.
        """
        classes, wanted = self._require_description()
        if on_bad_image not in ("stop", "skip"):
            raise ConfigError(unknown("predict", "on_bad_image", on_bad_image, ["stop", "skip"]))
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"predict: expected a batch_size of 1 or more, got {batch_size!r}.")
        single, several = separate(images)
        found: list[Prediction | None] = []
        with _evaluating(self.model), torch.inference_mode():
            while part := list(itertools.islice(several, batch_size)):
                read = [_read(wanted, image, name, on_bad_image) for name, image in part]
                good = [pixels for pixels in read if pixels is not None]
                probabilities = iter(self._probabilities(good, classes, wanted) if good else ())
                for pixels in read:
                    answer = None if pixels is None else Prediction(classes, next(probabilities))
                    found.append(answer)
        return found[0] if single else found

    def __repr__(self) -> str:
        count = len(self.classes) if self.classes else "no"
        return f"Predictor({count} classes)"

    def _require_description(self) -> tuple[tuple[str, ...], Preprocessing]:
        lacking = [n for n in ("classes", "given") if getattr(self, n) is None]
        if lacking or self.classes is None or self.given is None:
            names = " and ".join(lacking).replace("given", "preprocessing")
            raise ArtifactError(
                f"predict: expected a model saved with classes and preprocessing, got one without "
                f"{names}. Save it again with both: normattn.save(model, path, classes=..., "
                "preprocessing=...)."
            )
        return self.classes, Preprocessing.parse(self.given, "predict")

    def _probabilities(
        self, images: list[Tensor], classes: tuple[str, ...], wanted: Preprocessing
    ) -> Tensor:
        first = next((p for p in self.model.parameters() if p.is_floating_point()), torch.empty(0))
        logits = self.model(wanted.normalise(torch.stack(images), first.device, first.dtype))
        if not isinstance(logits, Tensor) or logits.shape != (len(images), len(classes)):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ArtifactError(
                f"predict: expected one output for each of the {len(classes)} classes that the "
                f"model was saved with, got outputs of shape {got}. Save it with its classes."
            )
        probabilities = logits.float().softmax(1).cpu()
        if not probabilities.isfinite().all():
            raise Fault(
                f"predict: expected finite outputs, got NaN or infinity in {first.dtype}. "
                "Try the model in float32: model.float()."
            )
        return probabilities


def attach(
    model: nn.Module,
    classes: tuple[str, ...] | None,
    given: Mapping[str, Any] | None,
    slimming: Mapping[str, Any] | None,
) -> None:
    """Give ``model`` its ``predict``; see `Predictor`."""
    if hasattr(type(model), _ATTRIBUTE):
        warnings.warn(
            f"load: {type(model).__name__} has a method {_ATTRIBUTE} of its own, which stays; "
            "class names and preprocessing are in normattn.model.artifact.read_info(path).",
            stacklevel=3,
        )
        return
    setattr(model, _ATTRIBUTE, Predictor(model, classes, given, slimming))


def attached(model: nn.Module) -> Predictor | None:
    """Return what `attach` gave a model, if it did."""
    found = getattr(model, _ATTRIBUTE, None)
    return found if isinstance(found, Predictor) else None


def count_parameters(model: nn.Module) -> int:
    """Return how many numbers a model learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def _read(wanted: Preprocessing, image: Any, name: str, on_bad_image: str) -> Tensor | None:
    try:
        return wanted.read(image, name)
    except DataError:
        if on_bad_image == "stop":
            raise
        return None


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode while inside; afterwards each module is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
