"""`normattn slim`: from a trained model and a target to a smaller model, with what it cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from . import _common, _options, _progress, _settings

if TYPE_CHECKING:
    from ..training.loop import Progress
    from ..training.slimming import SlimJob


def slim(
    ctx: typer.Context,
    artifact: Annotated[
        Path, typer.Argument(help="A saved model, or a training's folder.", metavar="ARTIFACT")
    ],
    data: _options.Data,
    out: Annotated[Path, typer.Option(help="The folder; an unfinished slimming in it resumes.")],
    speedup: Annotated[
        float | None,
        typer.Option(help="Target: so many times as fast here, measured.", metavar="X"),
    ] = None,
    flops: Annotated[
        float | None, typer.Option(help="Target: this fraction of multiply-adds.", metavar="F")
    ] = None,
    params: Annotated[
        float | None, typer.Option(help="Target: this fraction of parameters.", metavar="F")
    ] = None,
    channels: Annotated[
        float | None,
        typer.Option(help="Target: this fraction of every group's channels removed.", metavar="F"),
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option(help="Target: milliseconds for one pass here.", metavar="MS")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Stop before more points of top-1 accuracy are lost than this; without it the "
            "target is reached at any price, which is shown.",
            metavar="POINTS",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Rounds on the way to the target.", min=1)] = 3,
    criterion: Annotated[
        str,
        typer.Option(
            help="What says which channels matter: bn-scale, nam, taylor, magnitude, gate, or "
            "random as the control.",
            metavar="NAME",
        ),
    ] = "bn-scale",
    across: Annotated[
        str,
        typer.Option(
            help="'group': each loses its share; 'model': all channels compete.", metavar="RULE"
        ),
    ] = "group",
    round_to: Annotated[
        int,
        typer.Option(
            help="Widths that are left are multiples of this; ONNX Runtime's kernels work in "
            "blocks of 8 or 16 channels.",
            min=1,
        ),
    ] = 8,
    skip: Annotated[
        str | None,
        typer.Option(
            help="Layers that keep their channels: name patterns, comma-separated.",
            metavar="PATTERNS",
            show_default=False,
        ),
    ] = None,
    epochs: _options.Epochs = None,
    overrides: _options.Overrides = None,
    distill: Annotated[
        bool, typer.Option(help="Let the original teach the smaller model while it is fine-tuned.")
    ] = True,
    batch: Annotated[
        int, typer.Option(help="Images in the passes that a latency is measured on.", min=1)
    ] = 1,
    runtime: Annotated[
        str,
        typer.Option(
            help="Where latency counts: torch, or the exported model in onnxruntime or openvino "
            "(seconds more for each width tried).",
            metavar="NAME",
        ),
    ] = "torch",
    seed: Annotated[int, typer.Option(help="Everything random follows from it.", min=0)] = 0,
    train_limit: _options.TrainLimit = None,
    on_bad_image: _options.OnBadImage = "stop",
    image_size: _options.ImageSize = None,
    fuse: _options.Fuse = True,
    device: _options.Device = "auto",
    tensorboard: _progress.TensorBoard = False,
    json: _options.Json = False,
    config: _options.Config = None,
) -> None:
    """Slim a trained model to a target, in rounds: plan, remove, fine-tune.

    Ends at the target, or before the allowed drop, and says which; the same command resumes what
    was cut short. Accuracies are those on the validation images.

    Example: normattn slim runs/nam --data digits --speedup 2 --max-drop 0.5 --out runs/slim
    """
    from ..training.slimming import SlimJob, fine_tuning

    fields = _settings.recipe_fields(ctx, overrides or [], epochs)
    if not distill:
        if fields.get("distill"):
            raise ConfigError("distill: expected one wish, got --no-distill and `set`. Drop one.")
        fields["distill"] = 0.0
    wishes = {
        "speedup": speedup,
        "flops": flops,
        "params": params,
        "channels": channels,
        "latency_ms": latency_ms,
    }
    job = SlimJob(
        artifact=str(artifact),
        data=data,
        target={kind: value for kind, value in wishes.items() if value is not None},
        recipe=fine_tuning(**fields),
        criterion=criterion,
        across=across,
        steps=steps,
        max_drop=max_drop,
        round_to=round_to,
        skip=tuple(part.strip() for part in (skip or "").split(",") if part.strip()),
        batch=batch,
        seed=seed,
        train_limit=train_limit,
        on_bad_image=on_bad_image,
        image_size=image_size,
        fuse=fuse,
        runtime=runtime,
    )
    logs = out if tensorboard else None
    with _common.resumable(ctx), _progress.display(json, tensorboard=logs) as progress:
        record, profile = run(job, out, device, progress)
    show(record, profile, out, json)


def run(
    job: "SlimJob", out: Path, device: str, progress: "Progress"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Slim, or go on with it, and write its page; return the record and the latencies."""
    from ..comparison.slimmed import measure
    from ..comparison.slimmed_page import write_slimmed
    from ..training import processor
    from ..training.slimming import recorded_threads, run_slim

    processor.keep_memory()
    processor.set_threads(recorded_threads(out))
    record = run_slim(job, out, device=device, progress=progress)
    profile = measure(out, job.artifact)
    write_slimmed(out, profile)
    return record, profile


def show(record: dict[str, Any], profile: dict[str, Any], out: Path, json: bool) -> None:
    """Show what a slimming brought and what it cost."""
    from ..comparison.slimmed import slimmed_table

    if json:
        result = {"event": "result", "folder": str(out), **record, "latency": profile["latency"]}
        _common.print_json(result)
    else:
        console = _common.out()
        console.print(slimmed_table(record, profile))
        console.print(record["summary"], soft_wrap=True, highlight=False, markup=False)
        console.print(f"Model: {out}", soft_wrap=True, highlight=False, markup=False)
    for message in profile["notes"]:
        _common.note(message)
