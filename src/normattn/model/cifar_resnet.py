"""The thin residual networks that He et al. trained on CIFAR: stages of 16, 32, 64 channels."""

from typing import Any, Literal

from torch import Tensor, nn

from ..errors import ConfigError

#: Blocks in each of the three stages, by name: depth = 6n + 2.
CIFAR_RESNETS: dict[str, int] = {
    "resnet20": 3,
    "resnet32": 5,
    "resnet44": 7,
    "resnet56": 9,
    "resnet110": 18,
}

Shortcut = Literal["identity", "projection"]
_SHORTCUTS = ("identity", "projection")


class Subsample(nn.Module):
    """The parameter-free shortcut (He's option A): every second pixel, new channels zero.

    Args:
        added: the number of zero channels appended.

    Shape:
        x: ``(B, C, H, W)``. y: ``(B, C + added, ⌈H/2⌉, ⌈W/2⌉)``.
    """

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.added))

    def extra_repr(self) -> str:
        return f"added={self.added}"


class BasicBlock(nn.Module):
    """``y = ReLU(BN(conv(ReLU(BN(conv(x))))) + shortcut(x))``, with 3×3 convolutions.

    Args:
        in_channels: channels of x.
        channels: channels of y.
        stride: of the first convolution; 2 at the start of a stage.
        shortcut: "identity" (option A) or "projection" (option B, a 1×1 convolution with norm),
            where the shape changes; elsewhere the shortcut is x itself.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels or stride != 1:
            self.shortcut = (
                nn.Sequential(
                    nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False),
                    nn.BatchNorm2d(channels),
                )
                if shortcut == "projection"
                else Subsample(channels - in_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        branch = self.act1(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        y: Tensor = self.act2(branch + self.shortcut(x))
        return y


class CifarResNet(nn.Module):
    """A CIFAR ResNet of 6n + 2 layers, with the surface of a timm model.

    Args:
        blocks: n, the blocks in each stage.
        num_classes: the size of the output.
        in_chans: channels of the images, named as timm names them.
        shortcut: "identity" (the paper's CIFAR networks) or "projection".

    Shape:
        x: ``(B, in_chans, H, W)``, 32×32 in the paper. y: ``(B, num_classes)``.

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.

    Raises:
        ConfigError: an option has a value that it cannot take.

    Example:
        >>> import torch
        >>> CifarResNet(3, num_classes=10)(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        blocks: int,
        *,
        num_classes: int,
        in_chans: int = 3,
        shortcut: Shortcut = "identity",
    ) -> None:
        super().__init__()
        if shortcut not in _SHORTCUTS:
            raise ConfigError(
                f"resnet: expected shortcut to be one of {_SHORTCUTS}, got {shortcut!r}."
            )
        if isinstance(in_chans, bool) or not isinstance(in_chans, int) or in_chans < 1:
            raise ConfigError(f"resnet: expected in_chans to be an integer >= 1, got {in_chans!r}.")
        self.num_classes = num_classes
        self.num_features = 64
        self.conv1 = _conv3x3(in_chans, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.act1 = nn.ReLU(inplace=True)
        self.layer1 = _stage(16, 16, blocks, 1, shortcut)
        self.layer2 = _stage(16, 32, blocks, 2, shortcut)
        self.layer3 = _stage(32, 64, blocks, 2, shortcut)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, ``(B, 64, ⌈H/4⌉, ⌈W/4⌉)``."""
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        return x  # noqa: RET504  # four steps that read alike

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Average over the pixels and classify; ``pre_logits`` stops before the classifier."""
        pooled = x.mean(dim=(2, 3))
        y: Tensor = pooled if pre_logits else self.fc(pooled)
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def cifar_resnet(name: str, num_classes: int, options: dict[str, Any]) -> CifarResNet:
    """Build the CIFAR ResNet ``name``; an option that it does not take is a ConfigError."""
    known = {"in_chans", "shortcut"}
    if unknown := sorted(options.keys() - known):
        raise ConfigError(
            f"host: expected options that {name!r} takes ({', '.join(sorted(known))}), "
            f"got {', '.join(unknown)}. Leave them out, or take one of timm's ResNets."
        )
    return CifarResNet(CIFAR_RESNETS[name], num_classes=num_classes, **options)


def _conv3x3(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)


def _stage(
    in_channels: int, channels: int, blocks: int, stride: int, shortcut: Shortcut
) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride, shortcut)
    return nn.Sequential(
        first, *(BasicBlock(channels, channels, 1, shortcut) for _ in range(blocks - 1))
    )
