import copy
import dataclasses
import json
import pickle

import pytest
import timm
import torch
from torch import nn

from normattn.errors import ConfigError, Fault, UnsupportedModel
from normattn.model.cifar_resnet import CIFAR_RESNETS
from normattn.model.hosts import HostSpec, host, host_names, host_spec


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def stage_sizes(model: nn.Module, names: list[str], side: int) -> list[int]:
    """Return the height of what the named modules put out."""
    sizes: list[int] = []
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda m, x, y: sizes.append(y.shape[2]))
        for name in names
    ]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return sizes


# He et al., table 6: 0.27M, 0.46M, 0.66M, 0.85M, 1.7M, with the parameter-free shortcut.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
    ],
)
def test_cifar_resnets_have_the_published_parameters_and_depth(name: str, expected: int) -> None:
    model = host(name, 10)
    assert parameters(model) == expected
    depth = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules())
    assert name == f"resnet{depth}"


def test_cifar_resnets_halve_the_image_at_stages_2_and_3() -> None:
    stages = ["conv1", "layer1", "layer2", "layer3"]
    assert stage_sizes(host("resnet20", 10), stages, side=32) == [32, 32, 16, 8]


def test_cifar_resnets_take_odd_sizes_and_other_channels() -> None:
    assert host("resnet20", 10, in_chans=1)(torch.zeros(2, 1, 9, 7)).shape == (2, 10)


def test_the_parameter_free_shortcut_takes_every_second_pixel_and_adds_zero_channels() -> None:
    block = host("resnet20", 10).get_submodule("layer2.0")
    x = torch.randn(2, 16, 5, 6)
    y = block.get_submodule("shortcut")(x)
    expected = torch.zeros(2, 32, 3, 3)
    for row in range(3):
        for column in range(3):
            expected[:, :16, row, column] = x[:, :, 2 * row, 2 * column]
    torch.testing.assert_close(y, expected, rtol=0, atol=0)


def test_the_projection_shortcut_adds_a_convolution_and_a_norm_where_the_shape_changes() -> None:
    added = parameters(host("resnet20", 10, shortcut="projection")) - parameters(
        host("resnet20", 10)
    )
    assert added == (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)


def test_a_cifar_resnet_block_is_a_residual_block() -> None:
    block = host("resnet20", 10).eval().get_submodule("layer1.0")
    x = torch.randn(2, 16, 8, 8)
    inner = torch.relu(block.bn1(block.conv1(x)))
    expected = torch.relu(block.bn2(block.conv2(inner)) + x)
    torch.testing.assert_close(block(x), expected)


def test_cifar_resnets_have_the_surface_of_timm_models() -> None:
    model = host("resnet20", 7).eval()
    x = torch.randn(2, 3, 32, 32)
    features = model.forward_features(x)
    assert features.shape == (2, model.num_features, 8, 8)
    assert model.forward_head(features, pre_logits=True).shape == (2, 64)
    torch.testing.assert_close(model.forward_head(features), model(x))
    assert model.num_classes == 7


def test_no_name_of_ours_hides_one_of_timm() -> None:
    assert not set(CIFAR_RESNETS) & set(timm.list_models())
    assert len(host_names()) == len(set(host_names()))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_the_cifar_stem_of_a_resnet_keeps_the_resolution(name: str) -> None:
    model = host(name, 10, stem="cifar")
    stages = ["conv1", "layer1", "layer2", "layer3", "layer4"]
    assert stage_sizes(model, stages, side=32) == [32, 32, 16, 8, 4]
    assert model.get_submodule("conv1").kernel_size == (3, 3)
    plain = timm.create_model(name, num_classes=10).state_dict()
    changed = [k for k, v in model.state_dict().items() if v.shape != plain[k].shape]
    assert model.state_dict().keys() == plain.keys()
    assert changed == ["conv1.weight"]


def test_the_cifar_stem_of_mobilenetv2_halves_three_times_and_changes_no_parameter() -> None:
    model = host("mobilenetv2_100", 10, stem="cifar")
    stages = ["conv_stem", *(f"blocks.{i}" for i in range(7))]
    assert stage_sizes(model, stages, side=32) == [32, 32, 32, 16, 8, 8, 4, 4]
    assert parameters(model) == parameters(host("mobilenetv2_100", 10))


def test_the_cifar_stem_takes_the_channels_of_the_images() -> None:
    model = host("resnet18", 10, stem="cifar", in_chans=1)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("convnext_atto", {}),
        ("resnet18d", {}),  # three convolutions in its stem
        ("efficientnet_b0", {}),
        ("mobilenetv2_050", {"aa_layer": "blurpc"}),  # another layer carries the strides
    ],
)
def test_a_family_without_a_cifar_stem_is_refused_by_name(name: str, options: dict) -> None:
    with pytest.raises(UnsupportedModel, match=f"{name}.*Use stem='imagenet', or a CIFAR network"):
        host(name, 10, stem="cifar", **options)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "regnety_002"])
def test_the_last_norms_of_the_branches_start_at_one(name: str) -> None:
    norms = [m for m in host(name, 10).modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(bool((norm.weight == 1).all()) for norm in norms)


def test_zero_init_last_can_be_asked_for() -> None:
    model = host("resnet18", 10, zero_init_last=True)
    assert not model.get_submodule("layer1.0.bn2").weight.any()


def test_the_seed_decides_the_weights() -> None:
    def build() -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        return host("resnet18", 10, stem="cifar").state_dict()

    first, second = build(), build()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    "spec",
    [
        HostSpec("resnet20", 10, options={"shortcut": "projection", "in_chans": 1}),
        HostSpec("resnet18", 100, "cifar"),
        HostSpec("mobilenetv2_050", 5, options={"drop_rate": 0.2}),
    ],
)
def test_a_spec_survives_json_and_builds_the_same_host(spec: HostSpec) -> None:
    model = host(spec.name, spec.num_classes, stem=spec.stem, **spec.options)
    assert host_spec(model) == spec
    again = HostSpec(**json.loads(json.dumps(dataclasses.asdict(spec))))
    assert again == spec
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in again.build().state_dict().items()} == shapes


def test_the_spec_survives_deepcopy_and_pickle() -> None:
    model = host("resnet20", 10)
    spec = HostSpec("resnet20", 10)
    assert host_spec(copy.deepcopy(model)) == spec
    assert host_spec(pickle.loads(pickle.dumps(model))) == spec


def test_the_spec_adds_nothing_to_the_state_dict() -> None:
    assert (
        host("resnet18", 1000).state_dict().keys()
        == timm.create_model("resnet18").state_dict().keys()
    )


def test_a_spec_does_not_share_its_options_with_the_caller() -> None:
    options = {"block_args": {"attn_layer": "se"}}
    spec = HostSpec("resnet18", 10, options=options)
    options["block_args"]["attn_layer"] = "eca"
    assert spec.options == {"block_args": {"attn_layer": "se"}}


def test_a_tuple_among_the_options_becomes_the_list_that_a_file_gives_back() -> None:
    assert HostSpec("resnet18", 10, options={"layers": (1, 1)}).options == {"layers": [1, 1]}


def test_a_cifar_resnet_has_one_stem_whatever_is_said() -> None:
    assert HostSpec("resnet20", 10, "imagenet") == HostSpec("resnet20", 10, "cifar")


def test_a_model_from_elsewhere_has_no_spec() -> None:
    assert host_spec(nn.Linear(1, 1)) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet21", "host: expected a known host, got 'resnet21'.*Did you mean .*'resnet20'"),
        ("resent50", "Did you mean .*'resnet50'"),
        ("hf-hub:timm/resnet50.a1_in1k", "expected a known host"),
        ("local-dir:/tmp", "expected a known host"),
        ("resnet50.a1_in2k", "expected a known set of weights.*Did you mean 'resnet50.a1_in1k'"),
        (50, "expected a known host, got '50'"),
        (["resnet20"], "expected a known host"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        host(name, 10)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"bogus": 3}, "expected options that timm's 'resnet18' takes, got bogus=3"),
        ("resnet18", {"act_layer": "nope"}, "takes, got act_layer='nope'"),
        ("mobilenetv2_050", {"bogus": 3}, "takes, got bogus=3"),
        ("mobilenetv2_050", {"zero_init_last": True}, "takes, got zero_init_last=True"),
        ("resnet20", {"bogus": 3}, r"'resnet20' takes \(in_chans, shortcut\), got bogus"),
        ("resnet20", {"shortcut": "b"}, "expected shortcut to be one of"),
        ("resnet20", {"in_chans": 0}, "expected in_chans to be an integer >= 1, got 0"),
        ("resnet18", {"act_layer": nn.SiLU}, "expected options of JSON types"),
        ("resnet18", {"drop_rate": float("nan")}, "expected options of JSON types"),
        (
            "resnet18",
            {"checkpoint_path": "x.pt"},
            "options of the architecture, got 'checkpoint_path'",
        ),
        (
            "resnet18",
            {"pretrained_cfg": {"file": "x"}},
            "of the architecture, got 'pretrained_cfg'",
        ),
        ("resnet18", {"features_only": True}, "of the architecture, got 'features_only'"),
    ],
)
def test_an_option_that_the_host_cannot_take_is_refused(
    name: str, options: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        host(name, 10, **options)


@pytest.mark.parametrize("num_classes", [0, -1, True, 10.0, "10"])
def test_a_number_of_classes_that_is_none_is_refused(num_classes: object) -> None:
    with pytest.raises(ConfigError, match="expected num_classes to be an integer >= 1"):
        host("resnet20", num_classes)


@pytest.mark.parametrize("options", [None, "shortcut", ["shortcut"]])
def test_options_without_names_are_refused(options: object) -> None:
    with pytest.raises(ConfigError, match="expected options by name"):
        HostSpec("resnet20", 10, options=options)


def test_an_unknown_stem_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"expected a known stem, got 'cifar10'.*'cifar'"):
        host("resnet18", 10, stem="cifar10")


@pytest.mark.parametrize("name", ["resnet20", "seresnet18"])
def test_pretrained_is_refused_where_no_weights_are_published(name: str) -> None:
    with pytest.raises(ConfigError, match="expected a host with published weights"):
        host(name, 10, pretrained=True)


def test_pretrained_is_refused_with_the_cifar_stem() -> None:
    with pytest.raises(ConfigError, match="expected stem='imagenet' with pretrained=True"):
        host("resnet18", 10, stem="cifar", pretrained=True)


def test_a_failed_download_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, pretrained: bool, **kwargs: object) -> nn.Module:
        assert pretrained
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        Fault, match=r"pretrained weights of 'resnet18', got .*no route.*Check the network"
    ):
        host("resnet18", 10, pretrained=True)


def test_a_spec_never_loads_pretrained_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda *a, pretrained, **k: asked.append(pretrained) or create(*a, **k),
    )
    HostSpec("resnet18.a1_in1k", 10).build()
    assert asked == [False]
