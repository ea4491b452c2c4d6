"""A trained model that another one learns from: knowledge distillation (Hinton et al., 2015)."""

import contextlib
import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError
from .distributed import Ranks
from .evaluate import autocast
from .recipes import Recipe


class Teacher:
    """A model in evaluation mode whose outputs are targets; no gradient reaches it.

    ``checksum`` is that of its weights as they were given.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, ranks: Ranks, checksum: str) -> None:
        self.model, self.recipe, self.device = model, recipe, ranks.device
        self.checksum = checksum

    def outputs(self, images: Tensor, classes: int) -> Tensor:
        """Return what the teacher makes of a batch, in the precision of the student: (B, classes).

        Raises:
            ConfigError: it has another number of outputs than there are classes.
        """
        # Not inference mode: what is computed there may not stand in the student's graph.
        with torch.no_grad(), autocast(self.device, self.recipe.precision):
            logits: Tensor = self.model(images)
        if logits.ndim != 2 or logits.shape[1] != classes:
            raise ConfigError(
                f"teacher: expected one output for each of the {classes} classes, got outputs of "
                f"shape {tuple(logits.shape)} from {type(self.model).__name__}. Give a model that "
                "was trained on the same classes."
            )
        return logits.float()


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return Hinton's loss, T² · KL(softmax(teacher / T) ‖ softmax(student / T)), a mean.

    The factor T² keeps its gradient at the size of cross-entropy's whatever the temperature.

    Shape:
        student, teacher: (B, classes), logits in float32.
    """
    ours = functional.log_softmax(student / temperature, dim=1)
    theirs = functional.log_softmax(teacher / temperature, dim=1)
    divergence = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return divergence * temperature**2


@contextlib.contextmanager
def teaching(
    model: nn.Module | None, student: nn.Module, recipe: Recipe, ranks: Ranks
) -> Iterator[Teacher | None]:
    """Yield the teacher on the student's device and in its layout; None where there is none.

    Afterwards each of its modules is in its own mode again.

    Raises:
        ConfigError: a teacher without ``recipe.distill``, or the reverse; the student itself, or a
            model that shares tensors with it; different ones in different processes.
    """
    if model is None:
        if recipe.distill:
            raise ConfigError(
                f"training: expected a teacher for distill={recipe.distill}, got none. Pass it to "
                "normattn.fit(..., teacher=model), slim with `normattn slim`, which has one, or "
                "leave distill at 0."
            )
        yield None
        return
    _require(model, student, recipe)
    checksum = weights_checksum(model)
    _require_one(checksum, ranks)
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    model.to(ranks.device, memory_format=layout)  # type: ignore[call-overload]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield Teacher(model, recipe, ranks, checksum)
    finally:
        for module, mode in modes.items():
            module.training = mode


def weights_checksum(model: nn.Module) -> str:
    """Return the SHA-256 of a model's state: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()}"


def _require(model: object, student: nn.Module, recipe: Recipe) -> None:
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"training: expected teacher to be an nn.Module, got {type(model).__name__}. Load an "
            "artifact with normattn.load(path) first."
        )
    if not recipe.distill:
        raise ConfigError(
            "training: expected distill > 0 for a teacher, got a recipe with distill=0. Set "
            "distill, such as recipe(..., distill=0.9), or leave the teacher out."
        )
    ours = {id(tensor) for tensor in student.state_dict(keep_vars=True).values()}
    shared = [n for n, t in model.state_dict(keep_vars=True).items() if id(t) in ours]
    if shared:
        raise ConfigError(
            f"training: expected a teacher with weights of its own, got one that shares "
            f"{len(shared)} tensors with the student ({shared[0]!r} is one). Pass "
            "copy.deepcopy(model), made before the student was changed."
        )


def _require_one(checksum: str, ranks: Ranks) -> None:
    """Refuse different teachers in different processes: each would teach its share of a batch."""
    number = int(checksum.removeprefix("sha256:")[:15], 16)
    largest, negative = ranks.largest(number, -number)
    if largest != -negative:
        raise ConfigError(
            "training: expected the same teacher in all processes, got different weights. Load it "
            "from one file, or build it from one seed."
        )
