"""What a model would cost with channels removed: counted on the meta device, or measured."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ._counters import Products
from ._groups import Group
from ._slim_choice import Chosen
from ._slim_cut import apply, cuts, shared_copy
from ._slim_plan import Cost
from .fuse import plain
from .profile import latency

_SECONDS = 0.5  # for one measurement in a search
_FINAL_SECONDS = 1.5


class Costs:
    """Counts and measures what is left of a model, which stays as it is.

    Args:
        model: the model.
        example: a batch of images; latency is of such a batch.
        groups: of the model's channels.
        seconds: about what one image takes.
    """

    def __init__(
        self, model: nn.Module, example: Tensor, groups: Iterable[Group], seconds: float = 0.1
    ) -> None:
        self.model = model
        self.example = example
        self.seconds = max(1e-6, seconds * len(example))
        self.groups = {group.name: group for group in groups}
        with plain(model):
            self.light = copy.deepcopy(model).to("meta").eval()
        self.runs_on_meta = True

    def narrow(self, model: nn.Module, removed: Chosen) -> nn.Module:
        """Return a copy of a model without the removed channels."""
        narrow = shared_copy(model)
        apply(narrow, cuts((self.groups[name], gone) for name, gone in removed.items()))
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
        """Return the milliseconds before and after, timed in turns, as the model is now."""
        both = {"before": self.model, "after": self.narrow(self.model, removed)}
        size = tuple(self.example.shape[1:])
        options: dict[str, Any] = {
            "batch": len(self.example),
            "threads": torch.get_num_threads(),
            "device": self.example.device,
        }
        rounds = int((_FINAL_SECONDS if final else _SECONDS) / (2 * self.seconds))
        found = latency(both, size, rounds=max(3, min(30, rounds)), **options)
        before = found["before"].median * 1e3
        return before, before * found["after"].ratio


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _multiply_adds(model: nn.Module, example: Tensor) -> int:
    products = Products()
    with torch.no_grad(), products.counter:
        model(example[:1])
    return products.macs + products.batch_norm
