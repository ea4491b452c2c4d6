"""What the gates of a model do to real images: their range, its steps, its weights.

A gate that hardly moves multiplies every value by the same number, and that can be seen here.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ..attention import Gate
from ..errors import UnsupportedModel
from ._discovery import _quietly
from ._fold_checks import refuse_unfoldable
from ._fold_images import read
from ._gates_record import Gates as Gates
from ._gates_record import GateSite as GateSite
from ._gates_sites import Place, numbers, parts, places
from ._gates_sketch import Sketch
from ._gates_watch import Onlooker
from .fuse import plain


def gates(model: nn.Module, loader: Iterable[Any], *, seed: int = 0) -> Gates:
    """Measure what each gate of a model multiplies by on real images; the model stays as it was.

    It runs once over the images, in evaluation mode and in its plain form; nothing is kept but sums
    and a sample of 32,768 values a gate, however many images there are.

    Args:
        model: a model with attention, grafted or its own; fused, folded, slimmed or neither.
        loader: batches of normalised images ``(B, C, H, W)``, or of ``(inputs, labels)``: a list, a
            DataLoader, or an iterator, which is read once.
        seed: what the sample depends on, besides the images.

    Raises:
        UnsupportedModel: the model has no attention whose gate can be looked at, or is compiled.
        DataError: there is no batch, or one holds something else than normalised images.
        InputError: a gate is NaN or infinite.

    Example:
        >>> import normattn
        >>> model = normattn.graft(normattn.host("resnet20", 10), "nam-channel")
        >>> found = gates(model, [torch.randn(8, 3, 32, 32)])
        >>> found.sites[0].site, round(found.sites[0].mean, 2)
        ('layer1.0.bn2', 0.5)
    """
    images = 0
    with measuring(model, seed) as measured:
        for inputs, _ in read("gates", loader, model):
            model(inputs)
            images += len(inputs)
    return measured(images)


@contextmanager
def measuring(model: nn.Module, seed: int = 0) -> Iterator[Callable[[int], Gates]]:
    """Measure the gates of a model while it runs inside, and have it at rest meanwhile.

    Yields:
        A function of the number of images that returns what was measured so far.
    """
    refuse_unfoldable("gates", model)
    found, blind = places(model)
    if not found:
        raise UnsupportedModel(_without(model, blind))
    sketches: dict[tuple[Gate, str], Sketch] = {}
    modules: dict[tuple[Gate, str], Gate] = {}
    names = {place.gate: place.site for place in found}

    def look(gate: Gate, x: Tensor) -> None:
        for part, module, values in parts(gate, x):
            modules[gate, part] = module
            sketch = sketches.setdefault((gate, part), Sketch(names[gate], seed))
            sketch.add(values)

    def measured(images: int) -> Gates:
        sites = [
            _site(place, part, modules[gate, part], sketch)
            for place in found
            for (gate, part), sketch in sketches.items()
            if gate is place.gate
        ]
        seen = {gate for gate, _ in sketches}
        silent = [(p.site, "the model never called it") for p in found if p.gate not in seen]
        return Gates(images, tuple(sites), (*blind, *silent))

    with _quietly(model), plain(model), torch.no_grad(), Onlooker(names, look):
        yield measured


def _site(place: Place, part: str, module: Gate, sketch: Sketch) -> GateSite:
    summary = sketch.summary()
    assert summary is not None  # a sketch is made for the values that it then takes in
    known: dict[str, Any] = {"site": place.site, "part": part, "mechanism": place.mechanism}
    known["scale"], known["importance"] = numbers(module)
    return GateSite(channels=module.channels, **known, **asdict(summary))


def _without(model: nn.Module, blind: list[tuple[str, str]]) -> str:
    got = f"none in {type(model).__name__}"
    if blind:
        got = f"none that can be looked at ({blind[0][0]}: {blind[0][1]})"
    return (
        f"gates: expected a model with attention, got {got}. Graft a mechanism first: "
        "normattn.graft(model, 'nam')."
    )
