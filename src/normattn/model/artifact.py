"""Save a model and load it anywhere: weights and a page of JSON, no pickle and no code.

::

    FOLDER/model.safetensors    the weights
    FOLDER/model.json           host, grafts, classes, preprocessing, metrics, versions, checksum
    FILE.safetensors            or both in one file

Channels that slimming removed need no record: the shapes of the weights say what is left.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .. import _files
from ..attention import MECHANISMS
from ..errors import ArtifactError, InputError
from ._artifact_build import Builder, State, build, state_of
from ._artifact_files import INFO as INFO
from ._artifact_files import WEIGHTS as WEIGHTS
from ._artifact_files import (
    Found,
    damaged,
    find,
    is_file_form,
    not_ours,
    require_replaceable,
    write_file,
    write_folder,
)
from ._artifact_images import Preprocessing
from ._artifact_info import FORMAT as FORMAT
from ._artifact_info import ArtifactInfo as ArtifactInfo
from ._artifact_info import class_names, parse, plain_json, versions
from ._predict import Predictor, attach, attached, count_parameters
from .graft import Grafted, grafts
from .hosts import HostSpec, host_spec

if TYPE_CHECKING:

    class Loaded(nn.Module):
        """What `load` returns, as type checkers see it; its class is the saved model's own."""

        predict: Predictor


def save(
    model: nn.Module,
    path: Path | str,
    *,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    builder: bool | Builder = False,
    slimming: Mapping[str, Any] | None = None,
) -> Path:
    """Save ``model`` and return where.

    A model that is at ``path`` is replaced; anything else there is refused. ``classes``,
    ``preprocessing`` and ``slimming`` that are not given are taken from the artifact that the model
    was loaded from; ``metrics`` never are, as the model may have changed since.

    Args:
        model: A host built by `normattn.host`, with any attention of the registry grafted, slimmed
            or not. A compiled or fused model is saved as the plain one that it was made of.
        path: A folder, made if it is not there; or one file, if it ends in ``.safetensors``.
        classes: The name of each output.
        preprocessing: How images become inputs: ``input_size`` (C, H, W), and ``mean`` and ``std``
            of pixels in [0, 1]; ``crop_pct`` and ``interpolation`` as timm's
            ``resolve_data_config`` gives them are understood too.
        metrics: What was measured, in JSON types.
        builder: For a model of a class of your own: the function that builds it, without arguments
            and as it was before `graft` and `slim`. It is tried, and not saved: `load` must be
            given it again. True leaves out the trial.
        slimming: What was removed, with the cost ``before`` and ``after``, in JSON types.

    Raises:
        ArtifactError: ``model`` could not be built again: its host is not one of `normattn.host`'s,
            an attention module is not in the registry, or its layers were changed by hand. Its
            weights are not finite. ``path`` is something else than a model.
        ConfigError: classes, preprocessing, metrics or slimming are not what they should be.
        RunError: the place cannot be written.
    """
    path, model = Path(path), getattr(model, "_orig_mod", model)  # torch.compile wraps
    if not isinstance(model, nn.Module):
        raise ArtifactError(f"save: expected a model, got {type(model).__name__}.")
    require_replaceable(path)
    source: HostSpec | Builder | None = builder if callable(builder) else None
    spec = None if builder else _require_spec(model)
    before = attached(model)
    names = class_names(classes if classes is not None or not before else before.classes, spec)
    wanted = plain_json(
        "preprocessing", preprocessing if preprocessing is not None or not before else before.given
    )
    if wanted is not None:
        Preprocessing.parse(wanted, "save")
    if slimming is None and before and before.parameters == count_parameters(model):
        slimming = before.slimming
    info = ArtifactInfo(
        host=spec,
        grafts=grafts(model),
        classes=names,
        preprocessing=wanted,
        metrics=plain_json("metrics", metrics),
        versions=versions(),
        sha256="",
        slimming=plain_json("slimming", slimming),
        builder=type(model).__name__ if builder else None,
    )
    state = state_of(model)
    if source := source or spec:
        _require_rebuildable(source, info.grafts, state)
    if is_file_form(path):
        _files.make_folder(path.parent)
        write_file(path, info.to_json(), state)
    else:
        write_folder(_files.make_folder(path), info.to_json(), state)
    return path


def load(path: Path | str, builder: Builder | None = None) -> "Loaded":
    """Build the model saved at ``path``, in evaluation mode, on the CPU.

    It has a further attribute, ``predict``, which takes images of any size and kind; see
    `normattn.model._predict.Predictor`. It costs about what reading and checking the weights does.

    Args:
        path: A folder or a file that `save` or a training made, or a folder from the Hub.
        builder: For a model of a class of your own, what `save` was given.

    Raises:
        ArtifactError: there is no artifact, it is damaged, a later version wrote it, or it needs a
            builder.

    Example:
        >>> import tempfile, normattn
        >>> model = normattn.graft(normattn.host("resnet20", 10), "nam")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = load(save(model, folder))
        >>> len(normattn.grafts(again))
        9
    """
    found, info = _open(Path(path))
    source = builder or info.host
    if source is None:
        raise ArtifactError(
            f"{path}: expected builder=, as normattn.host does not build the class {info.builder}, "
            f"got none. Pass a function that returns a new {info.builder} as it was before graft "
            f"and slim: normattn.load(path, builder=lambda: {info.builder}(...))."
        )
    problem: Exception | None = None
    with ThreadPoolExecutor(1) as pool:  # the checksum takes as long as all the rest
        checksum = pool.submit(found.checksum)
        try:
            # Clones: the file gives views of itself at odd addresses, where sums round otherwise.
            state = {name: tensor.clone() for name, tensor in load_file(found.weights).items()}
            model = build(source, info.grafts, state)
        except Exception as error:  # damaged files break anything; what is to blame comes below
            problem = error
    if checksum.result() != info.sha256:
        raise ArtifactError(damaged(found)) from problem
    if isinstance(problem, SafetensorError | InputError | RuntimeError):
        raise ArtifactError(
            f"{path}: expected weights that fit the model that they are described as, got: "
            f"{problem}. Save the model again with this version of normattn."
        ) from problem
    if problem is not None:
        raise problem
    model.eval()
    attach(model, info.classes, info.preprocessing, info.slimming)
    return cast("Loaded", model)


def read_info(path: Path | str) -> ArtifactInfo:
    """Return what the artifact at ``path`` says, without reading its weights.

    Raises:
        ArtifactError: there is no artifact, it is damaged, or a later version wrote it.
    """
    return parse(find(Path(path)))


def _open(path: Path) -> tuple[Found, ArtifactInfo]:
    found = find(path)
    info = parse(found)
    if not found.weights.is_file():
        raise ArtifactError(not_ours(path, f"{INFO} without {WEIGHTS}"))
    return found, info


def _require_spec(model: nn.Module) -> HostSpec:
    spec = host_spec(model)
    if spec is None:
        raise ArtifactError(
            f"save: expected a model built by normattn.host, got {type(model).__name__}. "
            "For a class of your own pass builder=, the function that builds it."
        )
    for record in grafts(model):
        if record.mechanism not in MECHANISMS:
            raise ArtifactError(
                f"save: expected mechanisms of the registry, got {record.mechanism} at "
                f"{record.site}. An artifact holds no code; register the mechanism first, or pass "
                "builder=, a function that builds the model with it."
            )
    return spec


def _require_rebuildable(
    source: HostSpec | Builder, records: Sequence[Grafted], state: State
) -> None:
    """Try it: better now than when it is needed."""
    try:
        build(source, records, state)
    except (InputError, RuntimeError) as error:
        raise ArtifactError(
            f"save: expected a model that can be built again, of the layers that its host, graft "
            f"and slim made, got others: {error} Undo changes made by hand; a folded model is "
            "exported, not saved."
        ) from error
