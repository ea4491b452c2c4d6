"""Where an export goes: checked before any work, written beside its target, then named."""

import contextlib
import importlib
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import _files
from ..errors import ConfigError, RunError, unknown

#: By format: the ending of its file, the endings of further files, and what must be installed.
FORMATS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "onnx": (".onnx", (), ("onnx", "onnxscript", "onnxruntime")),
    "openvino": (".xml", (".bin",), ("openvino",)),
    "pt2": (".pt2", (), ()),
}
_EXTRAS = {
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "openvino": "openvino",
}
#: Other people's code, whose deprecations are theirs to follow.
_OTHERS = r"(torch|onnx|onnxscript|onnx_ir|onnxruntime|openvino|ml_dtypes|copyreg)(\.|$)"


def check_format(to: str, int8: bool) -> None:
    """Refuse an unknown format, one without int8, or one whose package is not installed.

    Raises:
        ConfigError: says the line that installs it.
    """
    if to not in FORMATS:
        raise ConfigError(unknown("export", "format", str(to), FORMATS))
    if int8 and to == "pt2":
        raise ConfigError(
            "export: expected to='onnx' or 'openvino' with int8, got 'pt2', which we quantise for "
            "no runtime. Leave out int8, or choose one of these."
        )
    needed = FORMATS[to][2] + (FORMATS["onnx"][2] if int8 else ())
    missing = [name for name in dict.fromkeys(needed) if not _installed(name)]
    if missing:
        extras = ",".join(sorted({_EXTRAS.get(name, "export") for name in missing}))
        what = f"{to} in int8" if int8 else to
        raise ConfigError(
            f"export: expected {' and '.join(missing)} for {what}, got no such package. Run "
            f"`pip install 'normattn[{extras}]'`."
        )


def check_target(path: Path, to: str) -> None:
    """Refuse a target that exists, has another ending, or lies where nothing can be written.

    Raises:
        ConfigError: another ending.
        RunError: it exists, or its folder cannot be written.
    """
    ending, more, _ = FORMATS[to]
    if path.suffix != ending:
        raise ConfigError(
            f"export: expected a file that ends in {ending} for {to}, got {path.name!r}. "
            f"Use {path.with_suffix(ending).name!r}."
        )
    for file in (path.with_suffix(end) for end in (ending, *more)):
        if file.exists() or file.is_symlink():
            raise RunError(
                f"export: expected a new file, got {file}, which exists. Remove it, or choose "
                "another name; nothing was overwritten."
            )
    _files.make_folder(path.parent)


@contextlib.contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """Give a folder beside the target, where files can be renamed to it; it is gone afterwards."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise RunError(f"{path}: expected a place that can be written, got {error}.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(made: Path, path: Path, to: str, *, failed: bool) -> Path:
    """Give the files their names, with ``.failed`` behind where they are not to be used.

    Raises:
        RunError: the disk is full, or something has taken the name since.
    """
    ending, more, _ = FORMATS[to]
    for end in (*more, ending):  # the one that others refer to last
        target = path.with_suffix(end + (".failed" if failed else ""))
        try:
            if target.exists() and not failed:
                raise RunError(f"export: expected a new file, got {target}, made since. Move it.")
            made.with_suffix(end).chmod(0o644)
            made.with_suffix(end).replace(target)
        except OSError as error:
            raise RunError(
                f"{target}: expected a place that can be written, got {error.strerror or error}."
            ) from error
    return path.with_suffix(ending + (".failed" if failed else ""))


def size(made: Path, to: str) -> int:
    """Return the bytes of all files of an export."""
    ending, more, _ = FORMATS[to]
    return sum(made.with_suffix(end).stat().st_size for end in (ending, *more))


@contextlib.contextmanager
def others_code() -> Iterator[None]:
    """Around calls into exporters and runtimes: what they deprecate among them is not said."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=kind, module=_OTHERS)
        yield


def _installed(name: str) -> bool:
    try:
        imported(name)
    except ImportError:
        return False
    return True


def imported(name: str) -> Any:
    """Import a package of an extra; OpenVINO without its telemetry.

    Nobody has asked the user whether to report home. OpenVINO does without the package that does it
    where it is not installed, so that is hidden from it.
    """
    if name == "openvino" and name not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    with others_code():
        return importlib.import_module(name)
