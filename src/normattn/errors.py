"""What can go wrong, by area, and how it is said.

::

    InputError(ValueError)     the user's input; the command line exits with 2
    ├── ConfigError            a setting, a recipe, an option
    ├── UnsupportedModel       a model that we cannot graft, count or slim, with the site
    ├── DataError              a data set or one of its files
    ├── ArtifactError          a file that is not, or no longer, a model of ours
    └── RunError               a run folder in use, unwritable, or of another protocol
    Fault(RuntimeError)        ours, the machine's or the numbers'; the command line exits with 1

Every message has one form: ``<Who>: expected <rule>, got <value>[ at <site>]. <What to do.>``
"""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The caller asked for something that cannot be done as asked."""


class ConfigError(InputError):
    """A setting is unknown, of the wrong type, or out of range."""


class UnsupportedModel(InputError):
    """A model's structure does not allow what was asked; names the site and the layer."""


class DataError(InputError):
    """A data set is missing, empty, damaged or inconsistent."""


class ArtifactError(InputError):
    """A file is not a model of ours, or is damaged, or comes from a later version."""


class RunError(InputError):
    """A run folder is in use, cannot be written, or belongs to another protocol."""


class Fault(RuntimeError):
    """Something broke that the caller's input does not explain."""


def unknown(who: str, noun: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name: the nearest known ones first, then all of them."""
    choices = list(known)
    nearest = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in nearest)}?" if nearest else ""
    listed = ", ".join(choices) if len(choices) <= 30 else f"{len(choices)} names"
    return f"{who}: expected a known {noun}, got {name!r}.{hint} Known: {listed}."
