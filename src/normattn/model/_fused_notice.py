"""The one warning that a fused model gives when its kernels stopped for a reason to know."""

import warnings
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Notice:
    """Where a fused module was when it was fused, and the voice of its model."""

    site: str
    voice: Voice


def notice(module: nn.Module, *norms: nn.Module) -> None:
    """Warn if it is for a SyncBatchNorm that a fused module runs its layers one by one."""
    if torch.compiler.is_compiling() or not any(type(n) is nn.SyncBatchNorm for n in norms):
        return
    known = getattr(module, NOTICE, None)
    if isinstance(known, Notice):
        known.voice.say(known.site)
