"""One optimizer step, and the tensors that it changes."""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from ..data import Batch, ImageData, to_float
from ..data.keyed import key
from ..errors import ConfigError, Fault
from .distributed import Ranks
from .evaluate import autocast, require_outputs
from .optimize import make_optimizer, make_schedule
from .penalty import Penalty
from .recipes import Recipe
from .teacher import Teacher, distillation


@dataclass
class Place:
    """How far a training is; ``epoch`` counts finished epochs, ``batch`` the batches since then.

    ``loss`` and ``wrong`` are sums over those batches and this process's share of them.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss: float = 0.0
    wrong: int = 0
    seconds: float = 0.0
    seconds_compute: float = 0.0


class Stepper:
    """A model with its optimizer, schedule and averaged copy."""

    def __init__(
        self,
        model: nn.Module,
        data: ImageData,
        recipe: Recipe,
        seed: int,
        ranks: Ranks,
        batches: int,
        teacher: Teacher | None = None,
    ) -> None:
        if recipe.batch_size % (recipe.accumulate * ranks.world):
            raise ConfigError(
                f"recipe: expected a batch size that {ranks.world} processes × "
                f"{recipe.accumulate} parts share equally, got {recipe.batch_size}. Change it."
            )
        self.data, self.recipe, self.seed, self.ranks = data, recipe, seed, ranks
        self.teacher = teacher
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        model.to(ranks.device, memory_format=layout)  # type: ignore[call-overload]
        self.model = model.train()
        example = torch.zeros(1, data.channels, *data.size, device=ranks.device)
        self.penalty = Penalty(model, recipe, batches, example)
        self.ema = ModelEmaV3(model, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        self.parallel = _parallel(model, ranks)
        self.optimizer = make_optimizer(model, recipe)
        self.schedule = make_schedule(self.optimizer, recipe, batches)

    @property
    def judged(self) -> nn.Module:
        """What is evaluated and saved: the averaged model where there is one."""
        return self.ema.module if self.ema else self.model

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def take(self, batch: Batch, place: Place) -> None:
        """Take the step after ``place`` and move it on.

        Raises:
            Fault: the loss is not finite; weights and optimizer are as they were.
            ConfigError: the model has another number of outputs than the data has classes.
        """
        recipe, device = self.recipe, self.ranks.device
        _reseed(device, key(self.seed, "step", place.step, self.ranks.rank))
        self.schedule.step_update(place.step)
        images = to_float(
            batch.images,
            self.data.mean,
            self.data.std,
            channels_last=recipe.channels_last,
            device=device,
        ).chunk(recipe.accumulate)
        labels = batch.labels.to(device).chunk(recipe.accumulate)
        started = time.perf_counter()
        self.optimizer.zero_grad()
        with self._local_gradients():
            self.penalty.add_gradients(place.step)
            for inputs, targets in zip(images[:-1], labels[:-1], strict=True):
                self._loss(inputs, targets, batch, place).backward()  # type: ignore[no-untyped-call]
        self._loss(images[-1], labels[-1], batch, place).backward()  # type: ignore[no-untyped-call]
        if recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.optimizer.step()
        self.penalty.shrink(self.optimizer, place.step)
        place.seconds_compute += time.perf_counter() - started
        place.step += 1
        place.batch += 1
        if self.ema:
            self.ema.update(self.model, step=place.step)

    def _loss(self, images: Tensor, labels: Tensor, batch: Batch, place: Place) -> Tensor:
        """Return a part's share of the batch's mean loss, counted in ``place``."""
        recipe, classes = self.recipe, len(self.data.classes)
        # The teacher first: its maps are gone before the student's are kept.
        taught = self.teacher.outputs(images, classes) if self.teacher else None
        with autocast(self.ranks.device, recipe.precision):
            logits = self.parallel(images)
        require_outputs(logits, classes)
        loss = functional.cross_entropy(
            logits.float(), labels, label_smoothing=recipe.label_smoothing
        )
        if taught is not None:
            told = distillation(logits.float(), taught, recipe.temperature)
            loss = (1 - recipe.distill) * loss + recipe.distill * told
        # A step's one wait for the device, before backward, so that a GPU has work queued again at
        # once. Stacked in float64, which holds both exactly.
        wrong = (logits.argmax(1) != labels).sum()
        value, count = torch.stack([loss.detach().double(), wrong.double()]).tolist()
        self._require_finite(value, batch, place, taught)
        place.loss += value / recipe.accumulate
        place.wrong += int(count)
        return loss / recipe.accumulate

    def _local_gradients(self) -> contextlib.AbstractContextManager[None]:
        """Keep gradients in this process until those of all parts are summed."""
        if isinstance(self.parallel, DistributedDataParallel):
            return self.parallel.no_sync()
        return contextlib.nullcontext()

    def _require_finite(
        self, loss: float, batch: Batch, place: Place, taught: Tensor | None
    ) -> None:
        if not self.ranks.largest(int(not math.isfinite(loss)))[0]:
            return
        got = f"{loss}" if not math.isfinite(loss) else "another in another process"
        listed = ", ".join(map(str, batch.indices.tolist()))
        remedy = "lower the learning rate, set clip_norm, or look at these images"
        if taught is not None and not taught.isfinite().all():
            remedy = "the teacher's outputs are not finite there: look at it, or at these images"
        raise Fault(
            f"training: expected a finite loss, got {got} at epoch {place.epoch + 1}, batch "
            f"{place.batch + 1} (step {place.step + 1}, learning rate {self.lr:.3g}), images "
            f"{listed}. No step was taken; {remedy}."
        )

    def state(self) -> dict[str, Any]:
        """Return the tensors in plain containers; raise Fault if a weight is not finite."""
        weights = self.model.state_dict()
        for name, weight in weights.items():
            if not weight.isfinite().all():
                raise Fault(
                    f"training: expected finite weights, got others in {name}. The last good "
                    "state is kept; lower the learning rate or set clip_norm."
                )
        return {
            "model": weights,
            "ema": self.ema.module.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go back to what ``state`` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])


def step_event(
    place: Place, epochs: int, batches: int, lr: float, images_per_second: float
) -> dict[str, Any]:
    """Return what is told of a step: its place from 1, and the epoch's mean loss so far."""
    return {
        "event": "step",
        "epoch": place.epoch + 1,
        "epochs": epochs,
        "batch": place.batch,
        "batches": batches,
        "step": place.step,
        "loss": place.loss / place.batch,
        "lr": lr,
        "images_per_second": images_per_second,
    }


@contextlib.contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Leave the caller's generators as they were, and let cuDNN choose deterministic kernels."""
    devices = [device.index] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        yield


def _parallel(model: nn.Module, ranks: Ranks) -> nn.Module:
    if ranks.world == 1:
        return model
    devices = [ranks.device] if ranks.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices)


def _reseed(device: torch.device, seed: int) -> None:
    # torch.manual_seed does the same in fifty times the time.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
