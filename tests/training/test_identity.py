"""What makes a training the same one, also where an older version wrote it down."""

from dataclasses import asdict

import pytest
import torch

from normattn.errors import RunError
from normattn.training import fit, recipe
from normattn.training.checkpoint import STATE, write_state
from normattn.training.identity import differences
from normattn.training.step import Place

NEW = (
    "sparsity_by",
    "sparsity_warmup_epochs",
    "sparsity_closing",
    "distill",
    "temperature",
)


def old(content):
    """Return a recipe as it was written before there were these settings."""
    return {name: value for name, value in content.items() if name not in NEW}


def test_settings_that_came_later_are_no_difference_where_they_change_nothing():
    for name in ("nam-cifar", "nam-imagenet", "quick"):
        now = recipe(name).to_json()
        assert list(differences({"recipe": old(now)}, {"recipe": now})) == []


def test_norms_that_are_now_left_out_are_a_difference():
    now = recipe("slimming").to_json()
    line = "recipe.sparsity_closing: True → False"
    assert list(differences({"recipe": old(now)}, {"recipe": now})) == [line]
    again = recipe("slimming", sparsity_closing=True).to_json()
    assert list(differences({"recipe": old(now)}, {"recipe": again})) == []


def test_a_recipe_of_a_later_version_is_compared_as_it_stands():
    now = recipe("quick").to_json()
    found = list(differences({"recipe": {**now, "later": 1}}, {"recipe": now}))
    assert found == ["recipe.later: 1 → not set"]


def test_a_state_of_an_older_version_is_resumed(
    tiny, data, short, tmp_path, assert_same_bits, untimed
):
    whole, resumed = tiny(), tiny()
    chosen = short(sparsity=1e-3)
    expected = fit(whole, data, chosen, seed=3)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny(), data, chosen, seed=3, folder=tmp_path, progress=stop, save_every=0)
    state = torch.load(tmp_path / STATE, weights_only=True)
    state["identity"]["recipe"] = old(state["identity"]["recipe"])
    for record in state["history"]:
        del record["sparsity"], record["histograms"]
    assert set(state["place"]) == set(asdict(Place()))
    write_state(tmp_path, state)
    found = fit(resumed, data, chosen, seed=3, folder=tmp_path)
    assert_same_bits(resumed, whole)
    assert untimed(found)[1] == untimed(expected)[1]
    assert found.epochs[0].histograms is None
    with pytest.raises(RunError, match=r"recipe\.sparsity_by: loss → proximal"):
        fit(tiny(), data, short(sparsity=1e-3, sparsity_by="proximal"), seed=3, folder=tmp_path)


def stop(event):
    if event["event"] == "step" and event["step"] == 6:
        raise KeyboardInterrupt
