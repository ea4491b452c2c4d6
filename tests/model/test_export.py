"""An exported file says what the model says, on batches of any size, or it is called failed."""

import copy
import importlib
import json
import subprocess
import sys
import warnings
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.testing import assert_close

import normattn
from normattn import fuse, graft, host
from normattn.errors import ConfigError, DataError, Fault, RunError, UnsupportedModel
from normattn.model import _export_check, _export_job, _export_onnx
from normattn.model._export_files import imported
from normattn.model.export import export

CORE = openvino.Core()  # one that stays, as `_export_openvino.core` says
ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}
CLASSES = ["cat", "dog", "<img src=x>", "été"]


def build(mechanism="nam-channel", seed=0, **options):
    """Return a small classifier with attention, no two of its values alike."""
    torch.manual_seed(seed)
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))
    model = nn.Sequential(stem, body, head)
    options = {"weighting": "mean"} if mechanism.startswith("nam") else options
    graft(model, mechanism, sites="1", input_size=8, **options)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point() and tensor.ndim == 1:
            tensor.normal_(0.3, 0.5)
    return model.eval()


@pytest.fixture
def net():
    """Return what builds a small classifier."""
    return build


@pytest.fixture
def data():
    """Return two batches of different sizes with labels."""
    return batches()


def batches():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(11, 3, 8, 8, generator=generator)
    labels = torch.arange(11) % 4
    return [(images[:8], labels[:8]), (images[8:], labels[8:])]


def run(path, images):
    """Run a file as anyone would who has nothing of ours."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
    if path.suffix == ".xml":
        compiled = CORE.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return torch.from_numpy(compiled({"images": images.numpy()})["logits"].copy())
    return torch.export.load(path).module()(images)


FORMS = [("onnx", False), ("onnx", True), ("openvino", False), ("openvino", True), ("pt2", False)]
SAID = {"input_size": [3, 8, 8], "mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 2.0]}


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: f"{form[0]}{' int8' * form[1]}")
def exported(request, tmp_path_factory):
    """Return one export of each kind: its report, the model, the data, the file as it is."""
    to, int8 = request.param
    path = tmp_path_factory.mktemp("exported") / f"x{ENDINGS[to]}"
    model, data = build(), batches()
    about = {"classes": CLASSES, "preprocessing": SAID}
    report = export(model, path, to, int8=int8, data=data, rounds=2, **about)
    return report, model, data


def test_the_file_says_what_the_model_says(exported):
    report, model, data = exported
    assert report.path.parent.joinpath(report.path.name) == report.path
    limit = 0.1 if report.int8 else 1e-4
    for count in (1, 3, 8):
        images = data[0][0][:count]
        expected, found = model(images).detach(), run(report.path, images)
        assert (found - expected).norm() <= limit * expected.norm()
    ending = ["x.bin", "x.xml"] if report.to == "openvino" else [report.path.name]
    assert sorted(file.name for file in report.path.parent.iterdir()) == ending


def test_int8_is_stored_as_bytes(exported):
    report, *_ = exported
    if report.to == "pt2":
        return
    if report.to == "onnx":
        proto = onnx.load(report.path)
        types = {onnx.TensorProto.DataType.Name(t.data_type) for t in proto.graph.initializer}
    else:
        found = CORE.read_model(report.path).get_ops()
        constants = [op for op in found if op.get_type_name() == "Constant"]
        types = {
            op.get_element_type().to_string().upper().replace("I8", "INT8") for op in constants
        }
    assert ("INT8" in types) == report.int8


def test_classes_and_preprocessing_are_in_the_file(exported):
    path, to = exported[0].path, exported[0].to
    if to == "onnx":
        found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    elif to == "openvino":
        model = CORE.read_model(path)
        keys = ("normattn", "classes", *SAID)
        found = {key: model.get_rt_info(["normattn", key]).astype(str) for key in keys}
    else:
        extra = {"normattn.json": ""}
        torch.export.load(path, extra_files=extra)
        found = json.loads(extra["normattn.json"])
        found = {k: v if isinstance(v, str) else json.dumps(v) for k, v in found.items()}
    assert json.loads(found.pop("classes")) == CLASSES
    assert found.pop("normattn") == version("normattn")
    assert {key: json.loads(value) for key, value in found.items()} == SAID


def test_neither_paths_of_this_machine_nor_images_are_in_the_file(exported):
    report, _, data = exported
    for file in report.path.parent.iterdir():
        assert b".py" not in file.read_bytes(), file
        assert data[0][0][0].numpy().tobytes()[:256] not in file.read_bytes(), file


def test_the_report_is_what_can_be_measured_again(exported):
    report, model, data = exported
    images, labels = (torch.cat(each) for each in zip(*data, strict=True))
    right = float((model(images).argmax(1) == labels).double().mean())
    rows = list(report.rows.values())
    assert [row.accuracy for row in rows][:3] == [right] * 3
    last = rows[-1]
    again = float((run(report.path, images).argmax(1) == labels).double().mean())
    assert last.accuracy == pytest.approx(again, abs=0.1)  # a tie may go either way in int8
    assert last.bytes == sum(f.stat().st_size for f in report.path.parent.iterdir())
    assert last.parity.images == 11
    assert all(row.latency.median > 0 for row in rows)
    assert rows[0].latency.ratio == 1
    page = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert list(page["rows"]) == list(report.rows)
    for label in report.rows:
        assert label in str(report)
    assert ("reads pickles" in str(report)) == (report.to == "pt2")


@pytest.mark.parametrize("mechanism", normattn.available())
def test_every_mechanism_can_be_exported(mechanism, net, tmp_path):
    options = {"reduction": 4} if mechanism in ("se", "cbam", "bam") else {}
    options = {"groups": 4} if mechanism == "ean" else options
    model = net(mechanism, **options)
    report = export(model, tmp_path / "x.onnx", input_size=8, rounds=0)
    images = torch.randn(3, 3, 8, 8)
    assert_close(run(report.path, images), model(images), rtol=1e-4, atol=1e-5)


def test_a_fused_model_is_exported_in_plain_operations_and_stays_fused(net, data, tmp_path):
    model = fuse(graft(host("resnet20", 4), "nam"))
    model.train()
    classes, before = [type(m) for m in model.modules()], copy.deepcopy(model.state_dict())
    path = export(model, tmp_path / "x.onnx", rounds=1).path
    assert {node.domain for node in onnx.load(path).graph.node} == {""}
    assert [type(m) for m in model.modules()] == classes
    assert model.training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_a_model_in_half_precision_is_exported_in_float32(net, data, tmp_path):
    model = net().bfloat16()
    report = export(model, tmp_path / "x.onnx", data=data, rounds=0)
    assert report.notes == ("Exported in float32, from a copy on the CPU.",)
    assert next(model.parameters()).dtype == torch.bfloat16
    assert run(report.path, data[0][0]).dtype == torch.float32


def test_nams_line_is_one_batch_norm_in_onnx(net, tmp_path):
    path = export(net(), tmp_path / "x.onnx", input_size=8, rounds=0).path
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("BatchNormalization") == operators.count("Sigmoid") == 1
    assert "Add" not in operators


def test_a_nearly_constant_gate_is_not_in_the_file(net, data, tmp_path):
    path = export(net(), tmp_path / "x.onnx", data=data, tolerance=1.0, rounds=0).path
    assert "Sigmoid" not in {node.op_type for node in onnx.load(path).graph.node}


# What the file says about itself


def test_a_loaded_model_brings_its_own_facts(tmp_path):
    said = {"input_size": [3, 16, 16], "mean": [0.5] * 3, "std": [0.25] * 3}
    saved = normattn.save(host("resnet20", 4), tmp_path / "a", classes=CLASSES, preprocessing=said)
    path = export(normattn.load(saved), tmp_path / "x.onnx", rounds=0).path
    found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(found["classes"]) == CLASSES
    assert json.loads(found["input_size"]) == [3, 16, 16]


# int8


def test_int8_stores_bytes_and_says_nearly_the_same(tmp_path):
    torch.manual_seed(0)
    model = graft(host("resnet20", 4), "nam-channel", weighting="mean").eval()
    images = torch.randn(8, 3, 32, 32)
    report = export(model, tmp_path / "x.onnx", int8=True, data=[images], rounds=0)
    plain, quantised = list(report.rows.values())[2:]
    assert quantised.bytes < 0.5 * plain.bytes
    assert plain.parity.relative < 1e-4
    assert 1e-4 < quantised.parity.rms < 0.1
    with torch.no_grad():
        expected, found = model(images), run(report.path, images)
    error = float((found - expected).norm() / expected.norm())
    assert error == pytest.approx(quantised.parity.rms, rel=0.02)


def gates_in_float(path):
    """Return the sigmoids whose input comes from no DequantizeLinear."""
    graph = onnx.load(path).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    sigmoids = [node for node in graph.node if node.op_type == "Sigmoid"]
    return [makers[node.input[0]] != "DequantizeLinear" for node in sigmoids]


@pytest.mark.parametrize(("scale", "kept"), [(1e-2, True), (1.0, False)])
def test_a_gate_stays_in_float_where_int8_would_flatten_it(scale, kept, net, data, tmp_path):
    model = net()
    nn.init.constant_(model[1].attn.norm.weight, scale)
    nn.init.zeros_(model[1].attn.norm.bias)
    path = tmp_path / "x.onnx"
    report = export(model, path, int8=True, data=data, rounds=0)
    (gate,) = report.gates
    assert (gate.gate, gate.kept) == ("1.attn", kept)
    assert gates_in_float(path) == [kept]
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)
    # Counted here as the runtime does it: 255 steps from zero to the largest value.
    with torch.no_grad():
        x = model[1][:2](model[0](torch.cat([images for images, _ in data])))
        values = model[1].attn.gate(x)
    levels = (values / (values.max() / 255)).round().unique().numel()
    assert abs(gate.levels - levels) <= 1
    assert (levels < 32) == kept


def test_the_ranges_are_those_of_the_calibration_images(net, data, tmp_path, monkeypatch):
    monkeypatch.setattr(_export_check, "INT8_LIMIT", 1e9)
    errors = []
    for number, calibration in enumerate((None, data, [(100 * data[0][0], data[0][1])])):
        path, given = tmp_path / f"{number}.onnx", {"data": data, "calibration": calibration}
        report = export(net(), path, int8=True, rounds=0, **given)
        errors.append(report.rows["ONNX Runtime, int8"].parity.rms)
    assert report.notes == ("Calibrated on 8 images.",)
    assert errors[0] == errors[1] < 0.1 * errors[2]


def test_calibration_stops_at_its_limit(net, data, tmp_path, monkeypatch):
    monkeypatch.setattr(_export_job, "CALIBRATION_IMAGES", 9)
    report = export(net(), tmp_path / "x.onnx", int8=True, data=data, rounds=0)
    assert report.notes == ("Calibrated on 9 images.",)


# What is measured


def test_without_labels_there_is_no_accuracy(net, data, tmp_path):
    report = export(net(), tmp_path / "x.onnx", data=[images for images, _ in data], rounds=0)
    assert {row.accuracy for row in report.rows.values()} == {None}
    assert report.rows["ONNX Runtime"].parity.source == "data"


# A file that says something else


def spoil(monkeypatch, change):
    finish = _export_onnx.finish

    def spoiled(path, about):
        finish(path, about)
        proto = onnx.load(path)
        change(proto)
        onnx.save(proto, path)

    monkeypatch.setattr(_export_onnx, "finish", spoiled)


def test_a_file_with_other_outputs_is_kept_as_failed(net, data, tmp_path, monkeypatch):
    def shift(proto):
        for tensor in proto.graph.initializer:
            if tensor.dims == [4]:
                values = numpy_helper.to_array(tensor) + np.float32(0.01)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    spoil(monkeypatch, shift)
    with pytest.raises(Fault, match=r"differs by at most .* above the limit of 0.0001.*\.failed"):
        export(net(), tmp_path / "x.onnx", data=data, rounds=0)
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx.failed"]
    monkeypatch.undo()
    export(net(), tmp_path / "x.onnx", data=data, rounds=0)  # a failed one is in nobody's way


def test_both_files_of_openvino_are_kept_as_failed(net, data, tmp_path, monkeypatch):
    write = _export_job._WRITERS["openvino"]
    other = {"openvino": lambda model, *rest: write(net(seed=1), *rest)}
    monkeypatch.setattr(_export_job, "_WRITERS", {**_export_job._WRITERS, **other})
    with pytest.raises(Fault):
        export(net(), tmp_path / "x.xml", "openvino", data=data, rounds=0)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["x.bin.failed", "x.xml.failed"]


def test_a_file_for_one_batch_size_is_none(net, data, tmp_path, monkeypatch):
    def fix(proto):
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8

    spoil(monkeypatch, fix)
    with pytest.raises(Fault, match=r"run on a batch of shape \(1, 3, 8, 8\)"):
        export(net(), tmp_path / "x.onnx", data=data, rounds=0)
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_are_no_numbers_agree_with_nothing(net, data, tmp_path, monkeypatch):
    def poison(proto):
        for tensor in proto.graph.initializer:
            if tensor.dims == [4]:
                nan = np.full(4, np.nan, dtype=np.float32)
                tensor.CopyFrom(numpy_helper.from_array(nan, tensor.name))

    spoil(monkeypatch, poison)
    with pytest.raises(Fault, match=r"\.failed"):
        export(net(), tmp_path / "x.onnx", data=data, rounds=0)


# Bad input


@pytest.mark.parametrize(
    ("to", "missing", "line"),
    [
        ("onnx", ["onnx"], "normattn[export]"),
        ("onnx", ["onnxruntime", "onnxscript"], "normattn[export]"),
        ("openvino", ["openvino"], "normattn[openvino]"),
    ],
)
def test_without_its_extra_the_pip_line_is_said(to, missing, line, net, tmp_path, monkeypatch):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)  # what an import of it then finds
    with pytest.raises(ConfigError) as caught:
        export(net(), tmp_path / f"x{ENDINGS[to]}", to)
    assert f"pip install '{line}'" in str(caught.value)
    assert all(name in str(caught.value) for name in missing)


def test_openvino_in_int8_needs_both_extras(net, data, tmp_path, monkeypatch):
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"normattn\[export,openvino\]"):
        export(net(), tmp_path / "x.xml", "openvino", int8=True, data=data)


def test_openvino_is_imported_without_its_telemetry(monkeypatch):
    found = []
    for name in ("openvino", "openvino_telemetry"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def record(name):
        found.append((name, sys.modules.get("openvino_telemetry", "not hidden")))

    monkeypatch.setattr(importlib, "import_module", record)
    imported("openvino")
    assert found == [("openvino", None)]


# Once OpenVINO's plugin is there, handlers of signals run on a stack of its own.
LIVES_ON = """
import faulthandler, gc, signal, sys, threading
from pathlib import Path
faulthandler.enable()
from normattn.model import _export_openvino
import torch
runner = [_export_openvino.Runner(Path(sys.argv[1]))]
runner[0](torch.zeros(1, 3, 8, 8))
def let_go():
    runner.clear()
    gc.collect()
thread = threading.Thread(target=let_go)
thread.start()
thread.join()
heard = []
signal.signal(signal.SIGCHLD, lambda *_: heard.append(1))
signal.raise_signal(signal.SIGCHLD)
assert heard
"""


def test_a_process_that_ran_openvino_lives_through_a_signal(net, data, tmp_path):
    export(net(), tmp_path / "x.xml", "openvino", data=data, rounds=0)
    command = [sys.executable, "-c", LIVES_ON, str(tmp_path / "x.xml")]
    assert subprocess.run(command, check=False, timeout=120).returncode == 0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"to": "onxn"}, ConfigError, "Did you mean 'onnx'"),
        ({"to": "pt2", "int8": True}, ConfigError, "expected to='onnx' or 'openvino' with int8"),
        ({"int8": True}, ConfigError, "expected data with int8, got none"),
        ({"tolerance": 0.1}, ConfigError, "expected data with a tolerance, got none"),
        ({"to": "openvino"}, ConfigError, "ends in .xml for openvino, got 'x.onnx'"),
        ({"rounds": -1}, ConfigError, "rounds to be an integer"),
        ({"data": iter([])}, ConfigError, "read several times"),
        ({"calibration": 3}, ConfigError, "expected data as batches"),
        ({"classes": ["a"], "input_size": 8}, ConfigError, "each of the 4 outputs, got 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, error, words, net, tmp_path):
    with pytest.raises(error, match=words):
        export(net(), tmp_path / "x.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_not_overwritten(net, tmp_path):
    for name in ("x.onnx", "y.bin"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match=r"x\.onnx, which exists"):
        export(net(), tmp_path / "x.onnx")
    with pytest.raises(RunError, match=r"y\.bin, which exists"):
        export(net(), tmp_path / "y.xml", "openvino")
    (tmp_path / "z.onnx").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="which exists"):
        export(net(), tmp_path / "z.onnx")
    assert (tmp_path / "x.onnx").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_refused(net, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.onnx", "/proc/none/x.onnx"):
        with pytest.raises(RunError, match="expected a place that can be written"):
            export(net(), path)


def test_labels_and_images_of_other_data_are_refused(net, data, tmp_path):
    images, labels = data[0]
    for others in (labels + 4, labels - 1):
        with pytest.raises(DataError, match="expected labels from 0 to 3"):
            export(net(), tmp_path / "x.onnx", data=[(images, others)], rounds=0)
    larger = [torch.randn(2, 3, 16, 16)]
    with pytest.raises(DataError, match=r"calibration images of shape \(3, 8, 8\)"):
        export(net(), tmp_path / "x.onnx", int8=True, data=data, calibration=larger, rounds=0)
    said = {"input_size": [3, 16, 16]}
    with pytest.raises(ConfigError, match="as the preprocessing says"):
        export(net(), tmp_path / "x.onnx", data=data, preprocessing=said, rounds=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda model: torch.compile(model), "a compiled one"),
        (lambda model: nn.DataParallel(model), "wrapped for distribution"),
        (lambda model: model.to("meta"), "on the meta device"),
        (lambda model: 3, "got int"),
        (lambda model: model[:2], "expected a classifier"),
    ],
)
def test_a_model_that_cannot_be_exported_is_refused(make, words, net, tmp_path):
    with pytest.raises(UnsupportedModel, match=words):
        export(make(net()), tmp_path / "x.onnx", input_size=8)
    assert list(tmp_path.iterdir()) == []


def test_what_an_exporter_cannot_express_is_said_in_one_sentence(net, tmp_path):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            y = self.conv(x).mean(dim=(2, 3))
            return y if y.sum() > 0 else -y

    with pytest.raises(UnsupportedModel, match="expected a model that onnx can express"):
        export(Branching(), tmp_path / "x.onnx", input_size=8)
    assert list(tmp_path.iterdir()) == []


def test_the_users_own_warnings_are_not_silenced(net, data, tmp_path):
    class Warning_(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            if not torch.compiler.is_compiling():
                warnings.warn("mine", DeprecationWarning, stacklevel=1)
            return self.model(x)

    with pytest.warns(DeprecationWarning, match="mine"):
        export(Warning_(net()), tmp_path / "x.onnx", data=data, rounds=0)
