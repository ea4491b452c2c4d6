"""The version that the compiled library must have been built for: the package's."""

from importlib import metadata

VERSION = metadata.version("normattn")
