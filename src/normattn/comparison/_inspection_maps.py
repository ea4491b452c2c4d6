"""Where a model looks: the gates over the pixels of single images, Grad-CAM beside them."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..attention import Gate
from ..model._discovery import _quietly
from ..model._gates_sites import Place, places
from ..model._gates_watch import Onlooker, gate_values
from ..model.fuse import plain
from ._inspection_images import BATCH, Look, guesses
from ._inspection_records import Channels, Map, Sample

#: Images, a batch of them, that the salience of channels without importance of their own is over.
PROBES = BATCH
CHANNELS = 4  # of the most, and of the least salient ones
SHOWN = 3  # images beside channels
STAGES = 5
CAPTUM = "pip install 'normattn[inspect]'"

Found = tuple[tuple[Sample, ...], tuple[Channels, ...], tuple[str, ...]]


def looks(model: nn.Module, look: Look) -> Found:
    """Return images with maps, channels with activations, and what could not be made of them."""
    which = look.shown(PROBES)
    batch = next(look.batches(which))
    inputs = look.inputs(batch.images, model)
    seen = Seen(model)
    with _quietly(model), plain(model):
        with torch.no_grad(), seen.watching():
            logits = model(inputs)
        probabilities = logits.float().softmax(1).cpu()
        shown = torch.arange(min(look.images, len(which)))
        cams, notes = grad_cam(model, inputs[shown], probabilities[shown].argmax(1))
    stages = seen.stages()
    found = guesses(batch, probabilities, look.data.classes, shown)
    samples = tuple(
        Sample(
            guess,
            {place.site: seen.maps[place.gate][row] for place in stages},
            None if cams is None else cams[row],
        )
        for row, guess in enumerate(found)
    )
    return samples, tuple(seen.channels(place) for place in stages), notes


class Seen:
    """Gates of some images, by their place."""

    def __init__(self, model: nn.Module) -> None:
        self.places, _ = places(model)
        self.maps: dict[Gate, list[Map]] = {}
        self._strength: dict[Gate, Tensor] = {}
        self._first: dict[Gate, Tensor] = {}

    def watching(self) -> Onlooker:
        """Return hooks that look on while the model runs."""
        return Onlooker([place.gate for place in self.places], self._see)

    def _see(self, gate: Gate, x: Tensor) -> None:
        values = gate_values(gate, x)
        passed = (x * values).abs()
        self.maps.pop(gate, None)  # the last call counts, and is the latest in the model
        self.maps[gate] = [image.float().cpu().numpy() for image in values.mean(1)]
        self._strength[gate] = passed.mean((0, 2, 3)).float().cpu()
        self._first[gate] = passed[:SHOWN].float().cpu()

    def stages(self) -> list[Place]:
        """Return the last gate of each size of map, in the order of the model; the last few."""
        by_size: dict[tuple[int, ...], Place] = {}
        for gate, maps in self.maps.items():
            place = next(place for place in self.places if place.gate is gate)
            by_size.pop(maps[0].shape, None)
            by_size[maps[0].shape] = place
        return list(by_size.values())[-STAGES:]

    def channels(self, place: Place) -> Channels:
        """Return the channels of a gate that matter most and least."""
        salience, by = self._salience(place.gate)
        order = salience.argsort(descending=True, stable=True).tolist()
        few = min(CHANNELS, len(order) // 2) or 1
        chosen = order[:few] + (order[-few:] if len(order) > 1 else [])
        first = self._first[place.gate]
        return Channels(
            site=place.site,
            size=(first.shape[2], first.shape[3]),
            by=by,
            chosen=tuple(chosen),
            most=few,
            salience=tuple(salience[chosen].tolist()),
            activations=first[:, chosen].numpy(),
        )

    def _salience(self, gate: Gate) -> tuple[Tensor, str]:
        """Return each channel's importance to the mechanism itself, or how much it lets by."""
        weighted = getattr(gate, "channel", gate)  # NAM's channel part
        importance = getattr(weighted, "importance", None)
        if isinstance(weighted, Gate) and callable(importance):
            values: Tensor = importance().detach().float().cpu().abs()
            if len(values) == gate.channels:
                return values, "the mechanism's own importance"
        return self._strength[gate], "the mean of |x · gate|"


def grad_cam(
    model: nn.Module, inputs: Tensor, classes: Tensor
) -> tuple[Sequence[Map] | None, tuple[str, ...]]:
    """Return Grad-CAM of these classes at the last layer with maps, or None and why.

    Reference:
        Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
        Localization", ICCV 2017, arXiv:1610.02391; by captum's LayerGradCam.
    """
    try:
        attr: Any = importlib.import_module("captum.attr")
    except ImportError:
        return None, (f"Grad-CAM is missing: it needs captum ({CAPTUM}).",)
    inputs = inputs.detach().clone().requires_grad_(True)  # the weights may all be frozen
    layer = last_layer(model, inputs[:1])
    if layer is None:
        return None, ("Grad-CAM is missing: no layer of the model gives maps larger than 1×1.",)
    try:
        with torch.enable_grad():
            found = attr.LayerGradCam(model, layer).attribute(
                inputs, target=classes.to(inputs.device), relu_attributions=True
            )
    except (RuntimeError, AssertionError, ValueError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        return None, (f"Grad-CAM is missing: this model does not let it through ({line}).",)
    return [np.asarray(image[0]) for image in found.detach().float().cpu()], ()


def last_layer(model: nn.Module, inputs: Tensor) -> nn.Module | None:
    """Return the layer that is last done with a map larger than 1×1, on the way to the outputs."""
    found: list[nn.Module] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            found[:] = [module]

    handles = [m.register_forward_hook(note) for m in model.modules() if m is not model]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
