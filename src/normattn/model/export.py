"""A trained model as a file for a runtime: folded, checked against PyTorch, timed."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, Fault
from ._discovery import _quietly
from ._export_about import check_output, describe_model
from ._export_check import compare, parity
from ._export_files import check_format, check_target, publish, size, workspace
from ._export_int8 import GateLevels as GateLevels
from ._export_job import CALIBRATION_IMAGES as CALIBRATION_IMAGES
from ._export_job import Job
from ._export_report import ExportReport as ExportReport
from ._export_report import ExportRow as ExportRow
from ._export_report import Parity as Parity
from ._fold_checks import refuse_unfoldable
from ._fold_images import Batches, check_batches, like, noise, read
from ._sites import InputSize
from .fold import fold, fold_report
from .profile import Latency, latency


def export(
    model: nn.Module,
    path: Path | str,
    to: str = "onnx",
    *,
    int8: bool = False,
    data: Batches | None = None,
    calibration: Batches | None = None,
    tolerance: float | None = None,
    input_size: InputSize | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    rounds: int = 30,
) -> ExportReport:
    """Fold a model, write it for a runtime, and check the file against PyTorch.

    The file takes batches of any size. It is written beside its target and gets its name when its
    outputs are the folded model's: within 1e-4 of the largest for float, within 0.3 of the root
    mean square for int8. A file that is not is kept as ``<path>.failed``.

    int8 is ONNX Runtime's static quantization (QDQ, weights per channel); OpenVINO reads its result
    as its own int8. A gate that int8 would flatten to a few values stays in float. x86 processors
    without VNNI add pairs of products in 16 bits, where large ones saturate: there the same file
    may answer otherwise and less well than on the machine that this report is of.

    Args:
        model: any model with one output ``(B, classes)``, fused or slimmed or neither; left as is.
            One in half precision is exported in float32.
        path: a new file, which ends in ``.onnx``, ``.xml`` (OpenVINO, with a ``.bin`` beside it) or
            ``.pt2``. A ``.pt2`` holds pickles, as PyTorch writes it: see the report's notes.
        to: "onnx", "openvino" or "pt2".
        int8: whether to quantise.
        data: batches of ``(inputs, labels)``, normalised as for training, on which the forms are
            compared and their accuracy is measured; noise without any.
        calibration: batches for the ranges of int8 and of gates, of the training split; by default
            ``data``. int8 uses the first 512 images.
        tolerance: of `normattn.fold`; None folds what is exact.
        input_size: side, or (H, W), of the images where there are no data.
        classes: the name of each output, for the file's metadata; a loaded model knows its own.
        preprocessing: how images become inputs, likewise.
        rounds: how often each form is timed, in one interleaved run; 0 times none.

    Raises:
        ConfigError: an unknown format, a package that is not installed (with the line that installs
            it), int8 without images.
        DataError: images or labels that are not the model's.
        RunError: ``path`` exists or cannot be written.
        UnsupportedModel: the model is compiled, wrapped, quantised, on the meta device, or the
            exporter cannot express it.
        Fault: the file's outputs are not the model's.
    """
    path = Path(path)
    check_export(path, to, int8=int8, tolerance=tolerance, data=data, calibration=calibration)
    _check(model, data, calibration, rounds)
    input_size = _size_said(preprocessing) if input_size is None else input_size
    source = _in_float32(model)
    folded = fold(
        source, tolerance=tolerance, data=data, calibration=calibration, input_size=input_size
    )
    images = noise(source, input_size) if data is None else _first(source, data)
    about = describe_model(model, images, classes, preprocessing)
    check_output(folded, images, about)
    shown = [] if source is model else ["Exported in float32, from a copy on the CPU."]
    with workspace(path) as folder, _quietly(source):
        made = folder / path.name
        job = Job(to, folder, folded, images, about)
        files, levels, notes = job.write(made, int8, calibration or data)
        forms = {"PyTorch": source, "PyTorch, folded": folded, **job.runners(files)}
        rows = _rows(forms, files, to, data, images, rounds)
        good = all(row.parity is None or row.parity.holds for row in rows.values())
        published = publish(made, path, to, failed=not good)
    folds = fold_report(folded)
    report = ExportReport(published, to, int8, rows, folds, levels, (*shown, *notes))
    if not good:
        raise Fault(_disagreement(report))
    return report


def _rows(
    forms: Mapping[str, nn.Module],
    files: Mapping[str, Path],
    to: str,
    data: Batches | None,
    images: Tensor,
    rounds: int,
) -> dict[str, ExportRow]:
    (folded,) = (form for label, form in forms.items() if label == "PyTorch, folded")
    sums = compare(folded, forms, data, images)
    times: Mapping[str, Latency] = {}
    if rounds:
        times = latency(forms, list(images.shape[1:]), rounds=rounds)
    rows = {}
    for label, form in forms.items():
        found = sums[label]
        file = files.get(label)
        rows[label] = ExportRow(
            bytes=_weights(form) if file is None else size(file, to),
            accuracy=found.share(found.folded_right) if found.labelled else None,
            latency=times.get(label),
            parity=None
            if file is None
            else parity(
                found, int8=label.endswith("int8"), source="noise" if data is None else "data"
            ),
        )
    return rows


def check_export(
    path: Path | str,
    to: str,
    *,
    int8: bool = False,
    tolerance: float | None = None,
    data: object = None,
    calibration: object = None,
) -> None:
    """Refuse what can be refused before a model and data are read; `export` asks the same.

    Raises:
        ConfigError: an unknown format, a package that is not installed, int8 or a tolerance without
            images.
        RunError: ``path`` exists or cannot be written.
    """
    check_format(to, int8)
    if int8 and data is None and calibration is None:
        raise ConfigError(
            "export: expected data with int8, got none. The ranges of int8 are measured on real "
            "images; give data (--data), or calibration."
        )
    if tolerance is not None and data is None:
        raise ConfigError(
            "export: expected data with a tolerance, got none. The ranges of gates are measured on "
            "real images; give data (--data)."
        )
    check_target(Path(path), to)


def _check(
    model: nn.Module, data: Batches | None, calibration: Batches | None, rounds: int
) -> None:
    refuse_unfoldable("export", model)
    for batches in (data, calibration):
        if batches is not None:
            check_batches("export", batches)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 0:
        raise ConfigError(f"export: expected rounds to be an integer >= 0, got {rounds!r}.")


def _size_said(preprocessing: Mapping[str, Any] | None) -> InputSize | None:
    if not preprocessing or "input_size" not in preprocessing:
        return None
    _, height, width = preprocessing["input_size"]
    return height, width


def _in_float32(model: nn.Module) -> nn.Module:
    sample = like(model)
    if sample.dtype == torch.float32 and sample.device.type == "cpu":
        return model
    return copy.deepcopy(model).to(device="cpu", dtype=torch.float32)


def _first(model: nn.Module, data: Batches) -> Tensor:
    inputs, _ = next(read("export", data, model))
    return inputs


def _weights(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def _disagreement(report: ExportReport) -> str:
    wrong = [
        f"{label} {row.parity}"
        for label, row in report.rows.items()
        if row.parity and not row.parity.holds
    ]
    return (
        f"export: expected the outputs of the model in PyTorch, got others: {'; '.join(wrong)}. "
        f"The file is kept as {report.path}; do not use it."
    )
