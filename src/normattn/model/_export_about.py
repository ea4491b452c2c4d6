"""What an exported file says about itself: whoever has it alone can prepare images for it."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, UnsupportedModel
from ._predict import attached


def describe_model(
    model: nn.Module,
    images: Tensor,
    classes: Sequence[str] | None,
    preprocessing: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the version, the classes and the preprocessing, as given or as the model knows them.

    Raises:
        ConfigError: the images are not what the preprocessing makes.
    """
    loaded = attached(model)
    if loaded is not None:
        classes = loaded.classes if classes is None else classes
        preprocessing = loaded.given if preprocessing is None else preprocessing
    known = dict(preprocessing or {})
    size = list(images.shape[1:])
    if list(known.get("input_size", size)) != size:
        raise ConfigError(
            f"export: expected images of shape {tuple(known['input_size'])}, as the preprocessing "
            f"says, got {tuple(size)}. Prepare the data as for the model's training."
        )
    known["input_size"] = size
    names = {} if classes is None else {"classes": list(classes)}
    return {"normattn": metadata.version("normattn"), **names, **known}


def check_output(folded: nn.Module, images: Tensor, about: Mapping[str, Any]) -> None:
    """Refuse a model that is no classifier, or has another number of outputs than names.

    Raises:
        UnsupportedModel: its output is not ``(B, classes)``.
        ConfigError: there are more or fewer names.
    """
    with torch.no_grad():
        output = folded(images[:1])
    if not isinstance(output, Tensor) or output.ndim != 2:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UnsupportedModel(
            f"export: expected a classifier, whose output is (B, classes), got {got}. Export it "
            "with torch.onnx.export, after normattn.fold."
        )
    names = about.get("classes")
    if names is not None and len(names) != output.shape[1]:
        raise ConfigError(
            f"export: expected a name for each of the {output.shape[1]} outputs, got {len(names)}. "
            "Give the classes that the model was trained on."
        )
