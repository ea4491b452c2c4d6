"""`normattn demo`: from the comparison to a checked file, and again without doing it twice."""

import importlib
import json

import pytest

from normattn.comparison import costs, slimmed
from normattn.errors import ConfigError
from normattn.model._slim_cost import Costs

demo = importlib.import_module("normattn.cli.demo")  # the package has the command of this name


@pytest.fixture
def small(monkeypatch):
    """Make the demo a matter of seconds: one mechanism, one seed, one epoch, hardly any timing."""
    monkeypatch.setattr(demo, "MECHANISMS", ("half",))
    monkeypatch.setattr(demo, "SEEDS", (0,))
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(demo, "STEPS", 1)
    monkeypatch.setattr(costs, "_ROUNDS", (1, 1))
    monkeypatch.setattr(costs, "_SECONDS", 1e9)  # however busy the machine is
    monkeypatch.setattr(slimmed, "_ROUNDS", (1, 1))
    monkeypatch.setattr(Costs, "measure", lambda self, removed, final=False: (2.0, 1.0))


def test_it_ends_with_the_best_model_slimmed_exported_and_checked(
    cli, tmp_path, small, monkeypatch
):
    result = cli("demo", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "The best model, half, seed 0, at half the multiply-adds:" in result.stdout
    for words in ("Latency, batch 256", "Reached the target, flops 0.5", "ONNX Runtime differs by"):
        assert words in result.stdout
    assert (tmp_path / "slim" / "model.onnx").exists()

    again = cli("demo", "--out", tmp_path, "--json")
    assert again.exit_code == 0, again.output
    lines = [json.loads(line) for line in again.stdout.splitlines()]
    assert "step" not in {line["event"] for line in lines}
    assert lines[-1]["to"] == "onnx"
    assert lines[-2]["outcome"] == "target"

    def missing(*args, **kwargs):
        raise ConfigError("Install it with: pip install 'normattn[export]'.")

    (tmp_path / "slim" / "export.json").unlink()
    monkeypatch.setattr(slimmed, "export_with", missing)
    without = cli("demo", "--out", tmp_path)
    assert without.exit_code == 0, without.output
    assert "Not exported. Install it with: pip install" in without.stderr
