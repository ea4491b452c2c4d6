"""An artifact as the Hugging Face Hub wants it, and the way there.

::

    model.safetensors    the weights
    config.json          what model.json says, where the Hub looks for it (it counts downloads)
    README.md            the model card: what it is, what was measured, how to load it
"""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from .. import _files
from ..errors import ArtifactError, ConfigError, Fault
from ._artifact_card import card
from ._artifact_files import (
    CONFIG,
    INFO,
    KEY,
    WEIGHTS,
    Found,
    damaged,
    find,
    holds_hub_page,
    not_ours,
)
from ._artifact_info import ArtifactInfo, parse

_CARD = "README.md"


def push_to_hub(
    path: Path | str,
    repo_id: str,
    *,
    license: str | None = None,
    private: bool | None = None,
    message: str = "Model saved by normattn",
    token: str | None = None,
    folder: Path | str | None = None,
) -> str:
    """Put the artifact at ``path`` on the Hugging Face Hub, in one commit, and return its address.

    Only the model goes there, with its card: nothing else of a training's folder does. Files in the
    repository that are not the model's stay. `normattn.load` takes the folder that
    ``huggingface_hub.snapshot_download`` gives back.

    Args:
        path: What `save` or a training made.
        repo_id: ``user/name``; made if it is not there.
        license: What others may do with the weights, by the Hub's names, such as "apache-2.0". Left
            out, the card says that there is none.
        private: Whether a new repository is; by default as the account has it.
        message: Of the commit.
        token: Of the account; by default that of ``hf auth login`` or of ``HF_TOKEN``.
        folder: Write what would be pushed here, to be looked at, and push nothing. A Hub folder of
            ours is replaced; other files of these names are refused.

    Raises:
        ArtifactError: there is no artifact, or it is damaged.
        ConfigError: the name is none, or the account may not write there.
        RunError: ``folder`` cannot be written.
        Fault: the Hub cannot be reached, or fails.
    """
    _check_name(repo_id)
    found = find(Path(path))
    info = parse(found)
    if not found.weights.is_file():
        raise ArtifactError(not_ours(found.path, f"a description without {WEIGHTS}"))
    if found.checksum() != info.sha256:
        raise ArtifactError(damaged(found))
    if folder is not None:
        folder = Path(folder)
        _require_free(folder, found)
        _write(found, info, repo_id, license, _files.make_folder(folder))
        return str(folder)
    with tempfile.TemporaryDirectory() as temporary:
        _write(found, info, repo_id, license, Path(temporary))
        return _push(Path(temporary), repo_id, private, message, token)


def _write(
    found: Found, info: ArtifactInfo, repo_id: str, license: str | None, folder: Path
) -> None:
    """Write the three files; the weights go as they are, so that equal models are equal files."""
    content = found.weights.read_bytes()
    page = info.to_json() | {"sha256": hashlib.sha256(content).hexdigest()}
    architecture = info.host.name if info.host else info.builder
    config: dict[str, Any] = {"library_name": KEY, "architecture": architecture, KEY: page}
    if info.classes is not None:
        config |= {"num_classes": len(info.classes), "label_names": list(info.classes)}
    _files.write_bytes(folder / WEIGHTS, content)
    _files.write_json(folder / CONFIG, config)
    _files.write_text(folder / _CARD, card(info, repo_id, license, len(content)))


def _push(folder: Path, repo_id: str, private: bool | None, message: str, token: str | None) -> str:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = huggingface_hub.HfApi(token=token)
    try:
        place = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=place.repo_id, folder_path=folder, commit_message=message)
    except HFValidationError as error:
        raise ConfigError(_no_name(repo_id, str(error))) from error
    except Exception as error:  # the client, its HTTP library and the system raise as they like
        first = str(error).strip().partition("\n")[0].rstrip(".")
        reason = f"{type(error).__name__}: {first}"
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status in (401, 403) or type(error).__name__ == "LocalTokenNotFoundError":
            raise ConfigError(
                f"push: expected an account that may write to {repo_id}, got {reason}. "
                "Log in with `hf auth login`, with a token that may write, or choose another name."
            ) from error
        raise Fault(
            f"push: expected the Hub to take {repo_id}, got {reason}. Nothing local changed; "
            "check the network, and push again."
        ) from error
    return str(place)


def _require_free(folder: Path, found: Found) -> None:
    """Refuse to write over files that are not an earlier push, and over the artifact itself."""
    taken = [name for name in (WEIGHTS, INFO, CONFIG, _CARD) if (folder / name).exists()]
    ours = holds_hub_page(folder / CONFIG) and INFO not in taken
    same = folder.exists() and found.weights.resolve().parent == folder.resolve()
    if (taken and not ours) or same:
        raise ArtifactError(
            f"{folder}: expected an empty folder, or a Hub folder of normattn to replace, got one "
            f"with {', '.join(taken)}. Nothing was written; choose another folder."
        )


def _check_name(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        if str(repo_id).count("/") != 1:
            raise HFValidationError("there is no user in it")
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ConfigError(_no_name(repo_id, str(error))) from error


def _no_name(repo_id: str, reason: str) -> str:
    return (
        f"push: expected a repository as user/name, got {repo_id!r:.100} ({reason}). "
        "Use letters, digits, '-', '_' and '.'."
    )
