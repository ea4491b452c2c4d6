"""What a model would cost with channels removed: counted on the meta device, or measured."""

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ._counters import Products
from ._groups import Group
from ._runtimes import TORCH, in_runtime
from ._slim_choice import Chosen
from ._slim_cut import apply, cuts, shared_copy
from ._slim_plan import Cost
from .fuse import plain
from .profile import Latency, latency

_SECONDS = 0.5  # for one measurement in a search
_FINAL_SECONDS = 1.5
_ROUNDS = (3, 100)
_KEPT = 4  # models in a runtime: the longer measurement looks at one of the last again

Widths = tuple[tuple[str, int], ...]


class Costs:
    """Counts and measures what is left of a model, which stays as it is.

    Args:
        model: the model.
        example: a batch of images; latency is of such a batch.
        groups: of the model's channels.
        seconds: about what one image takes in PyTorch.
        runtime: where latency is measured: "torch", or one of `_runtimes.RUNTIMES` on the CPU.

    Raises:
        UnsupportedModel: the model cannot be run in the runtime.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Tensor,
        groups: Iterable[Group],
        seconds: float = 0.1,
        runtime: str = TORCH,
    ) -> None:
        self.model = model
        self.example = example
        self.runtime = runtime
        self.seconds = max(1e-6, seconds * len(example))
        self.groups = {group.name: group for group in groups}
        with plain(model):
            self.light = copy.deepcopy(model).to("meta").eval()
        self.runs_on_meta = True
        self.loaded: dict[Widths, nn.Module] = {}
        if runtime != TORCH:
            self.place = torch.device("cpu")
            self.whole = self._in_runtime(model)
            self.seconds = max(1e-6, self._time({"whole": self.whole}, 3)["whole"].median)
        else:
            self.place, self.whole = example.device, model

    def narrow(self, model: nn.Module, removed: Chosen) -> nn.Module:
        """Return a copy of a model without the removed channels."""
        narrow = shared_copy(model)
        parts = ((self.groups[name], gone) for name, gone in removed.items())
        apply(narrow, cuts(parts, narrow))
        return narrow

    def parameters(self, removed: Chosen) -> int:
        """Return the parameters that are left."""
        return _parameters(self.narrow(self.light, removed))

    def multiply_adds(self, removed: Chosen) -> int:
        """Return the multiply-adds that are left, of one image."""
        return self.count(removed).multiply_adds

    def count(self, removed: Chosen) -> Cost:
        """Return what can be counted: everything but the latency."""
        if self.runs_on_meta:
            try:
                narrow = self.narrow(self.light, removed)
                return Cost(_parameters(narrow), _multiply_adds(narrow, self.example.to("meta")))
            except (RuntimeError, NotImplementedError):  # it looks at values, which meta has not
                self.runs_on_meta = False
        with plain(self.model):
            narrow = self.narrow(self.model, removed).eval()
        return Cost(_parameters(narrow), _multiply_adds(narrow, self.example))

    def measure(self, removed: Chosen, *, final: bool = False) -> tuple[float, float]:
        """Return the milliseconds before and after, timed in turns.

        In PyTorch as the model is now. Of a runtime each other set of widths is a file to write,
        which takes seconds; the last few are kept.
        """
        seconds = _FINAL_SECONDS if final else _SECONDS
        fewest, most = _ROUNDS
        rounds = max(fewest, min(most, int(seconds / (2 * self.seconds))))
        found = self._time({"before": self.whole, "after": self._after(removed)}, rounds)
        before = found["before"].median * 1e3
        return before, before * found["after"].ratio

    def _after(self, removed: Chosen) -> nn.Module:
        """Return the model without the removed channels, where it is to be timed."""
        if self.runtime == TORCH:
            return self.narrow(self.model, removed)
        key = widths(removed)
        if not key:
            return self.whole
        if key not in self.loaded:
            while len(self.loaded) >= _KEPT:
                del self.loaded[next(iter(self.loaded))]
            self.loaded[key] = self._in_runtime(self.narrow(self.model, removed))
        return self.loaded[key]

    def _in_runtime(self, model: nn.Module) -> nn.Module:
        size = self.example.shape[1:]
        return in_runtime(model, size, self.runtime, threads=torch.get_num_threads())

    def _time(self, models: Mapping[str, nn.Module], rounds: int) -> dict[str, Latency]:
        return latency(
            models,
            tuple(self.example.shape[1:]),
            batch=len(self.example),
            rounds=rounds,
            threads=torch.get_num_threads(),
            device=self.place,
        )


def widths(removed: Chosen) -> Widths:
    """Return how many channels of each group go: as latency knows what is removed."""
    return tuple((name, len(gone)) for name, gone in removed.items() if gone)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _multiply_adds(model: nn.Module, example: Tensor) -> int:
    products = Products()
    with torch.no_grad(), products.counter:
        model(example[:1])
    return products.macs + products.batch_norm
