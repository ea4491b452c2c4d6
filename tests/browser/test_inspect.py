"""The page of an inspection, and gates on a comparison's page, in a browser; all is made up."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from browsing import opened
from written_pages import HOSTILE, SHOWN
from written_runs import write_run

from normattn.comparison._inspection_page import Asked, inspection_page
from normattn.comparison._inspection_records import Channels, Guess, Held, Inspected, Sample
from normattn.comparison.page import render_page
from normattn.comparison.protocol import trial_folder
from normattn.comparison.report import write_report
from normattn.model.gates import Gates, GateSite

SITES = ("layer1.0.gate", HOSTILE[0], HOSTILE[4])
LOW, MEAN, HIGH = 0.46875, 0.5, 0.53125
WEIGHTS = (0.5, -0.25, 1.5)


def gates():
    quantiles = (LOW, 0.475, 0.49, 0.5, 0.51, 0.525, HIGH)
    distinct = {"float32": 1000, "bfloat16": 9, "int8": 17}
    return Gates(
        images=2,
        sites=tuple(
            GateSite(
                site=name, part="", mechanism="nam", channels=3, values=4000, sampled=1000,
                mean=MEAN, spread=0.01, lowest=0.4, highest=0.6, quantiles=quantiles, below=0.0,
                above=0.25, distinct=distinct, histogram=(1, 2, 1), scale=WEIGHTS,
                importance=(0.2, 0.1, 0.7),
            )
            for name in SITES
        ),
        left_out=((HOSTILE[1], "it did not run"),),
    )  # fmt: skip


def inspected():
    """A model whose images are of several sizes, one of them grey, and of hostile classes."""
    sizes = ((3, 32, 32), (1, 8, 8), (3, 20, 48))
    pixels = [torch.arange(np.prod(s)).remainder(256).to(torch.uint8).reshape(s) for s in sizes]
    guesses = [
        Guess(place, image, HOSTILE[place], HOSTILE[place + 1], 0.9 - place / 8)
        for place, image in enumerate(pixels)
    ]
    field = np.linspace(LOW, HIGH, 16, dtype=np.float32).reshape(4, 4)
    samples = tuple(
        Sample(guess, {SITES[0]: field}, field - LOW if guess.place else None) for guess in guesses
    )
    activations = np.linspace(0, 1, 3 * 2 * 16, dtype=np.float32).reshape(3, 2, 4, 4)
    return Inspected(
        name=HOSTILE[2],
        gates=gates(),
        held=Held(360, 320, 316, 7),
        mistakes=tuple(guesses),
        samples=samples,
        channels=(Channels(SITES[0], (4, 4), "importance", (2, 1), 1, (0.7, 0.1), activations),),
        data={
            "spec": HOSTILE[4], "val": 360, "size": [8, 8], "mean": [0.3], "std": [0.4],
            "images": 360, "notes": [HOSTILE[3]], "skipped": list(HOSTILE),
        },
        notes=(HOSTILE[5],),
    )  # fmt: skip


@pytest.fixture(scope="module")
def shown(browser, tmp_path_factory):
    path = tmp_path_factory.mktemp("inspect") / "page.html"
    asked = Asked(Path(HOSTILE[4]), HOSTILE[0], path, 8, None, "skip", "cpu")
    document = inspection_page([inspected()], [HOSTILE[5]], asked)
    path.write_bytes(render_page(document).encode())
    with opened(browser, path, width=390) as found:
        yield found


def test_the_page_opens_on_a_phone_without_error_request_or_anything_run(shown):
    assert shown.errors == []
    assert shown.requests == []
    assert not shown.ran()
    assert shown.sideways() == 0
    assert shown.findings() == []


def test_every_picture_is_drawn_and_has_words(shown):
    pictures = shown.page.locator("figure > img:not(.still)").all()
    assert len(pictures) == 3 + 1 + 3  # images with maps, channels, mistakes
    for picture in pictures:
        assert picture.evaluate("each => each.naturalWidth") > 8
        assert picture.get_attribute("alt")


def test_every_gate_has_its_range_and_its_weights(shown):
    bars = {m["gate"]: (m["low"], m["mean"], m["high"]) for m in shown.marks("ranges-0", "rect")}
    assert bars == dict.fromkeys(SITES, (LOW, MEAN, HIGH))
    spans = [(m["low"], m["high"]) for m in shown.marks("enlarged-0", "rect")]
    assert spans == [(LOW - MEAN, HIGH - MEAN)] * len(SITES)
    weights = shown.marks("scale-0", "line")
    assert [m["value"] for m in weights if m["gate"] == SITES[1]] == sorted(WEIGHTS)[::-1]
    assert len(weights) == len(SITES) * len(WEIGHTS)


def test_hostile_classes_are_text(shown):
    table = shown.page.locator("#table-mistakes-0 tbody tr")
    cells = [row.locator("span").all_text_contents() for row in table.all()]
    assert [cell[1:3] for cell in cells] == [[SHOWN[i], SHOWN[i + 1]] for i in range(3)]
    text = shown.page.locator("main").text_content()
    assert all(name in text for name in (SHOWN[0], SHOWN[1], SHOWN[3], SHOWN[5]))


def test_the_gates_of_a_run_are_on_its_own_page(open_page, tmp_path):
    run = write_run(tmp_path, mechanisms=("none", "nam"), seeds=2, epochs=1)
    (trial_folder(run, "nam", 1) / "gates.json").write_text(json.dumps(gates().to_json()))
    (trial_folder(run, "nam", 0) / "gates.json").write_text('{"format": 99}')
    with open_page(write_report(run), scheme="dark") as found:
        assert found.errors == []
        bars = {m["gate"]: (m["low"], m["high"]) for m in found.marks("gates-0", "rect")}
        assert bars == dict.fromkeys(SITES, (LOW, HIGH))
        assert "nam, seed 0: gates.json is left out" in found.text
