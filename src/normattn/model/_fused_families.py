"""What `normattn.fuse` knows: blocks, each as the names of its layers, and mechanisms."""

import timm.models.resnet as timm_resnet
import torchvision.models.resnet as torchvision_resnet
from torch import nn

from . import cifar_resnet
from ._fused_blocks import FusedBlock, Step
from ._fused_mechanisms import FusedEAN, FusedGate, FusedNAM, FusedNAMChannel, FusedNAMSpatial


class FusedTimmBasicBlock(FusedBlock, timm_resnet.BasicBlock):
    """timm's `BasicBlock` by kernels."""

    plain = timm_resnet.BasicBlock
    inner = (Step("conv1", "bn1", "act1", slots=("drop_block",), after=("aa",)),)
    end = Step("conv2", "bn2", "act2", slots=("se", "drop_path"))


class FusedTimmBottleneck(FusedBlock, timm_resnet.Bottleneck):
    """timm's `Bottleneck` by kernels."""

    plain = timm_resnet.Bottleneck
    inner = (
        Step("conv1", "bn1", "act1"),
        Step("conv2", "bn2", "act2", slots=("drop_block",), after=("aa",)),
    )
    end = Step("conv3", "bn3", "act3", slots=("se", "drop_path"))


class FusedTorchvisionBasicBlock(FusedBlock, torchvision_resnet.BasicBlock):
    """torchvision's `BasicBlock` by kernels."""

    plain = torchvision_resnet.BasicBlock
    inner = (Step("conv1", "bn1", "relu"),)
    end = Step("conv2", "bn2", "relu")


class FusedTorchvisionBottleneck(FusedBlock, torchvision_resnet.Bottleneck):
    """torchvision's `Bottleneck` by kernels."""

    plain = torchvision_resnet.Bottleneck
    inner = (Step("conv1", "bn1", "relu"), Step("conv2", "bn2", "relu"))
    end = Step("conv3", "bn3", "relu")


class FusedCifarBasicBlock(FusedBlock, cifar_resnet.BasicBlock):
    """The CIFAR ResNets' `BasicBlock` by kernels."""

    plain = cifar_resnet.BasicBlock
    inner = (Step("conv1", "bn1", "act1"),)
    end = Step("conv2", "bn2", "act2")
    bypass = "shortcut"
    adds_in_place = False


GATES: tuple[type[FusedGate], ...] = (FusedNAMChannel, FusedNAMSpatial, FusedNAM, FusedEAN)
BLOCKS: tuple[type[FusedBlock], ...] = (
    FusedTimmBasicBlock,
    FusedTimmBottleneck,
    FusedTorchvisionBasicBlock,
    FusedTorchvisionBottleneck,
    FusedCifarBasicBlock,
)
#: From the class as it was written to its form with kernels, and back.
FORMS: dict[type[nn.Module], type[nn.Module]] = {
    **{form.plain: form for form in GATES},
    **{form.plain: form for form in BLOCKS},
}
PLAIN = {form: plain for plain, form in FORMS.items()}
