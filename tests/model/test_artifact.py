"""Artifacts: what goes in comes out, and nothing foreign does."""

import io
import json
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import normattn
from normattn.errors import ArtifactError, RunError
from normattn.model.artifact import FORMAT, INFO, WEIGHTS, load, read_info, save


def trained(mechanism="nam", **options):
    """Return a grafted host whose weights and statistics are not the initial ones."""
    torch.manual_seed(0)
    model = normattn.graft(normattn.host("resnet20", 10, in_chans=1), mechanism, **options)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape) * 0.01)
    return model.eval()


@pytest.fixture
def folder(tmp_path):
    return save(trained(), tmp_path / "model", classes=[str(i) for i in range(10)])


def edit(folder, **changes):
    content = json.loads((folder / INFO).read_text())
    (folder / INFO).write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize("start", ["paper", "preserve"])
@pytest.mark.parametrize("mechanism", normattn.available())
def test_a_model_comes_back_to_the_bit(tmp_path, mechanism, start):
    model = trained(mechanism, sites="blocks", input_size=32, start=start)
    again = load(save(model, tmp_path))
    x = torch.randn(2, 1, 32, 32)
    assert not again.training
    assert_close(again(x), model(x), rtol=0, atol=0)
    assert normattn.grafts(again) == normattn.grafts(model)
    assert normattn.ungraft(again) is again


def test_options_and_sites_come_back(tmp_path):
    model = trained("ean", groups=8, sites=["layer2.*.bn2"])
    records = normattn.grafts(load(save(model, tmp_path)))
    assert [record.options for record in records] == [{"groups": 8}] * 3
    assert [record.site for record in records] == [f"layer2.{i}.bn2" for i in range(3)]


def test_what_was_said_comes_back(tmp_path):
    said = {"mean": [0.5], "std": [0.25], "input_size": [1, 8, 8]}
    names = [f"class {i}" for i in range(10)]
    save(trained(), tmp_path, classes=names, preprocessing=said, metrics={"top1_error": 3.5})
    info = read_info(tmp_path)
    assert info.classes == tuple(names)
    assert info.preprocessing == said
    assert info.metrics == {"top1_error": 3.5}
    assert info.host.options == {"in_chans": 1}
    assert set(info.versions) == {"normattn", "torch", "timm"}


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layout_and_type_survive(tmp_path, layout, dtype):
    model = trained().to(dtype=dtype, memory_format=layout)
    again = load(save(model, tmp_path))
    assert_close(dict(again.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    assert all(p.requires_grad for p in again.parameters())


def test_saving_changes_neither_the_model_nor_the_random_numbers(tmp_path):
    model = trained().train()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    save(model, tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert model.training


def test_a_host_that_is_not_ours_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"built by normattn\.host, got Sequential"):
        save(nn.Sequential(nn.Linear(2, 2)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path):
    model = trained()
    with torch.no_grad():
        model.get_parameter("fc.weight")[0, 0] = float("nan")
    with pytest.raises(ArtifactError, match=r"NaN or infinity in fc\.weight"):
        save(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_mechanism_outside_the_registry_is_refused(tmp_path):
    model = normattn.graft(normattn.host("resnet20", 10), nn.BatchNorm2d)
    with pytest.raises(ArtifactError, match="BatchNorm2d at layer1"):
        save(model, tmp_path)


def test_layers_changed_by_hand_are_refused(tmp_path):
    model = trained()
    model.fc = nn.Linear(64, 7)
    with pytest.raises(ArtifactError, match=r"fc\.weight"):
        save(model, tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can be written"):
        save(trained(), tmp_path / "file")


def test_nothing_there(tmp_path):
    with pytest.raises(ArtifactError, match="got nothing there"):
        load(tmp_path / "missing")


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ArtifactError, match=r"a folder without model\.json"):
        load(tmp_path)


def test_a_description_without_weights(folder):
    (folder / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match=r"model\.json without model\.safetensors"):
        load(folder)


def written(name):
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer)
    return {
        "torch": buffer.getvalue(),
        "pickle": pickle.dumps([1]),
        "html": b"<!DOCTYPE html><title>404</title>",
        "empty": b"",
        "text": b"hello",
    }[name]


KINDS = {
    "torch": "zip archive",
    "pickle": "a pickle, which is never opened",
    "html": "an HTML page",
    "empty": "an empty file",
    "text": "a file",
}


@pytest.mark.parametrize(("name", "kind"), KINDS.items(), ids=KINDS)
def test_a_foreign_file_is_named_for_what_it_is_and_not_opened(tmp_path, folder, name, kind):
    (tmp_path / "x.pt").write_bytes(written(name))
    with pytest.raises(ArtifactError, match=kind):
        load(tmp_path / "x.pt")
    original = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(written(name))
    with pytest.raises(ArtifactError, match=kind):
        load(folder)
    (folder / WEIGHTS).write_bytes(original)
    (folder / INFO).write_bytes(written(name))
    with pytest.raises(ArtifactError, match=kind):
        load(folder)


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b[:5000] + b"\0" + b[5001:]])
def test_damaged_weights_are_refused(folder, damage):
    (folder / WEIGHTS).write_bytes(damage((folder / WEIGHTS).read_bytes()))
    with pytest.raises(ArtifactError, match="another checksum"):
        load(folder)


def test_a_later_format_is_refused_with_both_numbers(folder):
    edit(folder, format=FORMAT + 1)
    with pytest.raises(ArtifactError, match=f"format {FORMAT} or before, got {FORMAT + 1}"):
        load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": None},
        {"format": "1"},
        {"format": 0},
        {"grafts": [{"site": "x"}]},
        {"grafts": None},
        {"host": {"name": "resnet21", "num_classes": 10}},
        {"host": {"name": "resnet20", "num_classes": 10, "options": {"checkpoint_path": "/x"}}},
        {"host": None},
        {"classes": 3},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_description_that_describes_no_model_is_refused(folder, changes):
    edit(folder, **changes)
    with pytest.raises(ArtifactError, match=r"expected a folder with model\.json"):
        load(folder)


def test_a_list_is_no_description(folder):
    (folder / INFO).write_text("[]")
    with pytest.raises(ArtifactError, match=r"expected a folder with model\.json"):
        load(folder)


def test_weights_of_another_model_are_refused(folder):
    edit(folder, host={"name": "resnet20", "num_classes": 7, "stem": "cifar", "options": {}})
    with pytest.raises(ArtifactError, match="expected weights that fit"):
        load(folder)


@pytest.mark.parametrize("change", [{"site": "nowhere"}, {"mechanism": "os.system"}])
def test_grafts_that_cannot_be_are_refused(folder, change):
    records = json.loads((folder / INFO).read_text())["grafts"]
    edit(folder, grafts=[{**records[0], **change}])
    with pytest.raises(ArtifactError, match="expected weights that fit"):
        load(folder)
