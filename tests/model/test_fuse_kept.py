"""Fusing changes nothing else: keys, copies, files, wrappers, grafts; and it can be undone."""

import copy
import io
import pickle

import pytest
import timm
import torch
import torchvision
from timm.utils.model_ema import ModelEmaV3
from torch import distributed, nn
from torch.nn.utils import parametrize
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint_sequential, set_checkpoint_early_stop

from normattn import create, find_sites, fuse, graft, grafts, host, kernels, load, save, ungraft
from normattn.errors import UnsupportedModel
from normattn.kernels import cpu
from normattn.model.fuse import fused, plain, unfuse

pytestmark = pytest.mark.usefixtures("reference_runs")


def classes(model):
    return [type(module) for module in model.modules()]


def test_modules_parameters_and_keys_are_the_same_objects(family, attention, tiny):
    model = tiny(family, attention)
    modules, tensors = list(model.modules()), model.state_dict(keep_vars=True)
    assert fuse(model) is model
    after = model.state_dict(keep_vars=True)
    assert all(one is other for one, other in zip(modules, model.modules(), strict=True))
    assert list(after) == list(tensors)
    assert all(after[name] is tensor for name, tensor in tensors.items())


def test_unfusing_gives_every_layer_back(family, attention, tiny, images):
    model = tiny(family, attention).eval()
    before, expected = classes(model), model(images)
    contents = [set(vars(module)) for module in model.modules()]
    assert unfuse(fuse(model)) is model
    assert classes(model) == before
    assert [set(vars(module)) for module in model.modules()] == contents
    assert torch.equal(model(images), expected)


def test_a_model_is_plain_inside_the_context_and_fused_again_behind_it(tiny, images, calls):
    model = fuse(tiny())
    before = classes(model)
    with plain(model) as same:
        assert same is model
        assert not fused(model).blocks
        model(images)
    assert not calls
    assert classes(model) == before
    with pytest.raises(RuntimeError, match="inside"), plain(model):
        raise RuntimeError("inside")
    assert classes(model) == before


def test_fusing_twice_is_fusing_once(tiny):
    model = fuse(tiny())
    before = classes(model)
    assert classes(fuse(model)) == before


def test_the_print_says_that_a_model_is_fused(tiny):
    text = repr(fuse(tiny("timm basic", "nam-channel")))
    assert "FusedTimmBasicBlock(" in text
    assert "FusedNAMChannel(\n" in text or "FusedNAMChannel(channels=8" in text


def test_copies_are_fused_and_compute_alike(family, tiny, images):
    model = fuse(tiny(family, "nam")).eval()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ):
        assert classes(twin) == classes(model)
        assert torch.equal(twin(images), model(images))
        assert classes(unfuse(twin)) != classes(model)


def test_an_averaged_copy_follows_a_fused_model(tiny, images):
    averaged = []
    for model in (tiny(), fuse(tiny())):
        ema = ModelEmaV3(model.train(), decay=0.5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
            ema.update(model)
        averaged.append(ema.module)
    assert fused(averaged[1]).blocks
    assert_close(averaged[1].state_dict(), averaged[0].state_dict(), rtol=1e-3, atol=1e-5)
    assert_close(averaged[1](images), averaged[0](images), rtol=1e-3, atol=1e-4)


def test_a_distributed_wrapper_trains_a_fused_model(tiny, images, tmp_path):
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        found = []
        for model in (tiny(), fuse(tiny())):
            wrapped = nn.parallel.DistributedDataParallel(model)
            wrapped(images).square().mean().backward()
            found.append({name: p.grad for name, p in model.named_parameters()})
        assert [block.site for block in fused(wrapped).blocks] == ["module.1", "module.2"]
    finally:
        distributed.destroy_process_group()
    assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


def test_activations_can_be_computed_again_for_the_backward_pass(tiny, images):
    found = []
    for model in (tiny(), fuse(tiny())):
        # To its end: else the last norm of a part is stopped before its statistics move again.
        with set_checkpoint_early_stop(False):
            y = checkpoint_sequential(model, 3, images, use_reentrant=False)
            y.square().mean().backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
        found[-1] |= dict(model.named_buffers())  # which have moved twice
    assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


def test_a_compiled_model_can_be_fused_and_unfused(tiny, images, calls):
    torch.compiler.reset()
    model = tiny().eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    expected = compiled(images)
    assert_close(fuse(compiled)(images), expected, rtol=1e-4, atol=1e-5)
    assert calls  # traced anew
    assert fused(model).blocks
    assert_close(unfuse(compiled)(images), expected)


@pytest.mark.parametrize("attention", ["nam-channel", "nam", "se"])
def test_attention_that_comes_later_works_and_is_fused_by_another_call(
    attention, tiny, images, calls
):
    options = {"reduction": 4} if attention == "se" else {}
    torch.manual_seed(7)
    expected = graft(tiny("timm basic", "none").eval(), attention, input_size=8, **options)
    torch.manual_seed(7)
    model = graft(fuse(tiny("timm basic", "none")).eval(), attention, input_size=8, **options)
    assert [r.site for r in grafts(model)] == [r.site for r in grafts(expected)]
    assert_close(model(images), expected(images), rtol=1e-4, atol=1e-5)
    assert calls == {"block_tail_fixed": 2}
    assert [layer.site for layer in fused(model).left] == ["1.bn2.attn", "2.bn2.attn"]
    calls.clear()
    assert_close(fuse(model)(images), expected(images), rtol=1e-4, atol=1e-5)
    known = {"nam-channel": {"block_tail_fixed": 4}, "se": {"block_tail_fixed": 2}}
    assert calls == known.get(attention, {"block_tail_fixed": 2, "norm_gate_fixed": 4})


def test_attention_taken_out_leaves_the_fused_host(tiny, images, calls):
    expected = ungraft(tiny("timm basic", "nam-channel")).eval()
    model = ungraft(fuse(tiny("timm basic", "nam-channel"))).eval()
    assert_close(model(images), expected(images), rtol=1e-4, atol=1e-5)
    assert calls == {"block_tail_fixed": 4}
    assert classes(unfuse(model)) == classes(expected)


def test_a_dry_run_finds_the_same_sites_in_a_fused_host():
    model = host("resnet20", 10)
    expected = find_sites(model)
    assert find_sites(fuse(model)) == expected


def test_a_fused_model_is_saved_as_the_plain_one(tmp_path, images):
    model = graft(host("resnet20", 10), "nam-channel")
    save(model, tmp_path / "plain")
    save(fuse(model), tmp_path / "fused")
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "fused" / name).read_bytes()
    again = load(tmp_path / "fused")
    assert_close(again(images), model.eval()(images), rtol=1e-4, atol=1e-5)
    assert fuse(again) is again


@pytest.mark.parametrize(
    ("build", "blocks", "parts"),
    [
        (lambda: host("resnet20", 10), 9, 2),
        (lambda: host("resnet56", 10, shortcut="projection"), 27, 2),
        (lambda: timm.create_model("resnet18"), 8, 2),
        (lambda: timm.create_model("resnext50_32x4d"), 16, 3),
        (torchvision.models.resnet34, 16, 2),
        (torchvision.models.wide_resnet50_2, 16, 3),
    ],
)
def test_whole_networks_are_fused_block_by_block(build, blocks, parts):
    report = fused(fuse(build()))
    assert len(report.blocks) == blocks
    assert all(len(b.kernels) == parts and not b.plain for b in report.blocks)
    assert report.mechanisms == report.left == ()


def test_the_report_says_why_something_is_left(tiny):
    class Own(type(tiny("timm basic")[1])):
        pass

    model = tiny("timm basic", "se")
    model[1].__class__ = Own
    model[2].extra = nn.Identity()
    left = {layer.site: layer for layer in fused(fuse(model)).left}
    assert left["1"].plain == ("a subclass of BasicBlock, whose forward may be another",)
    assert left["2"].plain == ("it has layers that we do not know: extra",)
    assert left["1.bn2.attn"].plain == ("there is no kernel for this mechanism",)
    del model[2].extra
    block = fused(fuse(model)).blocks[0]
    assert block.kernels == ("bn1 + act1",)
    assert block.plain[0].startswith("bn2 + shortcut + act2: no kernel takes SE together")
    lines = str(fused(model)).splitlines()
    assert lines[0] == "kernels for cpu: reference"
    assert "  2 (BasicBlock)" in lines
    assert "    bn1 + act1" in lines


def test_foreign_attention_is_listed_and_none_is_not(tiny):
    model = graft(tiny("timm basic", "none"), lambda channels: nn.Identity(), input_size=8)
    model.append(create("none", 16))
    report = fused(fuse(model))
    assert [layer.layer for layer in report.left] == ["Identity", "Identity"]


def test_the_report_follows_the_type_and_the_device(tiny, monkeypatch):
    monkeypatch.setattr(kernels, "runs_on", lambda x: x.dtype == torch.float32)
    model = fuse(tiny())
    assert len(fused(model).blocks) == 2
    reasons = {part for layer in fused(model.double()).left for part in layer.plain}
    assert reasons == {"no kernel for cpu computes in float64"}
    reasons = {part for layer in fused(model.to("meta")).left for part in layer.plain}
    assert reasons == {"kernels for meta: none"}
    monkeypatch.setattr(kernels, "status", lambda: {"cpu": "none: no compiler"})
    report = fused(tiny())
    assert report.kernels == {"cpu": "none: no compiler"}
    reasons = {part for layer in fused(fuse(tiny())).left for part in layer.plain}
    assert reasons == {"kernels for cpu: none: no compiler"}


def test_strict_fusing_is_all_or_nothing(tiny, monkeypatch):
    model = tiny("timm basic", "nam")
    assert fused(fuse(model, strict=True)).left == ()
    other = tiny("timm basic", "se")
    before = classes(other)
    with pytest.raises(UnsupportedModel, match=r"1\.bn2\.attn \(there is no kernel for this"):
        fuse(other, strict=True)
    assert classes(other) == before
    with pytest.raises(UnsupportedModel, match=r"got none for Conv2d \(it has no such layer\)"):
        fuse(nn.Conv2d(3, 3, 1), strict=True)
    monkeypatch.setattr(kernels, "status", lambda: {"cpu": "none: no compiler"})
    with pytest.raises(UnsupportedModel, match=r"1 \(kernels for cpu: none: no compiler\)"):
        fuse(tiny(), strict=True)
    with pytest.raises(UnsupportedModel, match=r"expected an nn\.Module, got list"):
        fuse([])


def test_a_refusal_leaves_what_was_fused_before(tiny):
    model = fuse(tiny("timm basic", "none"))
    before = classes(model)
    graft(model, "se", input_size=8, reduction=4)
    with pytest.raises(UnsupportedModel):
        fuse(model, strict=True)
    assert [cls for cls in classes(model) if cls in before] != []
    assert len(fused(model).blocks) == 2


def test_a_class_changed_by_others_is_not_taken_back_blindly(tiny):
    model = fuse(nn.Sequential(create("ean", 4, groups=2)))
    parametrize.register_parametrization(model[0], "gain", nn.Identity())
    with pytest.raises(UnsupportedModel, match="got ParametrizedFusedEAN at '0'"):
        unfuse(model)
    parametrize.remove_parametrizations(model[0], "gain")
    assert type(unfuse(model)[0]).__name__ == "EAN"


@torch.no_grad()
def test_the_report_tells_what_was_computed_and_what_was_not(tiny, images, monkeypatch):
    model = fuse(nn.Sequential(tiny("timm bottleneck", "nam-channel"), create("ean", 16, groups=4)))
    told = "calls since fuse, compiled ones not counted: "
    assert told + "none" in str(fused(model)).splitlines()
    model(images)
    report = fused(model)
    counts = {each.site: (each.by_kernels, each.in_plain) for each in report.blocks}
    assert counts == {"0.1": (3, 0), "0.2": (3, 0)}
    assert {each.site: (each.by_kernels, each.in_plain) for each in report.mechanisms} == {
        "0.1.bn3.attn": (1, 0),
        "0.2.bn3.attn": (1, 0),
        "1": (1, 0),
    }
    assert told + "9 parts by kernels, 0 plain" in str(report).splitlines()
    with plain(model):
        model(images)
    monkeypatch.setattr(cpu, "NCHW_ELEMENTS", 1 << 30)
    model(images)
    monkeypatch.setattr(cpu, "GATE_ELEMENTS", 1 << 30)
    model(images)
    block, gate = (getattr(fused(model), kind)[0] for kind in ("blocks", "mechanisms"))
    assert (block.by_kernels, block.in_plain) == (4, 5)
    assert (gate.by_kernels, gate.in_plain) == (2, 1)
    assert "    ran 4 by kernels, 5 plain" in str(fused(model)).splitlines()


def test_every_mechanism_counts_its_calls(attention, tiny, images, monkeypatch):
    model = fuse(tiny("timm basic", attention))
    for limit in (0, 1 << 30):
        monkeypatch.setattr(cpu, "GATE_ELEMENTS", limit)
        model(images)
    known = attention in ("nam-channel", "nam-spatial", "nam", "ean")
    counts = [(each.by_kernels, each.in_plain) for each in fused(model).mechanisms]
    assert counts == ([(1, 1)] * 2 if known else [])


def test_a_copy_has_computed_nothing_yet_and_a_compiled_call_is_not_counted(tiny, images):
    torch.compiler.reset()
    model = fuse(tiny()).eval()
    torch.compile(model, backend="eager", fullgraph=True)(images)
    assert fused(model).blocks[0].by_kernels == 0
    model(images)
    assert fused(model).blocks[0].by_kernels == 2
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert fused(twin).blocks[0].by_kernels == 0
        twin(images)
        assert fused(twin).blocks[0].by_kernels == 2
    assert fused(model).blocks[0].by_kernels == 2


def test_a_call_that_is_followed_counts_as_plain(tiny, images):
    model = fuse(tiny("timm bottleneck", "none"))
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        model(images)
    finally:
        handle.remove()
    assert fused(model).blocks[0].in_plain == 3


def test_without_kernels_every_layer_runs_as_before(family, attention, tiny, images, monkeypatch):
    monkeypatch.setattr(kernels, "runs_on", lambda x: False)
    plain_form, model = tiny(family, attention), fuse(tiny(family, attention))
    assert torch.equal(model(images), plain_form(images))
    assert_close(model.state_dict(), plain_form.state_dict(), rtol=0, atol=0)


def test_second_derivatives_work_without_kernels(tiny, images):
    model, x = fuse(tiny("timm basic", "nam-channel")), images.clone().requires_grad_()
    with plain(model):
        (slope,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
    assert x.grad is not None
