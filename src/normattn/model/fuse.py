"""Let kernels do the arithmetic of a model's attention and of its residual blocks; undo it.

The modules stay what they are, down to their identity: fusing changes their class to a subclass
with a forward of its own (`_fused_mechanisms.py`, `_fused_families.py`), and back. Whatever a
kernel cannot do, that forward does in the plain form, so fusing is never wrong, only of no use.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from .. import kernels
from ..errors import UnsupportedModel
from ._fused_blocks import FusedBlock
from ._fused_families import FORMS, PLAIN
from ._fused_mechanisms import FusedGate
from ._fused_notice import NOTICE, Notice, Runs, Voice
from ._fused_report import FusedLayer as FusedLayer
from ._fused_report import FuseReport as FuseReport
from ._fused_report import candidates, strangers, survey

_SHOWN = 5


def fuse(model: nn.Module, *, strict: bool = False) -> nn.Module:
    """Let kernels compute a model's attention and residual blocks, in place, and return the model.

    Known are NAM (both forms and together) and EAN, wherever they stand, and the residual blocks of
    timm's, torchvision's and our CIFAR ResNets, with attention or without: in these a norm runs in
    one kernel with the ReLU behind it, the last one with NAM's channel attention, the addition and
    the ReLU. `fused` says what was done and what was left.

    Parameters, state-dict keys, hooks, modes and grafts stay as they are, and so do the results, up
    to rounding. Where a kernel cannot run (no library for the device, float64, a hook on a layer, a
    layer replaced since) or would not pay (maps so small that calling it takes longer than it
    saves), while a model is exported or traced, and under transforms of `torch.func`, the layers
    run as before. A second derivative needs the plain form: see `unfuse`. Attention that is grafted
    later is fused by another call.

    Args:
        model: any model.
        strict: whether to refuse, and change nothing, where any known layer is left as it is or its
            device has no kernels.

    Raises:
        UnsupportedModel: ``model`` is no module; or with ``strict``, what cannot run, and why.

    Example:
        >>> import normattn
        >>> model = fuse(normattn.graft(normattn.host("resnet20", 10), "nam-channel"))
        >>> type(model.layer1[0]).__name__
        'FusedCifarBasicBlock'
        >>> print(type(unfuse(model).layer1[0]).__name__, list(fused(model).blocks))
        BasicBlock []
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedModel(f"fuse: expected an nn.Module, got {type(model).__name__}.")
    voice = _voice(model)
    changed = [(s, m) for s, m in candidates(model) if type(m) in FORMS and not strangers(m)]
    for site, module in changed:
        setattr(module, NOTICE, Notice(site, voice))
        module.__class__ = FORMS[type(module)]
    obstacles = _obstacles(model) if strict else []
    if obstacles:
        for _, module in changed:
            _make_plain(module)
        more = f", and {len(obstacles) - _SHOWN} more" if len(obstacles) > _SHOWN else ""
        raise UnsupportedModel(
            f"fuse: expected kernels for every known layer, got none for "
            f"{', '.join(obstacles[:_SHOWN])}{more}. Nothing was changed; remove the obstacles, or "
            "fuse without strict."
        )
    return model


def unfuse(model: nn.Module) -> nn.Module:
    """Give a model its plain layers back, in place, and return it.

    Raises:
        UnsupportedModel: a fused module has got another class since, as parametrizing it does.
    """
    modules = list(model.named_modules())
    for site, module in modules:
        if isinstance(module, FusedGate | FusedBlock) and type(module) not in PLAIN:
            raise UnsupportedModel(
                f"unfuse: expected a class that fuse gave, got {type(module).__name__} at {site!r}."
                " Take back what was done to it since, such as parametrizations."
            )
    for _, module in modules:
        if type(module) in PLAIN:
            _make_plain(module)
    return model


def fused(model: nn.Module) -> FuseReport:
    """Return what kernels take of a model as it is now, and what they have computed since `fuse`.

    It is read off the modules themselves, so it is true of a copy and of an unpickled model, which
    have computed nothing yet. What kernels take is found by device, type, modes and layers; whether
    they then computed, since it depends on each map, is counted with each call.
    """
    return survey(model)


@contextlib.contextmanager
def plain(model: nn.Module) -> Iterator[nn.Module]:
    """Have a model in its plain form while inside; afterwards what was fused is again."""
    changed = [(m, type(m)) for m in model.modules() if type(m) in PLAIN]
    for module, form in changed:
        module.__class__ = PLAIN[form]
    try:
        yield model
    finally:
        for module, form in changed:
            if type(module) is PLAIN[form]:
                module.__class__ = form


def runs(model: nn.Module, *, reset: bool = False) -> tuple[tuple[Runs, ...], tuple[Runs, ...]]:
    """Return what was counted in fused blocks, and in fused mechanisms; ``reset`` starts anew."""
    found: tuple[list[Runs], list[Runs]] = [], []
    for module in model.modules():
        known = module.__dict__.get(NOTICE)
        if type(module) in PLAIN and isinstance(known, Notice):
            if reset:
                known.runs.by_kernels = known.runs.in_plain = 0
            found[isinstance(module, FusedGate)].append(known.runs)
    return tuple(found[0]), tuple(found[1])


def idle_reason(model: nn.Module) -> str | None:
    """Return why kernels take nothing of a fused model; None where they do, or it is plain."""
    if not any(isinstance(module, FusedGate | FusedBlock) for module in model.modules()):
        return None
    report = fused(model)
    return None if report.blocks or report.mechanisms else report.left[0].plain[0]


def loaded(device: torch.device | str) -> str:
    """Return which kernels there are for a device, "plain" for none."""
    status = kernel_status().get(torch.device(device).type, "none")
    return "plain" if status.startswith("none") else status


def kernel_status() -> dict[str, str]:
    """Return, by type of device, which kernels are loaded, or "none: " and why there are none."""
    return dict(kernels.status())


def _obstacles(model: nn.Module) -> list[str]:
    report = fused(model)
    if not (report.blocks or report.mechanisms or report.left):
        return [f"{type(model).__name__} (it has no such layer)"]
    return [f"{each.site} ({'; '.join(each.plain)})" for each in report.left]


def _voice(model: nn.Module) -> Voice:
    known = (getattr(module, NOTICE, None) for module in model.modules())
    return next((each.voice for each in known if isinstance(each, Notice)), None) or Voice()


def _make_plain(module: nn.Module) -> None:
    module.__class__ = PLAIN[type(module)]
    delattr(module, NOTICE)
