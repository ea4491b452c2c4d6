"""Look at one model over images: its gates, its mistakes, and what its gates are worth."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ..attention import Gate
from ..data import Batch
from ..model._discovery import _quietly
from ..model._gates_sites import places
from ..model.fuse import plain
from ..model.gates import Gates, measuring
from ..training.distributed import choose_device
from ..training.evaluate import require_outputs
from ._inspection_images import BATCH, Look, guesses
from ._inspection_maps import looks
from ._inspection_records import Guess, Held, Inspected


def look_at(model: nn.Module, name: str, look: Look, *, pictures: bool) -> Inspected:
    """Return what is to be shown of one model, which is moved to the device.

    Args:
        model: with attention.
        name: what to call it.
        look: how.
        pictures: whether to make maps and activations; numbers and mistakes are always there.

    Raises:
        ConfigError: another number of outputs than classes.
        InputError: a gate is NaN or infinite.
        UnsupportedModel: the model has no attention.
    """
    model.to(choose_device(look.device))
    watched = Watched(look)
    with measuring(model) as measured:
        watched.run(model, f"{name}: gates")
    gates = measured(watched.images)
    first = watched.predicted
    held = Watched(look)
    with _quietly(model), plain(model), torch.inference_mode(), _held(model, gates):
        held.run(model, f"{name}: with its gates held")
    changed = int((torch.cat(first) != torch.cat(held.predicted)).sum())
    samples, channels, notes = looks(model, look) if pictures else ((), (), ())
    return Inspected(
        name=name,
        gates=gates,
        held=Held(watched.images, watched.right, held.right, changed),
        mistakes=tuple(watched.mistakes),
        samples=samples,
        channels=channels,
        data={**look.data.describe(), "images": watched.images},
        notes=notes,
    )


class Watched:
    """What a model predicts, batch by batch; of its mistakes the most confident ones stay."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.images = self.right = 0
        self.predicted: list[Tensor] = []
        self.mistakes: list[Guess] = []

    def run(self, model: nn.Module, what: str) -> None:
        """Predict all images."""
        chosen = self.look.chosen()
        total = -(-len(chosen) // BATCH)
        self.look.progress({"event": "note", "text": what})
        for number, batch in enumerate(self.look.batches(chosen), start=1):
            logits = model(self.look.inputs(batch.images, model))
            require_outputs(logits, len(self.look.data.classes))
            self._add(batch, logits.float().softmax(1).cpu())
            self.look.progress({"event": "evaluate", "batch": number, "batches": total})

    def _add(self, batch: Batch, probabilities: Tensor) -> None:
        best = probabilities.max(1)
        wrong = best.indices != batch.labels
        self.images += len(wrong)
        self.right += len(wrong) - int(wrong.sum())
        self.predicted.append(best.indices)
        found = guesses(batch, probabilities, self.look.data.classes, wrong.nonzero().flatten())
        ranked = sorted([*self.mistakes, *found], key=lambda guess: -guess.probability)
        self.mistakes = ranked[: self.look.images]


@contextmanager
def _held(model: nn.Module, gates: Gates) -> Iterator[None]:
    """Have every gate multiply by its mean, one number a site, while inside."""
    means = {site.site: site.mean for site in gates.sites if not site.part}

    def hold(mean: float) -> Callable[..., Tensor]:
        def multiply(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return args[0] * mean

        return multiply

    found, _ = places(model)
    with ExitStack() as stack:
        for place in found:
            if place.site in means:
                gate: Gate = place.gate
                handle = gate.register_forward_hook(hold(means[place.site]))
                stack.callback(handle.remove)
        yield
