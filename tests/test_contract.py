"""What every mechanism in the registry promises, whichever paper it comes from."""

import copy
import inspect
import io
import pickle
from functools import partial

import pytest
import timm
import torch
from torch.testing import assert_close

from normattn.attention import MECHANISMS, Gate, create
from normattn.attention._narrow import Bottleneck
from normattn.errors import ConfigError, InputError

CHANNELS, SIZE = 32, (5, 6)
NAMES = list(MECHANISMS)
LEARNED = [name for name in NAMES if name not in ("none", "half")]
ANY_SIZE = [name for name in NAMES if not MECHANISMS[name].needs_size]
SMALL = {"ean": {"groups": 2}, **{name: {"reduction": 2} for name in ("se", "bam", "cbam")}}

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _norm(prefix):
    return [f"{prefix}.{name}" for name in _NORM]


def _layer(*prefixes):
    return [f"{prefix}.{name}" for prefix in prefixes for name in ("weight", "bias")]


def _pooled(prefix):
    return [f"{prefix}.conv.weight", *_norm(f"{prefix}.norm")]


# Checkpoints outlive code: renaming a key is a breaking change.
KEYS = {
    "none": [],
    "half": [],
    "nam-channel": _norm("norm"),
    "nam-spatial": _norm("norm"),
    "nam": _norm("channel.norm") + _norm("spatial.norm"),
    "ean": ["weight", "bias", "gain", "offset"],
    "se": ["reduce.weight", "expand.weight"],
    "bam": _layer("channel.0")
    + _norm("channel.1")
    + _layer("channel.3", "spatial.0")
    + _norm("spatial.1")
    + _layer("spatial.3")
    + _norm("spatial.4")
    + _layer("spatial.6")
    + _norm("spatial.7")
    + _layer("spatial.9"),
    "cbam": _layer("reduce", "expand") + _pooled("spatial"),
    "triplet": _pooled("hw") + _pooled("cw") + _pooled("hc"),
}


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)


def build(name, channels=CHANNELS, size=SIZE, **options):
    """Build a mechanism whose parameters and statistics all differ from their initial values."""
    if MECHANISMS[name].needs_size:
        options["size"] = size
    module = create(name, channels, **options)
    for key, tensor in module.state_dict().items():
        if key.endswith("running_var"):
            torch.nn.init.uniform_(tensor, 0.5, 2.0)
        elif tensor.is_floating_point():
            torch.nn.init.normal_(tensor)
    return module


def image(*shape, dtype=None):
    return torch.randn(shape or (3, CHANNELS, *SIZE), dtype=dtype)


def in_both_modes(module):
    for training in (True, False):
        yield module.train(training)


@pytest.mark.parametrize("name", NAMES)
def test_shape_type_and_device_are_kept(name):
    x = image(dtype=torch.float64)
    for module in in_both_modes(build(name, dtype=torch.float64)):
        y = module(x)
        assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device)


@pytest.mark.parametrize("name", NAMES)
def test_output_is_the_input_times_a_gate_that_broadcasts(name):
    x = image(dtype=torch.float64)
    for module in in_both_modes(build(name, dtype=torch.float64)):
        gate = module.gate(x)
        assert torch.broadcast_shapes(gate.shape, x.shape) == x.shape
        assert gate.ge(0).all()
        assert_close(module(x), x * gate)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_match_finite_differences(name, training):
    options = SMALL.get(name, {})
    module = build(name, 4, (2, 3), dtype=torch.float64, **options).train(training)
    x = image(2, 4, 2, 3, dtype=torch.float64).requires_grad_()
    # Buffers go in as copies: a running statistic that moved would look like a wrong gradient.
    buffers = {key: tensor.clone() for key, tensor in module.named_buffers()}
    names, parameters = [], []
    for key, tensor in module.named_parameters():
        names.append(key)
        parameters.append(tensor)

    def output(x, *parameters):
        state = dict(zip(names, parameters, strict=True)) | copy.deepcopy(buffers)
        return torch.func.functional_call(module, state, (x,))

    if name.startswith("nam"):  # detached importance: a gradient that is not the derivative in γ
        for part in [m for m in module.modules() if hasattr(m, "detach_importance")]:
            part.detach_importance = False
    assert torch.autograd.gradcheck(output, (x, *parameters))


@pytest.mark.parametrize("name", LEARNED)
def test_every_parameter_gets_a_gradient(name):
    module = build(name)
    module(image()).square().sum().backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_treats_each_image_by_itself_and_leaves_the_state_alone(name):
    module, x = build(name).eval(), image()
    before = copy.deepcopy(module.state_dict())
    alone = torch.cat([module(x[i : i + 1]) for i in range(len(x))])
    assert_close(alone, module(x))
    assert torch.equal(module(x), module(x))
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_has_the_published_keys_and_goes_round(name):
    module, x = build(name).eval(), image()
    assert list(module.state_dict()) == KEYS[name]
    other = build(name).eval()
    other.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(other(x), module(x))


@pytest.mark.parametrize("name", NAMES)
def test_copies_behave_as_the_original(name):
    module, x = build(name).eval(), image()
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for twin in (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
    ):
        assert torch.equal(twin(x), module(x))


@pytest.mark.parametrize("name", NAMES)
def test_repr_names_the_class_and_its_channels(name):
    cls = MECHANISMS[name]
    assert repr(build(name)).startswith(f"{cls.__name__}(")
    assert f"channels={CHANNELS}" in repr(build(name))


@pytest.mark.parametrize("name", NAMES)
def test_memory_order_is_kept_and_changes_no_value(name):
    x = image()
    for module in in_both_modes(build(name)):
        expected = module(x)
        y = module(x.to(memory_format=torch.channels_last))
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert_close(y, expected, rtol=1e-5, atol=1e-5)
        assert_close(module(image(3, *SIZE, CHANNELS).permute(0, 3, 1, 2)).shape, x.shape)


@pytest.mark.parametrize("name", NAMES)
def test_strided_input_gives_the_values_of_its_copy(name):
    x = image(3, CHANNELS, 10, 12)[:, :, ::2, ::2]
    module = build(name).eval()
    assert_close(module(x), module(x.contiguous()))


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 3, 5), (2, 1, 7), (3, 9, 1)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_small_and_odd_maps_work(name, shape):
    batch, *size = shape
    x = image(batch, CHANNELS, *size)
    for module in in_both_modes(build(name, size=tuple(size))):
        if name == "bam" and batch == 1 and module.training:
            continue  # refused, in test_bam.py
        y = module(x)
        assert y.shape == x.shape
        assert y.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_single_value_to_normalise_works_or_is_refused_in_our_words(name):
    x, module = image(1, CHANNELS, 1, 1), build(name, size=(1, 1))
    assert module.eval()(x).isfinite().all()
    if name in ("none", "half", "ean", "se", "nam-spatial"):
        assert module.train()(x).isfinite().all()
    else:
        with pytest.raises(InputError, match=r"expected (more than one value|at least 2 images)"):
            module.train()(x)


@pytest.mark.parametrize("name", NAMES)
def test_nan_in_the_input_is_not_hidden(name):
    x = image()
    x[1, 2, 3, 4] = torch.nan
    for module in in_both_modes(build(name)):
        assert module(x)[1, 2, 3, 4].isnan()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_module_agrees_with_double_and_computes_its_gate_in_single(name, dtype):
    module = build(name).to(dtype)
    x = image(16, CHANNELS, *SIZE).to(dtype)
    for half in in_both_modes(module):
        exact = copy.deepcopy(half).double()
        y, expected = half(x), exact(x.double())
        assert y.dtype == dtype
        error = (y.double() - expected).abs().max() / expected.abs().max()
        assert error < 8 * torch.finfo(dtype).eps
    if name in LEARNED:
        assert module.gate(x).dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_autocast_leaves_the_gate_in_single_precision(name):
    module, x = build(name).eval(), image()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(x), module.float()(x))
        y = module(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert_close(y, module(x.bfloat16().float()).bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize("name", LEARNED)
def test_input_wider_than_the_parameters_is_refused(name):
    with pytest.raises(InputError, match=r"\(torch\.bfloat16\) can hold, got torch\.float32"):
        build(name).bfloat16()(image())


@pytest.mark.parametrize("name", LEARNED)
def test_parameters_are_made_on_the_device_and_in_the_type_asked_for(name):
    size = {"size": SIZE} if MECHANISMS[name].needs_size else {}
    module = create(name, CHANNELS, device="meta", dtype=torch.float64, **size)
    for tensor in (*module.parameters(), *module.buffers()):
        assert tensor.is_meta
        assert tensor.dtype in (torch.float64, torch.int64)
    assert module(image(dtype=torch.float64).to("meta")).shape == (3, CHANNELS, *SIZE)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NAMES)
def test_compiles_to_one_graph(name, training):
    module, x = build(name).train(training), image()
    expected = copy.deepcopy(module)(x)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x), expected)


@pytest.mark.parametrize("name", NAMES)
def test_exports_with_free_batch_and_where_it_has_no_fixed_size_free_map(name):
    module, x = build(name).eval(), image()
    free = {0: torch.export.Dim("batch")}
    smaller = x[:2]
    if name in ANY_SIZE:
        free |= {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
        smaller = x[:2, :, :4, :3]
    exported = torch.export.export(module, (x,), dynamic_shapes=(free,)).module()
    assert_close(exported(x), module(x))
    assert_close(exported(smaller), module(smaller))


@pytest.mark.parametrize("name", NAMES)
def test_takes_timms_attention_slot(name):
    """Every option has a default, so the class itself fits; a fixed size does not, and says so."""
    attention = MECHANISMS[name]
    make = partial(
        timm.create_model,
        "resnet18",
        num_classes=4,
        channels=(16, 16, 32, 32),
        device="cpu",
        dtype=torch.float32,
    )
    if attention.needs_size:
        with pytest.raises(ConfigError, match=r"expected size to be \(H, W\).*graft finds it"):
            make(block_args={"attn_layer": attention})
        # One size fits the first stage only, and the second one says so.
        model = make(block_args={"attn_layer": partial(attention, size=(8, 8))})
        with pytest.raises(InputError, match=r"expected maps of 8×8, .* got 4×4"):
            model(image(2, 3, 32, 32))
        return
    for layer in (attention, partial(attention)):
        model = make(block_args={"attn_layer": layer})
        assert sum(isinstance(m, attention) for m in model.modules()) == 8
        model(image(2, 3, 32, 32)).sum().backward()


@pytest.mark.parametrize("name", NAMES)
def test_synchronised_batch_norm_takes_the_place_of_ours(name):
    """Conversion swaps children, so a norm that was not called as a child would be lost."""
    module = build(name)
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(module))
    kinds = {type(m).__name__ for m in converted.modules() if "BatchNorm" in type(m).__name__}
    assert kinds == ({"SyncBatchNorm"} if any("running_mean" in k for k in KEYS[name]) else set())
    assert list(converted.state_dict()) == KEYS[name]
    assert_close(converted.eval()(image()).shape, (3, CHANNELS, *SIZE))


@pytest.mark.parametrize("name", NAMES)
def test_norms_are_called_as_modules(name):
    module = build(name)
    norms = [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    called = []
    for norm in norms:
        norm.register_forward_hook(lambda m, *_: called.append(m))
    module(image())
    assert set(called) == set(norms)


@pytest.mark.parametrize("name", NAMES)
def test_scales_are_the_modules_own_parameters(name):
    module = build(name)
    own = {id(p) for p in module.parameters()}
    assert all(id(scale) in own for scale in module.scales())
    family = {"nam-channel": 1, "nam-spatial": 1, "nam": 2, "ean": 1}
    assert len(module.scales()) == family.get(name, 0)
    assert module.scales_penalised is name.startswith("nam")


def test_sites_and_sizes_are_those_of_the_papers():
    assert [n for n in NAMES if MECHANISMS[n].default_sites != "blocks"] == ["bam"]
    assert MECHANISMS["bam"].default_sites == "stages"
    assert [n for n in NAMES if MECHANISMS[n].needs_size] == ["nam-spatial", "nam"]


@pytest.mark.parametrize("name", NAMES)
def test_constructor_takes_channels_first_then_at_most_six_named_options(name):
    first, *rest = inspect.signature(MECHANISMS[name]).parameters.values()
    assert first.name == "channels"
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in rest)
    assert [p.name for p in rest][-2:] == ["device", "dtype"]
    assert len(options_of(name)) <= 6


@pytest.mark.parametrize("name", NAMES)
def test_docstring_has_every_section_in_order(name):
    text = MECHANISMS[name].__doc__
    sections = ["::", "Args:", "Shape:", "Raises:", "Reference:", "Fidelity:", "Example:"]
    places = [text.index(section) for section in sections]
    assert places == sorted(places)


@pytest.mark.parametrize("shape", [(2, 33, 5, 6), (32, 5, 6), (2, 32, 5, 6, 7)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_wrong_shape_is_refused_by_name(name, shape):
    who = MECHANISMS[name].__name__
    with pytest.raises(InputError, match=rf"^{who}: expected .*\(B, 32, H, W\), got \("):
        build(name)(torch.zeros(shape))


@pytest.mark.parametrize("name", NAMES)
def test_empty_map_is_refused_by_name(name):
    who = MECHANISMS[name].__name__
    with pytest.raises(InputError, match=rf"^{who}: expected a map of at least 1×1, got \("):
        build(name)(torch.zeros(2, 32, 0, 6))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.complex64], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_input_that_is_not_floating_point_is_refused_by_name(name, dtype):
    who = MECHANISMS[name].__name__
    with pytest.raises(InputError, match=rf"^{who}: expected a floating-point input, got {dtype}"):
        build(name)(torch.zeros(2, CHANNELS, *SIZE, dtype=dtype))


@pytest.mark.parametrize("channels", [0, -1, 2.0, "8", True, None], ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_wrong_channels_are_refused_by_name(name, channels):
    who = MECHANISMS[name].__name__
    with pytest.raises(InputError, match=rf"^{who}: expected channels to be an integer >= 1"):
        MECHANISMS[name](channels)


def options_of(name):
    return list(inspect.signature(MECHANISMS[name]).parameters)[1:-2]


COUNTS = ("reduction", "groups", "dilation", "kernel_size")
COUNTED = [(name, option) for name in NAMES for option in options_of(name) if option in COUNTS]


@pytest.mark.parametrize("value", [0, -2, 1.5, "4", True, None], ids=repr)
@pytest.mark.parametrize(("name", "count"), COUNTED)
def test_wrong_counts_are_refused_by_name(name, count, value):
    who = MECHANISMS[name].__name__
    with pytest.raises(ConfigError, match=rf"^{who}: expected {count} to be an integer >= 1, got"):
        create(name, CHANNELS, **{count: value})


# C of every block of ResNet-50; BAM stands behind stages 1 to 3.
RESNET50 = [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3
# Table 1 of NAM (arXiv 2111.12419): parameters of ResNet-50 for CIFAR-100 with each mechanism,
# in the exact counts that round to every printed digit; its maps are 32, 16, 8 and 4 pixels wide.
TABLE_1 = {
    "none": 23_705_252,
    "se": 26_220_196,
    "bam": 24_063_319,
    "cbam": 26_237_844,
    "triplet": 23_710_052,
    "nam-channel": 23_735_460,
    "nam-spatial": 23_714_308,
    "nam": 23_744_516,
    "ean": 23_705_252 + 3_776,
}


@pytest.mark.parametrize("name", TABLE_1)
def test_parameters_of_resnet50_come_out_as_in_the_papers_table(name):
    added = 0
    for channels in [256, 512, 1024] if name == "bam" else RESNET50:
        width = 32 * 256 // channels
        size = {"size": (width, width)} if MECHANISMS[name].needs_size else {}
        module = create(name, channels, device="meta", **size)
        added += sum(parameter.numel() for parameter in module.parameters())
    assert TABLE_1["none"] + added == TABLE_1[name]


def test_every_registered_class_is_a_final_gate():
    """A mechanism writes its gate; only the absence of attention has a forward of its own."""
    for name, cls in MECHANISMS.items():
        assert cls.__bases__ in ((Gate,), (Bottleneck, Gate))
        assert ("forward" in vars(cls)) is (name == "none")
