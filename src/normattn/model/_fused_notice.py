"""What a fused module keeps: how often kernels computed, and the one warning of its model."""

import warnings
from dataclasses import dataclass, field

import torch
from torch import nn

#: The attribute of a fused module that holds its `Notice`; it survives deepcopy and pickle.
NOTICE = "normattn_fused"


@dataclass
class Voice:
    """What all fused modules of one model share: whether the model has spoken."""

    spoken: bool = False

    def say(self, site: str) -> None:
        """Warn, once, that a norm at ``site`` became a SyncBatchNorm."""
        if self.spoken:
            return
        self.spoken = True
        warnings.warn(
            f"fuse: expected BatchNorm2d, got SyncBatchNorm at {site!r}. No kernel shares "
            "statistics between processes: this layer, and others like it, run the plain form.",
            stacklevel=2,
        )


@dataclass
class Runs:
    """How many parts of a fused module's calls kernels computed, and how many ran as before."""

    by_kernels: int = 0
    in_plain: int = 0

    def __reduce__(self) -> tuple[type["Runs"], tuple[()]]:
        return Runs, ()  # a copy has computed nothing yet


@dataclass(frozen=True)
class Notice:
    """Where a fused module was when it was fused, its calls, and the voice of its model."""

    site: str
    voice: Voice
    runs: Runs = field(default_factory=Runs)


def count(module: nn.Module, *, by_kernels: bool, parts: int = 1) -> None:
    """Note that parts of a fused module were computed; compiled calls are not counted."""
    if torch.compiler.is_compiling():
        return
    known = module.__dict__.get(NOTICE)
    if isinstance(known, Notice):
        known.runs.by_kernels += parts if by_kernels else 0
        known.runs.in_plain += 0 if by_kernels else parts


def notice(module: nn.Module, *norms: nn.Module) -> None:
    """Warn if it is for a SyncBatchNorm that a fused module runs its layers one by one."""
    if torch.compiler.is_compiling() or not any(type(n) is nn.SyncBatchNorm for n in norms):
        return
    known = getattr(module, NOTICE, None)
    if isinstance(known, Notice):
        known.voice.say(known.site)
