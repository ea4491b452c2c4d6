"""Save a model and load it anywhere: weights and a page of JSON, no pickle and no code.

::

    FOLDER/model.safetensors    the weights
    FOLDER/model.json           host, grafts, classes, preprocessing, metrics, versions, checksum
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from .. import _files
from ..attention import MECHANISMS
from ..errors import ArtifactError, InputError, RunError
from .graft import Grafted, grafts, regraft
from .hosts import HostSpec, host_spec

FORMAT = 1
WEIGHTS = "model.safetensors"
INFO = "model.json"


@dataclass(frozen=True)
class ArtifactInfo:
    """What an artifact says about its model.

    ``preprocessing`` holds ``input_size`` (C, H, W) and the ``mean`` and ``std`` of pixels in
    [0, 1] where the model was trained by us.
    """

    host: HostSpec
    grafts: tuple[Grafted, ...]
    classes: tuple[str, ...] | None
    preprocessing: Mapping[str, Any] | None
    metrics: Mapping[str, Any] | None
    versions: Mapping[str, str]
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return plain containers, with the version of the format."""
        return {"format": FORMAT, **dataclasses.asdict(self)}


def save(
    model: nn.Module,
    path: Path | str,
    *,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Save ``model`` in the folder ``path`` and return it.

    Args:
        model: A host built by `normattn.host`, with any attention of the registry grafted.
        path: A folder; made if it is not there. A model in it is replaced.
        classes: The name of each output.
        preprocessing: How images become inputs, in JSON types.
        metrics: What was measured, in JSON types.

    Raises:
        ArtifactError: ``model`` could not be built again: its host is not one of `normattn.host`'s,
            an attention module is not in the registry, or its layers were changed by hand.
        RunError: the folder cannot be written.
    """
    spec, records = _rebuildable(model)
    path = _files.make_folder(Path(path))
    # Copies, laid out plainly: safetensors takes neither channels-last nor shared memory.
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise ArtifactError(
                f"save: expected finite weights, got NaN or infinity in {name}. Nothing was "
                "written; go back to a model from before the training diverged."
            )
    _files.write_bytes(path / WEIGHTS, to_bytes(state))
    info = ArtifactInfo(
        host=spec,
        grafts=records,
        classes=tuple(classes) if classes is not None else None,
        preprocessing=preprocessing,
        metrics=metrics,
        versions={name: metadata.version(name) for name in ("normattn", "torch", "timm")},
        sha256=_files.sha256(path / WEIGHTS),
    )
    _files.write_json(path / INFO, info.to_json())
    return path


def load(path: Path | str) -> nn.Module:
    """Build the model saved in the folder ``path``, in evaluation mode, on the CPU.

    Raises:
        ArtifactError: there is no artifact, it is damaged, or a later version wrote it.

    Example:
        >>> import tempfile, normattn
        >>> model = normattn.graft(normattn.host("resnet20", 10), "nam")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = load(save(model, folder))
        >>> len(normattn.grafts(again))
        9
    """
    folder = Path(path)
    info = read_info(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ArtifactError(_not_ours(folder, f"{INFO} without {WEIGHTS}"))
    if _files.sha256(weights) != info.sha256:
        raise ArtifactError(
            f"{weights}: expected the weights that {INFO} describes, got another checksum "
            f"({_kind(weights)}). The file is damaged or was replaced; copy the folder again."
        )
    try:
        # Clones, as the file gives views of itself at odd addresses, where sums round otherwise.
        state = {name: tensor.clone() for name, tensor in load_file(weights).items()}
        model = _rebuild(info.host, info.grafts)
        model.load_state_dict(state, assign=True)  # keeps the type that the weights were saved in
    except (SafetensorError, InputError, RuntimeError) as error:
        raise ArtifactError(
            f"{folder}: expected weights that fit the model in {INFO}, got: {error}. "
            "Save the model again with this version of normattn."
        ) from error
    return model.eval()


def read_info(path: Path | str) -> ArtifactInfo:
    """Return what the artifact in the folder ``path`` says, without its weights.

    Raises:
        ArtifactError: there is no artifact, it is damaged, or a later version wrote it.
    """
    folder = Path(path)
    if not folder.exists():
        raise ArtifactError(_not_ours(folder, "nothing there"))
    if not folder.is_dir():
        raise ArtifactError(_not_ours(folder, _kind(folder)))
    page = folder / INFO
    if not page.is_file():
        raise ArtifactError(_not_ours(folder, f"a folder without {INFO}"))
    try:
        content = _files.read_json(page)
    except RunError as error:
        raise ArtifactError(_not_ours(folder, f"{INFO} that is {_kind(page)}")) from error
    version = content.pop("format", None) if isinstance(content, dict) else None
    if type(version) is int and version > FORMAT:
        raise ArtifactError(
            f"{folder}: expected an artifact of format {FORMAT} or before, got {version}. "
            "A later normattn wrote it; update normattn."
        )
    if version != FORMAT:
        raise ArtifactError(_not_ours(folder, f"{INFO} without a format that we know"))
    return _parse(content, folder)


def _parse(content: dict[str, Any], folder: Path) -> ArtifactInfo:
    try:
        classes = content["classes"]
        return ArtifactInfo(
            **{
                **content,
                "host": HostSpec(**content["host"]),
                "grafts": tuple(Grafted(**record) for record in content["grafts"]),
                "classes": tuple(classes) if classes is not None else None,
            }
        )
    except (KeyError, TypeError, InputError) as error:
        raise ArtifactError(
            _not_ours(folder, f"{INFO} that does not describe a model ({error})")
        ) from error


def _rebuildable(model: nn.Module) -> tuple[HostSpec, tuple[Grafted, ...]]:
    """Return what ``model`` is built from, having tried it: better now than when it is needed."""
    spec = host_spec(model)
    if spec is None:
        raise ArtifactError(
            f"save: expected a model built by normattn.host, got {type(model).__name__}. "
            "Save others with safetensors, and keep the code that builds them."
        )
    records = grafts(model)
    for record in records:
        if record.mechanism not in MECHANISMS:
            raise ArtifactError(
                f"save: expected mechanisms of the registry, got {record.mechanism} at "
                f"{record.site}. An artifact holds no code; register the mechanism first."
            )
    with torch.random.fork_rng(devices=[]):
        again = {name: t.shape for name, t in _rebuild(spec, records).state_dict().items()}
    ours = {name: tensor.shape for name, tensor in model.state_dict().items()}
    differing = [name for name in {**ours, **again} if ours.get(name) != again.get(name)]
    if differing:
        raise ArtifactError(
            f"save: expected the layers that normattn.host and graft made, got others at "
            f"{', '.join(differing[:5])}. Undo changes made by hand; they cannot be rebuilt."
        )
    return spec, records


def _rebuild(spec: HostSpec, records: Sequence[Grafted]) -> nn.Module:
    return regraft(spec.build(), records)


def _not_ours(path: Path, got: str) -> str:
    return (
        f"{path}: expected a folder with {INFO} and {WEIGHTS}, got {got}. "
        "Give the folder that normattn.save or a training made."
    )


def _kind(path: Path) -> str:
    """Say from its first bytes what a file is; it is never opened further."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "an empty file"
    if head.startswith(b"PK"):
        return "a zip archive, such as torch.save writes (pickles inside are never opened)"
    if head.startswith(b"\x80"):
        return "a pickle, which is never opened"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "an HTML page, such as a failed download leaves"
    if head.lstrip().startswith((b"{", b"[")):
        return "JSON, not whole"
    return "a file"
