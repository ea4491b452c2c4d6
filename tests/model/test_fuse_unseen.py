"""Whoever must see the layers of a fused model sees them: hooks, tracers, transforms."""

import copy
import warnings

import pytest
import timm.models.resnet as timm_resnet
import torch
from timm.layers import BlurPool2d, DropPath
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize
from torch.testing import assert_close
from torch.testing._internal.two_tensor import TwoTensor

from normattn import create, fuse, graft
from normattn.model.fuse import fused

ATTENTION = ("none", "nam-channel", "nam-spatial", "nam", "ean", "se")
FAMILIES = (
    "timm bottleneck",
    "torchvision basic",
    "torchvision bottleneck",
    "cifar identity",
    "cifar projection",
)
#: Every family and every attention once; tracing takes seconds, so not each with each.
CASES = [
    *(("timm basic", name) for name in ATTENTION),
    *((name, "nam-channel") for name in FAMILIES),
]
with_both = pytest.mark.usefixtures("kernels_run")
with_reference = pytest.mark.usefixtures("reference_runs")


def operators(graph):
    return {str(node.target) for node in graph.nodes if node.op == "call_function"}


@with_both
@pytest.mark.parametrize(("family", "attention"), CASES)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_compiled_models_have_no_graph_break(family, attention, training, tiny, images):
    torch.compiler.reset()
    model = fuse(tiny(family, attention)).train(training)
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager", fullgraph=True)
    x, twin = (images.clone().requires_grad_() for _ in range(2))
    y, expected = compiled(x), model(twin)
    assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    assert_close(x.grad, twin.grad, rtol=1e-3, atol=1e-4)
    for name, buffer in model.named_buffers():
        assert_close(compiled._orig_mod.get_buffer(name), buffer)


@with_both
def test_a_compiled_model_is_made_of_the_ops(tiny, images):
    torch.compiler.reset()
    model = fuse(tiny("cifar identity", "nam-channel")).eval()
    seen = set()

    def backend(graph, inputs):
        seen.update(operators(graph.graph))
        return graph

    torch.compile(model, backend=backend, fullgraph=True)(images)
    assert any("normattn" in name for name in seen)
    assert not any("batch_norm" in name for name in seen)


@with_both
def test_compiled_inference_writes_over_nothing_that_is_needed(tiny, images):
    torch.compiler.reset()
    model = fuse(tiny()).eval()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for _ in range(2):
            assert_close(compiled(images), model(images))


@with_reference
@pytest.mark.parametrize(("family", "attention"), CASES)
@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_model_is_of_plain_operations(family, attention, strict, tiny, images):
    model = tiny(family, attention).eval()
    expected = model(images)
    exported = torch.export.export(fuse(model), (images,), strict=strict)
    assert not any("normattn" in name for name in operators(exported.graph))
    assert_close(exported.module()(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python:torch.jit.TracerWarning")
@with_reference
def test_a_traced_model_is_of_plain_operations(family, tiny, images):
    model = fuse(tiny(family, "nam-channel").eval())
    traced = torch.jit.trace(model, images, check_trace=False)
    assert "normattn::" not in str(traced.inlined_graph)
    assert_close(traced(images), model(images), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@with_reference
def test_a_scripted_block_is_the_plain_one(family, tiny, images):
    model = fuse(tiny(family, "none").eval())
    scripted = torch.jit.script(model)
    assert "normattn::" not in str(scripted.inlined_graph)
    assert_close(scripted(images), model(images), rtol=1e-5, atol=1e-5)
    assert len(fused(model).blocks) == 2  # and the eager one is still fused


@with_both
def test_a_symbolic_trace_sees_the_layers(family, tiny, images):
    model = fuse(tiny(family, "none").eval())
    traced = torch.fx.symbolic_trace(model)
    assert {"1.bn1", "2.conv2"} <= {str(node.target) for node in traced.graph.nodes}
    assert_close(traced(images), model(images), rtol=1e-5, atol=1e-5)


#: A vector, and how many parts of the model kernels have computed before it makes a TwoTensor.
VECTORS = {
    "1.bn1.weight": 0,
    "1.bn2.base.bias": 1,
    "1.bn2.attn.norm.weight": 1,
    "2.bn1.running_mean": 2,
    "2.bn1.running_var": 2,
}


@with_both
@pytest.mark.parametrize("name", VECTORS)
def test_layers_with_a_vector_of_a_tensor_subclass_run_as_they_are(name, tiny, images, calls):
    model = tiny("timm basic", "nam-channel").eval()
    expected = model(images)
    site, _, vector = name.rpartition(".")
    norm = fuse(model).get_submodule(site)
    value = TwoTensor(*[getattr(norm, vector).detach()] * 2)
    setattr(norm, vector, value if vector.startswith("running") else nn.Parameter(value))
    y = model(images)
    assert isinstance(y, TwoTensor)
    assert_close(y.a, expected, rtol=1e-4, atol=1e-5)
    assert calls.total() == VECTORS[name]


@with_both
@pytest.mark.parametrize("vector", ["weight", "gain"])
def test_ean_with_a_vector_of_a_tensor_subclass_runs_as_it_is(vector, images, calls):
    gate = create("ean", 3, groups=1)
    expected = gate(images)
    setattr(gate, vector, nn.Parameter(TwoTensor(*[getattr(gate, vector).detach()] * 2)))
    y = fuse(gate)(images)
    assert isinstance(y, TwoTensor)
    assert_close(y.a, expected)
    assert not calls


@with_both
def test_a_shortcut_of_a_tensor_subclass_is_added_as_before(tiny, images):
    class Twice(nn.Sequential):
        def forward(self, x):
            y = super().forward(x)
            return TwoTensor(y, y.clone())

    model = fuse(tiny("cifar projection", "nam-channel").eval())
    expected = model(images)
    model[2].shortcut = Twice(*model[2].shortcut)
    y = model(images)
    assert isinstance(y, TwoTensor)
    assert_close(y.a, expected, rtol=1e-4, atol=1e-5)


@with_both
@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch.func.jvp itself scripts decompositions
@pytest.mark.parametrize("attention", ["nam-channel", "nam", "ean"])
def test_transforms_of_torch_func_have_all_derivatives(attention, tiny, images):
    plain = tiny("timm basic", attention).eval()
    model, x = fuse(copy.deepcopy(plain)), images[:1, :, :2, :2]
    x = images[:1] if attention == "nam" else x

    def loss(model):
        return lambda x: model(x).square().sum()

    assert_close(torch.func.jvp(loss(model), (x,), (x,)), torch.func.jvp(loss(plain), (x,), (x,)))
    if attention == "nam":
        return  # its pixels ask for a memory order that vmap cannot tell
    assert_close(
        torch.func.vmap(lambda x: model(x[None]))(images),
        torch.func.vmap(lambda x: plain(x[None]))(images),
    )
    assert_close(torch.func.hessian(loss(model))(x), torch.func.hessian(loss(plain))(x))


@with_both
@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("attention", ["nam-channel", "nam", "ean"])
def test_tangents_are_carried_forward(attention, tiny, images):
    found = []
    for model in (tiny("timm basic", attention).eval(), fuse(tiny("timm basic", attention).eval())):
        with forward_ad.dual_level():
            y = model(forward_ad.make_dual(images, images.flip(0)))
            found.append(forward_ad.unpack_dual(y).tangent)
    assert_close(found[1], found[0])


HOOKS = {
    "forward": lambda layer, call: layer.register_forward_hook(call),
    "pre-forward": lambda layer, call: layer.register_forward_pre_hook(call),
    "backward": lambda layer, call: layer.register_full_backward_hook(call),
    "pre-backward": lambda layer, call: layer.register_full_backward_pre_hook(call),
}
LAYERS = ["1.bn1", "1.act1", "1.bn2", "1.bn2.base", "1.bn2.attn", "1.bn2.attn.norm", "1.act2"]


@with_reference
@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("site", LAYERS)
def test_a_hook_on_a_layer_that_is_passed_over_is_called(site, kind, tiny, images):
    plain, model = (tiny("cifar projection", "nam-channel") for _ in range(2))
    seen = []
    for each in (plain, fuse(model)):
        for module in each.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # which full backward hooks do not allow, in either form
        HOOKS[kind](each.get_submodule(site), lambda *given: seen.append(given[0]))
        each(images).sum().backward()
    assert seen == [plain.get_submodule(site), model.get_submodule(site)]


@with_both
def test_hooks_on_all_modules_see_each_layer(tiny, images):
    model, seen = fuse(tiny("timm basic", "nam-channel").eval()), []
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(m))
    try:
        model(images)
    finally:
        handle.remove()
    assert {model.get_submodule(site) for site in LAYERS} <= set(seen)


@with_both
def test_a_forward_that_was_replaced_on_the_object_is_called(tiny, images):
    model = fuse(tiny("timm basic", "nam-channel").eval())
    model[1].bn1.forward = lambda x: torch.zeros_like(x)
    before = model(images)
    nn.init.normal_(model[1].conv1.weight)
    assert torch.equal(model(images), before)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


@with_both
def test_parametrized_layers_run_as_they_are(tiny, images):
    model = fuse(tiny("timm basic", "nam-channel").eval())
    parametrize.register_parametrization(model[1].bn1, "weight", Doubled())
    parametrize.register_parametrization(model[2].bn2.attn.norm, "bias", Doubled())
    expected = tiny("timm basic", "nam-channel").eval()
    with torch.no_grad():
        expected[1].bn1.weight.mul_(2)
        expected[2].bn2.attn.norm.bias.mul_(2)
    assert_close(model(images), expected(images), rtol=1e-4, atol=1e-5)


class Shifted(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + 1


REPLACED = {
    "another norm": ("bn1", lambda: nn.GroupNorm(2, 8)),
    "a norm's subclass": ("bn1", lambda: Shifted(8)),
    "a norm without scale": ("bn1", lambda: nn.BatchNorm2d(8, affine=False)),
    "a norm without shift": ("bn1", lambda: nn.BatchNorm2d(8, bias=False)),
    "another last norm": ("bn2", lambda: nn.GroupNorm(2, 8)),
    "another activation": ("act1", nn.SiLU),
    "another last activation": ("act2", lambda: nn.LeakyReLU(0.1)),
    "a dropped block": ("drop_block", lambda: nn.Dropout(0.5)),
    "anti-aliasing": ("aa", lambda: BlurPool2d(8, stride=1)),
    "two mechanisms": ("se", lambda: create("se", 8, reduction=4)),
    "a drop path": ("drop_path", lambda: DropPath(0.5)),
}


@with_both
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("what", REPLACED)
def test_layers_that_no_kernel_knows_run_as_they_are(what, training, tiny, images):
    name, layer = REPLACED[what]
    found = []
    for fusing in (False, True):
        model = tiny("timm basic", "nam-channel")
        torch.manual_seed(5)
        setattr(model[1], name, layer())
        model.train(training)
        if fusing:
            fuse(model)
        torch.manual_seed(6)
        found.append(model(images))
    assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@with_both
def test_a_drop_path_that_drops_nothing_does_not_stop_the_kernel(tiny, images, calls):
    model = tiny("timm basic", "none")
    model[1].drop_path = DropPath(0.5)
    fuse(model.eval())(images)
    assert calls == {"block_tail_fixed": 4}
    calls.clear()
    model.train()(images)
    assert calls == {"block_tail": 3}
    assert "DropPath" in fused(model).blocks[0].plain[0]


@with_both
def test_attention_in_front_of_a_drop_path_is_in_the_kernel_when_that_is_idle(images, calls):
    model = timm_resnet.ResNet(
        timm_resnet.BasicBlock,
        (1, 1, 1, 1),
        channels=(8, 8, 8, 8),
        num_classes=3,
        drop_path_rate=0.5,
    )
    graft(model, "nam-channel", input_size=32).eval()
    assert [type(layer[0].drop_path).__name__ for layer in (model.layer1, model.layer2)] == [
        "NoneType",
        "GraftBefore",
    ]
    x = torch.randn(2, 3, 32, 32)
    expected = model(x)
    assert_close(fuse(model)(x), expected, rtol=1e-4, atol=1e-5)
    assert calls == {"block_tail_fixed": 8}
    calls.clear()
    model.train()(x)
    assert calls == {"block_tail": 5, "norm_gate": 3}


@with_both
def test_a_shortcut_of_another_type_is_added_as_before(tiny, images):
    class Widened(nn.Sequential):
        def forward(self, x):
            return super().forward(x).double()

    for family in ("timm basic", "cifar projection"):
        found = []
        for fusing in (False, True):
            model = tiny(family, "nam-channel").eval()
            name = "downsample" if family == "timm basic" else "shortcut"
            setattr(model[2], name, Widened(*getattr(model[2], name)))
            found.append((fuse(model) if fusing else model)(images))
        assert found[0].dtype == found[1].dtype
        assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@with_both
def test_errors_are_those_of_the_plain_form(tiny):
    gate = fuse(create("nam-spatial", 3, size=(4, 6)))
    for x, message in (
        (torch.randn(2, 3, 6, 4), "expected maps of 4×6"),
        (torch.randn(2, 5, 4, 6), r"expected an input of shape \(B, 3, H, W\)"),
        (torch.zeros(2, 3, 4, 6, dtype=torch.long), "expected a floating-point input"),
    ):
        with pytest.raises(ValueError, match=message):
            gate(x)
    for name in ("nam-channel", "ean"):
        options = {"groups": 1} if name == "ean" else {}
        with pytest.raises(ValueError, match="parameters' type"):
            fuse(create(name, 3, **options)).bfloat16()(torch.randn(2, 3, 4, 4))
    with pytest.raises(ValueError, match="expected more than one value"):
        fuse(create("nam-channel", 3))(torch.randn(1, 3, 1, 1))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        fuse(tiny("timm basic", "none")).train()(torch.randn(1, 3, 1, 1))


@with_both
def test_synchronised_norms_run_as_they_are_and_are_told_once(tiny, images):
    plain = nn.SyncBatchNorm.convert_sync_batchnorm(tiny("timm basic", "nam"))
    model = nn.SyncBatchNorm.convert_sync_batchnorm(fuse(tiny("timm basic", "nam")))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        y = model(images)
        model(images)
        copy.deepcopy(model)(images)
        tiny("timm basic", "nam")(images)
    assert [str(each.message).partition(".")[0] for each in said] == [
        "fuse: expected BatchNorm2d, got SyncBatchNorm at '1'"
    ]
    assert_close(y, plain(images))
    report = fused(model)
    assert report.blocks == report.mechanisms == ()
    assert all("SyncBatchNorm" in layer.plain[0] for layer in report.left)
