"""Recipes: what the names stand for, and that nothing senseless gets past."""

import dataclasses
import json
import math

import pytest

from normattn.errors import ConfigError
from normattn.training import RECIPES, Recipe, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name):
    again = Recipe.from_json(json.loads(json.dumps(RECIPES[name].to_json())))
    assert again == RECIPES[name]
    assert again.name == name


def test_nam_cifar_is_the_authors_script():
    r = recipe("nam-cifar")
    assert (r.epochs, r.batch_size, r.optimizer, r.lr, r.momentum) == (200, 128, "sgd", 0.1, 0.9)
    assert [milestone * r.epochs for milestone in r.milestones] == pytest.approx([60, 120, 160])
    assert (r.gamma, r.weight_decay, r.decay_scales, r.nesterov) == (0.2, 5e-4, True, False)
    assert (r.warmup_epochs, r.label_smoothing, r.precision) == (0, 0, "float32")
    assert (r.sparsity, r.initialisation) == (0, "kaiming-uniform")


def test_overrides_change_their_values_alone():
    changed = recipe("nam-cifar", epochs=30, sparsity=1e-4)
    assert dataclasses.replace(changed, epochs=200, sparsity=0.0) == RECIPES["nam-cifar"]


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match=r"got 'nam_cifar'\. Did you mean 'nam-cifar'"):
        recipe("nam_cifar")


@pytest.mark.parametrize("make", [lambda k: recipe("quick", **k), lambda k: Recipe.from_json(k)])
def test_an_unknown_setting_names_the_nearest(make):
    with pytest.raises(ConfigError, match=r"got 'momentm'\. Did you mean 'momentum'"):
        make({"momentm": 0.9})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0),
        ("epochs", 2.0),
        ("epochs", True),
        ("batch_size", -1),
        ("accumulate", 0),
        ("accumulate", 3),
        ("lr", 0),
        ("lr", "1e-3"),
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", True),
        ("momentum", 1.5),
        ("momentum", 0),
        ("weight_decay", -1e-4),
        ("gamma", 0),
        ("warmup_epochs", 11),
        ("label_smoothing", 2),
        ("ema", 1.0),
        ("clip_norm", -1),
        ("sparsity", math.nan),
        ("nesterov", "no"),
        ("decay_scales", 1),
        ("optimizer", "adam"),
        ("schedule", "cosin"),
        ("precision", "bf16"),
        ("precision", ["bfloat16"]),
        ("sparsity_on", "norm"),
        ("sparsity_by", "prox"),
        ("sparsity_warmup_epochs", 11),
        ("sparsity_warmup_epochs", -1),
        ("sparsity_closing", "yes"),
        ("distill", 1.1),
        ("distill", -0.1),
        ("distill", True),
        ("temperature", 0),
        ("temperature", math.inf),
        ("initialisation", None),
        ("milestones", (0.5, 0.5)),
        ("milestones", (0.6, 0.3)),
        ("milestones", (30, 60)),
        ("milestones", "0.5"),
        ("milestones", ("0.5",)),
        ("augment", None),
        ("name", 3),
    ],
)
def test_a_senseless_value_is_refused_by_name(key, value):
    with pytest.raises(ConfigError, match=key):
        recipe("quick", **{key: value})


def test_steps_need_milestones():
    with pytest.raises(ConfigError, match="milestones"):
        recipe("quick", schedule="step")


def test_missing_keys_are_named():
    with pytest.raises(ConfigError, match="name and epochs"):
        Recipe.from_json({"lr": 0.1})


def test_exact_zeros_are_not_averaged_away():
    for changes in ({"ema": 0.9}, {"momentum": 1}):
        with pytest.raises(ConfigError, match=rf"{next(iter(changes))} .* sparsity_by='proximal'"):
            recipe("quick", sparsity=1e-3, sparsity_by="proximal", **changes)
    assert recipe("quick", sparsity_by="proximal", ema=0.9).ema == 0.9  # nothing is penalised
    assert recipe("quick", sparsity=1e-3, ema=0.9).ema == 0.9


OLD = {
    "name": "old", "epochs": 3, "batch_size": 128, "optimizer": "sgd", "lr": 0.1, "momentum": 0.9,
    "nesterov": False, "weight_decay": 5e-4, "decay_scales": False, "schedule": "cosine",
    "milestones": [], "gamma": 0.1, "warmup_epochs": 0.0, "label_smoothing": 0.0,
    "precision": "float32", "channels_last": False, "ema": 0.0, "clip_norm": 0.0, "accumulate": 1,
    "sparsity": 1e-4, "sparsity_on": "attention", "augment": "default",
    "initialisation": "default",
}  # fmt: skip


def test_what_an_older_version_wrote_is_read_as_it_was_trained():
    assert Recipe.from_json(OLD) == Recipe(name="old", epochs=3, sparsity=1e-4)
    for on in ("norms", "all"):
        assert Recipe.from_json({**OLD, "sparsity_on": on}).sparsity_closing
    asked = {**OLD, "sparsity_on": "norms", "sparsity_closing": False}
    assert not Recipe.from_json(asked).sparsity_closing
    assert not Recipe.from_json({**OLD, "sparsity_on": "norms", "sparsity": 0.0}).sparsity_closing
