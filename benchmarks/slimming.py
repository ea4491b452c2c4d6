"""What slimming costs: each criterion at each speedup, against chance and a narrow new model.

``python benchmarks/slimming.py ARTIFACT [--data SPEC] [--speedups 1.5,2,3] ...`` resumes where it
stopped; call it from the repository's root, on a quiet machine: the targets are measured latencies.

::

    RUN/<criterion>-<speedup>/      a slimming in one round, as `normattn slim --steps 1` makes it
        scratch-<speedup>/          as narrow as the first criterion's, trained from new weights
        files/                      original and slimmed for ONNX Runtime, in float and int8
"""

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from timing import header, interleave, rows

from normattn import _files, load
from normattn.comparison.slimmed import measure
from normattn.data import ImageData, open_data
from normattn.data.keyed import seeded
from normattn.errors import InputError
from normattn.model.fuse import fuse
from normattn.training import evaluate, processor, recipe
from normattn.training.exporting import export_with
from normattn.training.loop import fit
from normattn.training.slimming import SlimJob, fine_tuning, run_slim

ROOT = Path(__file__).parents[1]
CRITERIA = "bn-scale,nam,taylor,magnitude,gate,random"
ROUNDS = 30
EVIDENCE = ("slim.json", "profile.json", "scratch.json", "refused.json")


def show(event: Mapping[str, Any]) -> None:
    """Print whatever is not a step."""
    if event["event"] not in ("step", "evaluate"):
        kept = {k: v for k, v in event.items() if k not in ("scales", "histograms", "plan")}
        print(json.dumps(kept, default=str)[:400], flush=True)


def cell(options: argparse.Namespace, criterion: str, speedup: float) -> Path:
    """Slim by one criterion to one speedup; what cannot be done is written down as such."""
    folder: Path = options.out / f"{criterion}-{speedup:g}"
    job = SlimJob(
        artifact=str(options.artifact),
        data=options.data,
        target={"speedup": speedup},
        recipe=fine_tuning(epochs=options.epochs, warmup_epochs=min(1.0, options.epochs / 4)),
        criterion=criterion,
        across=options.across,
        steps=1,
        batch=options.batch,
        train_limit=options.train_limit,
    )
    try:
        run_slim(job, folder, progress=show)
    except InputError as error:
        _files.write_json(folder / "refused.json", {"reason": str(error)})
        print(f"{folder.name}: {error}")
        return folder
    measure(folder, options.artifact)
    return folder


def scratch(options: argparse.Namespace, data: ImageData, like: Path, speedup: float) -> None:
    """Train the slimmed architecture from new weights, for ``--scratch-epochs``."""
    folder = _files.make_folder(options.out / f"scratch-{speedup:g}")
    if (folder / "scratch.json").exists():
        return
    model = load(like)
    with seeded(0, "scratch"):
        for module in model.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    how = recipe("quick", epochs=options.scratch_epochs)
    trained = fit(fuse(model), data, how, seed=0, folder=folder, progress=show)
    found = evaluate(model, data).to_json()
    seconds = sum(epoch.seconds for epoch in trained.epochs)
    content = {"metrics": found, "recipe": how.to_json(), "like": like.name, "seconds": seconds}
    _files.write_json(folder / "scratch.json", content)


def runtime(options: argparse.Namespace, data: ImageData, slimmed: Path) -> dict[str, Any]:
    """Export both models in float and int8; time all four files in one interleaved run."""
    folder = _files.make_folder(options.out / "files")
    reports: dict[str, Any] = {}
    for name, source in {"original": options.artifact, "slimmed": slimmed}.items():
        for int8 in (False, True):
            path = folder / f"{name}-{'int8' if int8 else 'float'}.onnx"
            path.unlink(missing_ok=True)
            report = export_with(load(source), path, data, "onnx", int8=int8)
            last = list(report.to_json()["rows"].values())[-1]
            reports[path.stem] = {"accuracy": last["accuracy"], "bytes": last["bytes"]}
            print(report, flush=True)
    found: dict[str, Any] = {"slimmed": slimmed.name, "files": reports, "latency": []}
    for batch in (1, options.batch):
        sessions = {name: _session(folder / f"{name}.onnx", batch, data) for name in reports}
        seconds = interleave(sessions, ROUNDS)
        found["latency"] += rows(seconds, "original-float", batch=batch)
    return found | header()


def _session(path: Path, batch: int, data: ImageData) -> Callable[[], Any]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    shape = (batch, data.channels, *data.size)
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return lambda: session.run(None, {name: x})


def keep_evidence(run: Path, kept: Path) -> None:
    """Copy the records; weights and training states stay behind."""
    for path in sorted(run.glob("*/*.json")):
        if path.name in EVIDENCE:
            _files.make_folder(kept / path.parent.name)
            shutil.copyfile(path, kept / path.parent.name / path.name)
    for name in ("run.json", "runtime.json"):
        if (run / name).exists():
            shutil.copyfile(run / name, kept / name)


def main() -> None:
    """Run all cells, then the controls, and keep the evidence under ``benchmarks/results``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", default="parquet:../shared/data/cifar100")
    parser.add_argument("--train-limit", type=int, default=None)
    parser.add_argument("--criteria", default=CRITERIA)
    parser.add_argument("--speedups", default="2,1.5,3")
    parser.add_argument("--across", default="group")
    parser.add_argument("--batch", type=int, default=32, help="of the passes that are timed")
    parser.add_argument("--epochs", type=int, default=2, help="of fine-tuning")
    parser.add_argument("--scratch-epochs", type=int, default=0, help="0 leaves this control out")
    parser.add_argument("--int8-of", default="bn-scale-2", help="'' leaves the files out")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    options.out = _files.make_folder(options.out or ROOT / "runs" / "slimming-resnet20")
    processor.prepare(options.out)
    kept = ROOT / "benchmarks" / "results" / options.out.name
    told = {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()}
    _files.write_json(options.out / "run.json", {"options": told, **header()})
    criteria, speedups = options.criteria.split(","), list(map(float, options.speedups.split(",")))
    for speedup in speedups:
        for criterion in criteria:
            cell(options, criterion, speedup)
            keep_evidence(options.out, _files.make_folder(kept))
    data = open_data(options.data, train_limit=options.train_limit)
    if options.int8_of:
        found = runtime(options, data, options.out / options.int8_of)
        _files.write_json(options.out / "runtime.json", found)
        keep_evidence(options.out, kept)
    for speedup in speedups if options.scratch_epochs else ():
        like = options.out / f"{criteria[0]}-{speedup:g}"
        if (like / "model.json").exists():
            scratch(options, data, like, speedup)
            keep_evidence(options.out, kept)


if __name__ == "__main__":
    main()
