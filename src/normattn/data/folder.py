"""``folder:DIR``: a folder a split, in it a folder a class."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from .source import Rows, Source, check_same_classes

_EVALUATION = ("val", "valid", "validation", "test")


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Files below ``root``."""

    root: Path
    paths: tuple[str, ...]  # relative, so that a moved folder keeps its stamps

    def name(self, position: int) -> str:
        """Return the file's path."""
        return str(self.root / self.paths[position])

    def open(self, position: int) -> Image.Image:
        """Read the header; the file closes with the image."""
        return Image.open(self.root / self.paths[position])

    def stamp(self, position: int) -> str:
        """Return the relative path and the length in bytes."""
        path = self.paths[position]
        return f"{path}:{(self.root / path).stat().st_size}"


def open_folder(root: Path) -> Source:
    """Read ``root/train`` and the first of ``val``, ``valid``, ``validation``, ``test`` in it.

    Every file below a class folder is an image, however it is called; hidden files are passed over.

    Raises DataError for a folder that is missing, empty or unreadable, for a class folder without a
    file, for an image outside the class folders, and for classes that differ between the splits.
    """
    if not root.is_dir():
        got = "a file" if root.exists() else "nothing there"
        raise DataError(
            f"folder:{root}: expected a folder with train and val in it, got {got}. Check the path."
        )
    evaluation = next((name for name in _EVALUATION if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or evaluation is None:
        missing = f"{root / 'train'}" if evaluation else f"val or test in {root}"
        raise DataError(
            f"folder:{root}: expected the folders train and val (or valid, validation, test), each "
            f"with a folder a class, got no {missing}. Check the path."
        )
    train, classes = _read_split(root / "train")
    val, val_classes = _read_split(root / evaluation)
    check_same_classes(f"folder:{root}", classes, val_classes)
    return Source(train, val, classes, notes=(f"val: the folder {evaluation}",))


def _read_split(folder: Path) -> tuple[Rows, tuple[str, ...]]:
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        classes = [entry for entry in entries if entry.is_dir()]
        _refuse_strays(folder, [entry for entry in entries if not entry.is_dir()])
        files = [_list_files(entry, folder) for entry in classes]
    except OSError as error:
        raise DataError(f"{folder}: expected a readable folder, got {error}.") from error
    if not classes:
        raise DataError(f"{folder}: expected a folder for each class, got none.")
    for entry, found in zip(classes, files, strict=True):
        if not found:
            raise DataError(
                f"{entry}: expected images of the class {entry.name!r}, got an empty folder. "
                "Fill it, or remove it from every split."
            )
    pictures = ImageFiles(folder, tuple(path for found in files for path in found))
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in files])
    rows = Rows(pictures, np.arange(len(labels)), labels)
    return rows, tuple(entry.name for entry in classes)


def _list_files(folder: Path, root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


def _refuse_strays(folder: Path, files: list[Path]) -> None:
    known = Image.registered_extensions()
    for path in files:
        if path.suffix.lower() in known:
            raise DataError(
                f"{path}: expected images in class folders only, got one directly in "
                f"{folder.name}. Move it into the folder of its class."
            )
