"""Normalization-based attention for vision models: attend, sparsify, slim, ship."""

import lazy_loader

# The public API is the list in __init__.pyi; each name is imported when it is first used, so that
# `normattn --help` does not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
