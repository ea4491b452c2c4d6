"""Models by name: anything in timm, and the CIFAR stems and CIFAR ResNets that it lacks."""

import functools
import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import timm
from timm.models import get_pretrained_cfg, is_model, is_model_pretrained
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from torch import nn

from ..errors import ConfigError, Fault, UnsupportedModel, unknown
from .cifar_resnet import CIFAR_RESNETS, cifar_resnet

Stem = Literal["imagenet", "cifar"]

#: Arguments of ``timm.create_model`` that are no part of an architecture. A spec may come back from
#: a file that someone else wrote, so none of these, which read files or fetch things, may be in it.
_NOT_ARCHITECTURE = {"checkpoint_path", "cache_dir", "features_only"}


@dataclass(frozen=True)
class HostSpec:
    """What a host is built from: enough to build it again, and plain enough for a JSON file.

    ``HostSpec(**dataclasses.asdict(spec))`` equals ``spec``, also after a trip through JSON.

    Args:
        name: a model name of timm's, or one of `CIFAR_RESNETS`.
        num_classes: the size of the output.
        stem: "imagenet" or "cifar"; always "cifar" for the CIFAR ResNets, which have no other.
        options: further arguments of the model, of JSON types.

    Raises:
        ConfigError: a name is unknown, or a value cannot be what it is.
    """

    name: str
    num_classes: int
    stem: Stem = "imagenet"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name(self.name)
        count = self.num_classes
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigError(f"host: expected num_classes to be an integer >= 1, got {count!r}.")
        if self.stem not in get_args(Stem):
            raise ConfigError(unknown("host", "stem", str(self.stem), get_args(Stem)))
        if not isinstance(self.options, dict):
            raise ConfigError(f"host: expected options by name, got {self.options!r}.")
        for option in map(str, self.options):
            if option in _NOT_ARCHITECTURE or option.startswith("pretrained"):
                raise ConfigError(
                    f"host: expected options of the architecture, got {option!r}. Get weights by "
                    "pretrained=True and a name like 'resnet50.a1_in1k', or load them afterwards."
                )
        # Lists for tuples, as JSON has them: a spec equals itself after a trip through a file.
        object.__setattr__(self, "options", _as_json(self.options))
        if self.name in CIFAR_RESNETS:
            object.__setattr__(self, "stem", "cifar")

    def build(self) -> nn.Module:
        """Return the plain host with fresh weights, the spec attached (see `host_spec`)."""
        return _build(self, pretrained=False)


def host(
    name: str,
    num_classes: int,
    *,
    stem: Stem = "imagenet",
    pretrained: bool = False,
    **options: Any,
) -> nn.Module:
    """Build a model by name.

    The CIFAR stem keeps the resolution of small images. For timm's ResNets and ResNeXts it is a
    3×3 convolution of stride 1 and no pooling (stages at 32, 16, 8, 4 pixels). For MobileNetV2 the
    stem and the first block that halves the image (the 24-channel stage) get stride 1, as is usual
    on CIFAR: from 32 pixels the stages are at 32, 32, 16, 8, 8, 4, 4. Other families are refused.

    The last norm of a residual branch starts at 1 (timm starts some at 0, where an attention
    module grafted behind it would see only zeros), so that all mechanisms start on equal terms;
    ``zero_init_last=True`` brings timm's habit back.

    Args:
        name: a model name of timm's, weights after a dot if wanted ("resnet50.a1_in1k"), or one of
            He et al.'s CIFAR networks: resnet20, resnet32, resnet44, resnet56, resnet110.
        num_classes: the size of the output.
        stem: "imagenet", the model as timm has it, or "cifar".
        pretrained: whether to download and load timm's weights; the classifier starts fresh where
            ``num_classes`` differs from theirs.
        options: passed to ``timm.create_model``; the CIFAR ResNets take ``in_chans`` and
            ``shortcut="identity"|"projection"``. JSON types only.

    Raises:
        ConfigError: an unknown name or option, or weights that do not exist.
        UnsupportedModel: the CIFAR stem on a family that has none.
        Fault: the weights could not be downloaded.

    Example:
        >>> import torch
        >>> model = host("resnet20", 10)
        >>> model(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> host_spec(model)
        HostSpec(name='resnet20', num_classes=10, stem='cifar', options={})
    """
    return _build(HostSpec(name, num_classes, stem, options), pretrained=pretrained)


def host_spec(model: nn.Module) -> HostSpec | None:
    """Return what `host` built ``model`` from, or None for a model that came from elsewhere."""
    spec = getattr(model, "host_spec", None)
    return spec if isinstance(spec, HostSpec) else None


def host_names() -> list[str]:
    """Return every name that `host` takes, the CIFAR ResNets first."""
    return [*CIFAR_RESNETS, *timm.list_models()]


def _build(spec: HostSpec, *, pretrained: bool) -> nn.Module:
    if pretrained:
        _check_pretrained(spec)
    model: Any  # nn.Module, which types every attribute as a tensor or a module
    if spec.name in CIFAR_RESNETS:
        model = cifar_resnet(spec.name, spec.num_classes, dict(spec.options))
    else:
        model = _from_timm(spec, pretrained=pretrained)
        if spec.stem == "cifar":
            _cifar_stem(model, spec.name)
    model.host_spec = spec  # a plain attribute: it survives deepcopy and pickle
    return model  # type: ignore[no-any-return]


def _from_timm(spec: HostSpec, *, pretrained: bool) -> nn.Module:
    create = functools.partial(
        timm.create_model, spec.name, pretrained=pretrained, num_classes=spec.num_classes
    )
    try:
        try:
            return create(**{"zero_init_last": False, **spec.options})
        except TypeError as error:
            if "'zero_init_last'" not in str(error) or "zero_init_last" in spec.options:
                raise
            return create(**spec.options)  # a family that starts every norm at 1 anyway
    except Exception as error:
        if pretrained and not isinstance(error, TypeError):
            raise Fault(
                f"host: expected to load the pretrained weights of {spec.name!r}, got "
                f"{type(error).__name__}: {error}. Check the network and the space on disk, or "
                "build with pretrained=False."
            ) from error
        if spec.options:
            raise _not_built(spec, error) from error
        raise


def _not_built(spec: HostSpec, error: Exception) -> ConfigError:
    listed = ", ".join(f"{key}={value!r}" for key, value in spec.options.items())
    return ConfigError(
        f"host: expected options that timm's {spec.name!r} takes, got {listed}; timm says: "
        f"{str(error) or type(error).__name__}. Leave out or correct the option."
    )


def _check_name(name: str) -> None:
    if isinstance(name, str) and name in CIFAR_RESNETS:
        return
    if not isinstance(name, str) or not is_model(name):
        raise ConfigError(unknown("host", "host", str(name), host_names()))
    try:
        get_pretrained_cfg(name)
    except RuntimeError as error:  # the architecture exists, the weights after the dot do not
        weights = timm.list_pretrained(f"{name.split('.')[0]}.*")
        raise ConfigError(unknown("host", "set of weights", name, weights)) from error


def _check_pretrained(spec: HostSpec) -> None:
    if not is_model_pretrained(spec.name):
        raise ConfigError(
            f"host: expected a host with published weights for pretrained=True, got "
            f"{spec.name!r}. Build it with pretrained=False and train it."
        )
    if spec.stem == "cifar":
        raise ConfigError(
            "host: expected stem='imagenet' with pretrained=True, got stem='cifar' for "
            f"{spec.name!r}. The weights know the ImageNet stem only; choose one of the two."
        )


def _cifar_stem(model: nn.Module, name: str) -> None:
    """Change the stem in place; the names of the state dict stay as they are."""
    if isinstance(model, ResNet) and isinstance(model.conv1, nn.Conv2d):
        stem = nn.Conv2d(
            model.conv1.in_channels, model.conv1.out_channels, 3, padding=1, bias=False
        )
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        model.set_submodule("conv1", stem)
        model.set_submodule("maxpool", nn.Identity())
        return
    if isinstance(model, EfficientNet) and name.startswith("mobilenetv2"):
        halving: list[Any] = [model.conv_stem, model.get_submodule("blocks.1.0.conv_dw")]
        # With anti-aliasing another layer halves the image in the convolution's place.
        if all(conv.stride == (2, 2) for conv in halving):
            for conv in halving:
                conv.stride = (1, 1)
            return
    raise UnsupportedModel(
        f"host: expected a ResNet or ResNeXt with a plain 7×7 stem or a MobileNetV2 for "
        f"stem='cifar', got {name!r} ({type(model).__name__}). Use stem='imagenet', or a CIFAR "
        f"network: {', '.join(CIFAR_RESNETS)}."
    )


def _as_json(options: dict[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(options, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"host: expected options of JSON types (numbers, text, lists, dicts), got {options!r} "
            f"({error}). timm takes most layers by name, as in act_layer='silu'."
        ) from error
    return plain
