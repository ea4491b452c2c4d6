"""What slimming costs: each criterion at each size, against chance and a narrow new model.

``python benchmarks/slimming.py ARTIFACT [--data SPEC] [--fewer 1.5,2,3] ...`` resumes where it
stopped; call it from the repository's root, on a quiet machine. The targets are multiply-adds,
which depend on no machine, so that all criteria are compared at one size; latency is measured.

::

    RUN/<criterion>-<fewer>/    a slimming in one round, as by `normattn slim --steps 1`
        scratch-<fewer>/        as narrow as the first criterion's, trained from new weights
        files/                  all of them for ONNX Runtime, in float, and some in int8
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

from normattn import _files, export, load
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


def cell(options: argparse.Namespace, criterion: str, fewer: float) -> None:
    """Slim by one criterion to one size; what cannot be done is written down as such."""
    folder: Path = options.out / f"{criterion}-{fewer:g}"
    job = SlimJob(
        artifact=str(options.artifact),
        data=options.data,
        target={"flops": 1 / fewer},
        recipe=fine_tuning(epochs=options.epochs, warmup_epochs=min(1.0, options.epochs / 4)),
        criterion=criterion,
        across=options.across,
        steps=1,
        round_to=options.round_to,
        batch=options.batch,
        train_limit=options.train_limit,
        skip=tuple(filter(None, options.skip.split(","))),
    )
    try:
        run_slim(job, folder, progress=show)
    except InputError as error:
        _files.write_json(folder / "refused.json", {"reason": str(error)})
        print(f"{folder.name}: {error}")
        return
    measure(folder, options.artifact)


def scratch(options: argparse.Namespace, data: ImageData, like: Path, fewer: float) -> None:
    """Train the slimmed architecture from new weights, for ``--scratch-epochs``."""
    folder = _files.make_folder(options.out / f"scratch-{fewer:g}")
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


def runtime(options: argparse.Namespace, data: ImageData) -> dict[str, Any]:
    """Export the models; time all files of a batch size in one interleaved run."""
    folder = _files.make_folder(options.out / "files")
    done = [path.parent for path in sorted(options.out.glob("*/slim.json")) if finished(path)]
    sources = {"original": options.artifact, **{path.name: path for path in done}}
    about: dict[str, Any] = {}
    for name, source in sources.items():
        for kind in kinds(options, name):
            path = folder / f"{name}.{kind}.onnx"
            path.unlink(missing_ok=True)
            if kind == "float":
                report = export(load(source), path, rounds=0)
            else:
                how = {"tolerance": options.tolerance} if "folded" in kind else {}
                report = export_with(load(source), path, data, int8="int8" in kind, **how)
                print(report, flush=True)
            last = list(report.rows.values())[-1]
            about[f"{name}.{kind}"] = {"accuracy": last.accuracy, "bytes": last.bytes}
    found: dict[str, Any] = {"int8_of": options.int8_of, "files": about, "latency": []}
    for batch in (1, options.batch):
        sessions = {name: _session(folder / f"{name}.onnx", batch, data) for name in about}
        found["latency"] += rows(interleave(sessions, ROUNDS), "original.float", batch=batch)
    return found | header()


def kinds(options: argparse.Namespace, name: str) -> tuple[str, ...]:
    """Return the files of a model: more of the original, and most of the one looked at closely."""
    if name not in ("original", options.int8_of):
        return ("float",)
    folded = ("folded", "folded-int8") if options.tolerance and name != "original" else ()
    return ("float", "int8", *folded)


def finished(record: Path) -> bool:
    """Return whether a slimming was done."""
    return bool(json.loads(record.read_text())["status"] == "done")


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
    parser.add_argument("--fewer", default="2,1.5,3", help="times fewer multiply-adds")
    parser.add_argument("--across", default="group")
    parser.add_argument("--batch", type=int, default=32, help="of the passes that are timed")
    parser.add_argument("--epochs", type=int, default=2, help="of fine-tuning")
    parser.add_argument("--scratch-epochs", type=int, default=0, help="0 leaves this control out")
    parser.add_argument("--round-to", type=int, default=4)
    parser.add_argument("--skip", default="", help="patterns of layers that keep their channels")
    parser.add_argument(
        "--tolerance", type=float, default=0, help="of gates that are folded; 0: none"
    )
    parser.add_argument("--int8-of", default="bn-scale-2", help="which one, beside the original")
    parser.add_argument("--host", default="resnet20", help="what the README calls the model")
    parser.add_argument("--training", default="", help="how it was trained, for the README")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    options.out = _files.make_folder(options.out or ROOT / "runs" / "slimming-resnet20")
    processor.prepare(options.out)
    kept = ROOT / "benchmarks" / "results" / options.out.name
    told = {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()}
    _files.write_json(options.out / "run.json", {"options": told, **header()})
    criteria, sizes = options.criteria.split(","), list(map(float, options.fewer.split(",")))
    for fewer in sizes:
        for criterion in criteria:
            cell(options, criterion, fewer)
            keep_evidence(options.out, _files.make_folder(kept))
    data = open_data(options.data, train_limit=options.train_limit)
    _files.write_json(options.out / "runtime.json", runtime(options, data))
    keep_evidence(options.out, kept)
    for fewer in sizes if options.scratch_epochs else ():
        like = options.out / f"{criteria[0]}-{fewer:g}"
        if (like / "model.json").exists():
            scratch(options, data, like, fewer)
            keep_evidence(options.out, kept)


if __name__ == "__main__":
    main()
