"""Eq. 4 in a training: which scales it pulls, how hard at which step, and by which of three ways.

``loss`` and ``subgradient`` give the optimizer the same gradients, to the bit: p·sign(scale) beside
the data's, zero at zero. Each step then crosses zero and comes back, so scales become small and
never zero. ``proximal`` keeps the penalty out of the gradients and soft-thresholds the scales after
the optimizer's step, which leaves exact zeros.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..model.sparsify import closing_norms, l1_norm, scale_factors, shrink
from .recipes import Recipe

_NAMED = 3


class Penalty:
    """The scales that a recipe penalises, and what becomes of them at each step.

    ``closing`` names those that are left out since their zeros would shut a residual branch.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, batches: int, example_input: Tensor
    ) -> None:
        self.p, self.by, self.on = recipe.sparsity, recipe.sparsity_by, recipe.sparsity_on
        self.steps = math.ceil(recipe.sparsity_warmup_epochs * batches)
        self.closing: tuple[str, ...] = ()
        self.scales: list[nn.Parameter] = []
        self.frozen: list[str] = []
        if not self.p:
            return
        if self.on != "attention" and not recipe.sparsity_closing:
            self.closing = closing_norms(model, example_input)
        on: Any = self.on
        for name, scale in scale_factors(model, on):
            if not scale.requires_grad:
                self.frozen.append(name)
            elif name not in self.closing:
                self.scales.append(scale)

    def weight(self, step: int) -> float:
        """Return p at a step counted from 0: it rises in a line over the warm-up."""
        return self.p * min(1.0, (step + 1) / self.steps) if self.steps else self.p

    def value(self, step: int) -> float:
        """Return p·Σ|scale| as it stands, 0 where there is nothing to penalise."""
        if not self.scales:
            return 0.0
        return self.weight(step) * float(l1_norm(self.scales).detach())

    def add_gradients(self, step: int) -> None:
        """Put the penalty's gradients where those of the batch will be added to them.

        After ``zero_grad`` and before the batch's, so that both ways sum in one order whatever the
        parts of a batch; and outside the forward of several processes, each of which contributes
        the same.
        """
        if not self.scales:
            return
        if self.by == "loss":
            (self.weight(step) * l1_norm(self.scales)).backward()  # type: ignore[no-untyped-call]
        elif self.by == "subgradient":
            for scale in self.scales:
                scale.grad = scale.detach().sign().mul_(self.weight(step))

    def shrink(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Take the proximal step that belongs to the optimizer's, which came just before.

        Its threshold is p times what a lasting gradient of 1 would move the scale by, so that
        the training rests where the loss plus the penalty has its minimum, as the other ways do:

        SGD: lr / (1 - momentum). torch's momentum repeats each gradient in later steps; of this
        step it knows nothing.
        AdamW: lr / (√v + ε) for each element, v being its mean of squared gradients, by which the
        step divides what it was given. But no more than the longest step of AdamW's own, 7 lr:
        where p balances the gradients v never asks for more, and a scale without any is not
        thrown to zero at once.
        """
        if self.by != "proximal" or not self.scales:
            return
        wanted, p = {id(scale) for scale in self.scales}, self.weight(step)
        for group in optimizer.param_groups:
            for scale in group["params"]:
                if id(scale) in wanted:
                    shrink(scale, _threshold(p, scale, group, optimizer.state.get(scale, {})))

    def notes(self) -> Iterator[str]:
        """Yield a sentence for everything that a reader might think is penalised, and is not."""
        if self.closing:
            more = ", ..." if len(self.closing) > _NAMED else ""
            yield (
                f"{len(self.closing)} norms in front of additions are not penalised "
                f"({', '.join(self.closing[:_NAMED])}{more}): at zero they would shut residual "
                "branches. sparsity_closing=true includes them."
            )
        if self.frozen:
            yield f"{len(self.frozen)} frozen scales are not penalised ({self.frozen[0]} is one)."
        if self.p and not self.scales:
            others = " other" if self.closing or self.frozen else ""
            yield (
                f"No sparsity penalty: the model has no{others} scales that "
                f"sparsity_on={self.on!r} would penalise."
            )


def _threshold(p: float, scale: Tensor, group: dict[str, Any], state: Any) -> float | Tensor:
    lr = float(group["lr"])
    if "momentum" in group:
        return lr * p / (1 - float(group["momentum"]))
    if "exp_avg_sq" not in state:  # no gradient has come yet
        return lr
    first, second = group["betas"]
    correction = 1 - second ** float(state["step"])
    divisor: Tensor = (state["exp_avg_sq"] / correction).sqrt_().add_(group["eps"])
    # By Cauchy and Schwarz, how far a mean of gradients can exceed the root of that of squares.
    longest = (1 - first) / math.sqrt((1 - second) * (1 - first**2 / second))
    return (lr * p / divisor).clamp_(max=lr * longest)
