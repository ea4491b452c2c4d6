"""The training loop: plain torch, resumable to the same bit.

Everything random is a function of (seed, epoch, sample) or (seed, step, rank), see `data/keyed.py`,
and the learning rate is one of the step; so the state of a training is its tensors and its place.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from ..data import ImageData, steps_per_epoch, train_batches
from .checkpoint import Saver
from .distributed import Ranks, joined
from .evaluate import Metrics, evaluate
from .history import EpochRecord, History, scale_histograms, scale_statistics
from .identity import describe, left_out, other_bits, require_grafts, require_same
from .provenance import kernels_offered
from .recipes import Recipe
from .signals import Interrupted, Stop, listening
from .step import Place, Stepper, own_randomness, step_event
from .teacher import Teacher, teaching

Progress = Callable[[Mapping[str, Any]], None]


def fit(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    *,
    seed: int,
    folder: Path | str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    save_every: float = 300.0,
    teacher: nn.Module | None = None,
) -> History:
    """Train ``model`` in place, or go on where ``folder`` says that it stopped.

    A training that was killed and resumed ends with the bits of one that was not, given the same
    software, kind of device and number of processes. Under ``torchrun`` every process takes its
    share of each batch and the first one writes; norms then keep the first one's statistics. With
    ``recipe.ema`` the averaged weights are evaluated, and stand in ``model`` at the end.

    Args:
        model: A classifier, attention grafted.
        data: The images.
        recipe: How to train.
        seed: Of order, augmentation and dropout; initial weights are the caller's.
        folder: Where ``state.pt`` and ``history.jsonl`` go; without it nothing is saved and
            signals act as usual.
        device: ``auto``, ``cpu``, ``cuda``.
        progress: Takes ``{"event": "step"|"evaluate"|"epoch"|"note", ...}``.
        save_every: Seconds between two saves inside an epoch; each epoch's end is saved anyway.
        teacher: A trained classifier of the same classes, for ``recipe.distill``: the loss is then
            (1 - distill) · cross-entropy + distill · T² · KL(teacher ‖ student) with T =
            ``recipe.temperature`` (Hinton, Vinyals and Dean, 2015, arXiv:1503.02531). It sees the
            same augmented images in evaluation mode, is moved to the device, and learns nothing.

    Raises:
        ConfigError: the recipe does not fit the data, the model or the teacher.
        RunError: the folder cannot be written, or holds another training (the difference is shown).
        Fault: the loss or a weight is no finite number; the last good state is kept.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    with contextlib.ExitStack() as stack:
        ranks = stack.enter_context(joined(device))
        stack.enter_context(own_randomness(ranks.device))
        stop = stack.enter_context(listening()) if folder is not None else Stop()
        saver = Saver(Path(folder), save_every, ranks) if folder is not None else None
        tell = progress if progress and ranks.first else _ignore
        taught = stack.enter_context(teaching(teacher, model, recipe, ranks))
        return _Loop(model, data, recipe, seed, ranks, saver, tell, stop, taught).run()


class _Loop:
    """A training under way."""

    def __init__(
        self,
        model: nn.Module,
        data: ImageData,
        recipe: Recipe,
        seed: int,
        ranks: Ranks,
        saver: Saver | None,
        tell: Progress,
        stop: Stop,
        teacher: Teacher | None,
    ) -> None:
        self.data, self.recipe, self.seed, self.ranks = data, recipe, seed, ranks
        self.saver, self.tell, self.stop = saver, tell, stop
        self.augment = data.default_augment if recipe.augment == "default" else recipe.augment
        self.batches = steps_per_epoch(data.train, recipe.batch_size)
        checksum = teacher.checksum if teacher else None
        self.identity = describe(model, data, recipe, seed, checksum)
        self.stepper = Stepper(model, data, recipe, seed, ranks, self.batches, teacher)
        self.kernels = kernels_offered(model)
        self.place = Place()
        self.history = History(())

    def run(self) -> History:
        """Resume if there is something to resume, and train to the end."""
        require_grafts((self.stepper.model, self.stepper.judged), self.identity)
        if not self._resume():
            model, penalty = self.stepper.model, self.stepper.penalty
            for text in left_out(model, self.data, self.recipe, penalty, self.ranks.world):
                self._note(text)
        while self.place.epoch < self.recipe.epochs:
            self._train_epoch()
            self._finish_epoch()
        if self.stepper.ema:
            self.stepper.model.load_state_dict(self.stepper.judged.state_dict())
        return self.history

    def _train_epoch(self) -> None:
        place, last = self.place, time.perf_counter()
        for batch in train_batches(
            self.data.train,
            batch_size=self.recipe.batch_size,
            seed=self.seed,
            epoch=place.epoch,
            augment=self.augment,
            start=place.batch,
            rank=self.ranks.rank,
            world=self.ranks.world,
        ):
            self.stepper.take(batch, place)
            now = time.perf_counter()
            self._tell_step(now - last)
            place.seconds += now - last
            last = now
            self._stop_if_asked()
            # Together, since each process has a clock and a share of the sums of its own.
            if self.saver and self.ranks.largest(int(self.saver.due))[0]:
                self._save()

    def _finish_epoch(self) -> None:
        started = time.perf_counter()
        metrics = self._evaluate()
        record = self._record(metrics, time.perf_counter() - started)
        self.history = History((*self.history.epochs, record))
        self.place = Place(epoch=self.place.epoch + 1, step=self.place.step)
        self._save()
        self.tell({"event": "epoch", "epochs": self.recipe.epochs, **record.to_json()})
        self._stop_if_asked(save=False)

    def _evaluate(self) -> Metrics:
        judged = self.stepper.judged
        self.ranks.share_buffers(judged)

        def watch(event: Mapping[str, Any]) -> None:
            # Processes may evaluate different numbers of batches, so only one alone can stop here.
            if self.ranks.world == 1:
                self._stop_if_asked()
            self.tell({**event, "epoch": self.place.epoch + 1})

        metrics = evaluate(
            judged,
            self.data,
            device=str(self.ranks.device),
            precision=self.recipe.precision,
            channels_last=self.recipe.channels_last,
            progress=watch,
        )
        if metrics.loss is None:
            self._note(f"Epoch {self.place.epoch + 1}: the evaluation loss is not finite.")
        return metrics

    def _record(self, metrics: Metrics, seconds_evaluation: float) -> EpochRecord:
        place, images = self.place, self.batches * self.recipe.batch_size
        loss, wrong = self.ranks.total(place.loss, place.wrong)
        return EpochRecord(
            epoch=place.epoch + 1,
            step=place.step,
            lr=self.stepper.lr,
            train_loss=loss / self.ranks.world / self.batches,
            train_top1_error=100 * wrong / images,
            penalty=self.stepper.penalty.value(place.step - 1),
            loss=metrics.loss,
            top1_error=metrics.top1_error,
            top5_error=metrics.top5_error,
            images_per_second=images / place.seconds,
            seconds=place.seconds,
            seconds_compute=place.seconds_compute,
            seconds_evaluation=seconds_evaluation,
            scales=scale_statistics(self.stepper.model),
            sparsity=self.stepper.penalty.weight(place.step - 1),
            histograms=scale_histograms(self.stepper.model, self.stepper.penalty.closing),
        )

    def _stop_if_asked(self, *, save: bool = True) -> None:
        """Save and leave when a signal came to any process."""
        number = self.ranks.largest(self.stop.signal)[0]
        if not number:
            return
        if save:
            self._save()
        raise Interrupted(number)

    def _save(self) -> None:
        if self.saver:
            loss, wrong = self.ranks.total(self.place.loss, self.place.wrong)
            state = {
                "identity": self.identity,
                "world": self.ranks.world,
                "kernels": self.kernels,
                "place": {**asdict(self.place), "loss": loss, "wrong": int(wrong)},
                "history": [record.to_json() for record in self.history.epochs],
            }
            self.saver.save({**state, **self.stepper.state()}, self.history)

    def _resume(self) -> bool:
        """Go back to the saved state; return whether there was one."""
        if self.saver is None:
            return False
        state = self.saver.read(self._note)
        if state is None:
            return False
        require_same(state["identity"], self.identity, self.saver.folder)
        self.place = Place(**state["place"])
        self.place.loss, self.place.wrong = self.ranks.share(self.place.loss, self.place.wrong)
        self.history = History(tuple(EpochRecord(**record) for record in state["history"]))
        self.stepper.load(state)
        done = f"{self.place.epoch} of {self.recipe.epochs} epochs and {self.place.batch} batches"
        self._note(f"Resumed after {done}.")
        for text in other_bits(state, self.ranks.world, self.kernels):
            self._note(text)
        return True

    def _tell_step(self, seconds: float) -> None:
        epochs, speed = self.recipe.epochs, self.recipe.batch_size / seconds
        self.tell(step_event(self.place, epochs, self.batches, self.stepper.lr, speed))

    def _note(self, text: str) -> None:
        self.tell({"event": "note", "text": text})


def _ignore(event: Mapping[str, Any]) -> None:
    """Take an event that nobody asked for."""
