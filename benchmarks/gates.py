"""What trained gates multiply by on CIFAR-100, mechanism by mechanism, and where they look.

``python benchmarks/gates.py NAME=ARTIFACT ... --data SPEC`` keeps the numbers in
``results/gates-cifar100.json`` and draws ``docs/images/maps.png``; the README's picture of ranges
is made of the numbers by ``readme.py``. It is `normattn inspect` for several models.
"""

import argparse
import io
import json
from pathlib import Path

from PIL import Image
from timing import header

from normattn import _files, load
from normattn.comparison._inspection_images import Look
from normattn.comparison._inspection_look import look_at
from normattn.comparison._inspection_pictures import sample_strip
from normattn.comparison._inspection_records import Inspected
from normattn.model.artifact import read_info
from normattn.training.saved import open_for

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gates-cifar100.json"
MAPS = ROOT / "docs" / "images" / "maps.png"


def record(found: Inspected, artifact: Path) -> dict[str, object]:
    """Return what is kept of a model: its gates without long lists, and what holding them costs."""
    gates = found.gates.to_json()
    for site in gates["sites"]:
        for name in ("scale", "importance", "histogram"):
            site[name] = []
    held = found.held
    metrics = read_info(artifact).metrics or {}
    return {
        "gates": gates,
        "held": {"images": held.images, "right": held.right, "held_right": held.held_right,
                 "changed": held.changed},
        "top1_error": metrics.get("top1_error"),
        "epochs": metrics.get("epoch"),
    }  # fmt: skip


def main() -> None:
    """Look at every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="NAME=ARTIFACT")
    parser.add_argument("--data", default="parquet:../shared/data/cifar100")
    parser.add_argument("--limit", type=int, default=1000, help="validation images")
    parser.add_argument("--maps-of", default=None, help="the NAME whose maps are drawn")
    parser.add_argument("--images", type=int, default=3, help="drawn with maps")
    options = parser.parse_args()
    kept = {}
    for entry in options.models:
        name, _, place = entry.rpartition("=")
        data = open_for("gates", Path(place), options.data)
        drawn = name == options.maps_of
        look = Look(data, "cpu", options.limit, options.images, lambda event: None)
        found = look_at(load(place), name, look, pictures=drawn)
        kept[name] = record(found, Path(place))
        print(name, *found.gates.summary, sep="\n  ")
        if drawn:
            draw(found)
    _files.write_json(RESULTS, {"limit": options.limit, "models": kept, **header()})


def draw(found: Inspected) -> None:
    """Draw the images of a model with its maps, one below the other."""
    strips = [
        Image.open(io.BytesIO(sample_strip(sample, 1.0))).convert("RGBA")
        for sample in found.samples
    ]
    whole = Image.new(
        "RGBA", (max(s.width for s in strips), sum(s.height + 12 for s in strips)), "white"
    )
    top = 0
    for strip in strips:
        whole.paste(strip, (0, top), strip)
        top += strip.height + 12
    buffer = io.BytesIO()
    whole.convert("RGB").save(buffer, format="PNG", optimize=True)
    _files.write_bytes(MAPS, buffer.getvalue())


def read() -> dict[str, object]:
    """Return what was kept."""
    content: dict[str, object] = json.loads(RESULTS.read_text())
    return content


if __name__ == "__main__":
    main()
