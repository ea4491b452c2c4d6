"""Recipes: everything about how a model is trained, as one frozen value.

``nam-cifar``
    The script of NAM's authors for CIFAR-100: 200 epochs, ×0.2 after 60, 120 and 160 of them,
    weight decay on everything. Its sparsity penalty is 0, because the released script never applies
    it (it looks for stages on a model already wrapped for data parallelism); the paper's eq. 4 is
    ``recipe("nam-cifar", sparsity=1e-4)``. Different here: the script normalises with CIFAR-*10*'s
    mean and deviation, we with those of the training data; the script reports the best test epoch,
    we report the last and keep the best beside it.
``nam-imagenet``
    The paper's penalty for ImageNet, 1e-3, as a loss term; the authors released nothing else about
    this training, so the rest is the usual ResNet schedule (90 epochs, ×0.1 after each 30).
``slimming``
    Network Slimming (Liu et al., ICCV 2017) for CIFAR: 160 epochs, batches of 64, ×0.1 at a half
    and at three quarters, a penalty on the norms' scales; 1e-5 is theirs for residual networks,
    1e-4 for VGG. Different here: scales start at 1, not ½, and do not decay beside the penalty,
    and norms right in front of additions are left out, of which their networks have none.
``quick``
    A few epochs that a CPU finishes while one waits; for the demo and for first impressions.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, unknown
from ._recipe import Recipe as Recipe
from ._recipe import require_known

RECIPES: Mapping[str, Recipe] = {
    "nam-cifar": Recipe(
        name="nam-cifar",
        epochs=200,
        decay_scales=True,
        schedule="step",
        milestones=(0.3, 0.6, 0.8),
        gamma=0.2,
        initialisation="kaiming-uniform",
    ),
    "nam-imagenet": Recipe(
        name="nam-imagenet",
        epochs=90,
        batch_size=256,
        weight_decay=1e-4,
        decay_scales=True,
        schedule="step",
        milestones=(1 / 3, 2 / 3),
        sparsity=1e-3,
    ),
    "slimming": Recipe(
        name="slimming",
        epochs=160,
        batch_size=64,
        nesterov=True,
        weight_decay=1e-4,
        schedule="step",
        milestones=(0.5, 0.75),
        sparsity=1e-5,
        sparsity_on="norms",
    ),
    "quick": Recipe(
        name="quick",
        epochs=10,
        batch_size=128,
        lr=0.2,
        nesterov=True,
        warmup_epochs=1,
        precision="bfloat16",
        channels_last=True,
    ),
}


def recipe(name: str, /, **overrides: Any) -> Recipe:
    """Return a recipe by name, with some of its values changed.

    Raises:
        ConfigError: no such recipe or value (the nearest are named), or a value out of range.

    Example:
        >>> recipe("nam-cifar", epochs=30).milestones
        (0.3, 0.6, 0.8)
    """
    if name not in RECIPES:
        raise ConfigError(unknown("recipe", "recipe", name, RECIPES))
    require_known(overrides)
    return dataclasses.replace(RECIPES[name], **overrides)
