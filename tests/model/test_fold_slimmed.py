"""A slimmed model folds and is exported like any other."""

import pytest
import torch

from normattn import available, graft, host
from normattn.model.export import export
from normattn.model.fold import fold, fold_report
from normattn.model.slim import plan_slim, slim

OPTIONS = {"ean": {"groups": 4}, "se": {"reduction": 4}, "cbam": {"reduction": 4}}
OPTIONS |= {"bam": {"reduction": 4}, "nam-channel": {"weighting": "mean"}}


def slimmed(name, mechanism, side=32):
    torch.manual_seed(0)
    model = graft(host(name, 5), mechanism, input_size=side, **OPTIONS.get(mechanism, {}))
    for key, tensor in model.state_dict().items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point() and tensor.ndim == 1:
            tensor.normal_(0.5, 0.5)
    x = torch.zeros(1, 3, side, side)
    return slim(model, plan_slim(model, x, {"channels": 0.5}, "random", round_to=4)).eval()


@pytest.mark.parametrize("mechanism", available())
def test_every_mechanism_folds_after_slimming(mechanism):
    model = slimmed("resnet20", mechanism).double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.double)
    folded = fold(model, data=[x])
    with torch.no_grad():
        expected = model(x)
        assert (folded(x) - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert fold_report(folded).norms_left == ()


@pytest.mark.parametrize("name", ["resnet26", "mobilenetv2_035"])
def test_families_fold_after_slimming(name):
    model = slimmed(name, "nam", side=64).double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.double)
    with torch.no_grad():
        expected = model(x)
        assert (fold(model, data=[x])(x) - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_a_slimmed_model_is_exported(tmp_path):
    model = slimmed("resnet20", "nam")
    report = export(model, tmp_path / "x.onnx", int8=True, data=[torch.randn(4, 3, 32, 32)])
    assert report.rows["ONNX Runtime"].parity.holds
    assert report.rows["ONNX Runtime, int8"].bytes < 0.6 * report.rows["ONNX Runtime"].bytes
