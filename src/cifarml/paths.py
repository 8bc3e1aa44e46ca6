"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Return a path with a leading ``~`` or ``~user`` expanded, as a shell does.

    Example:
        >>> expand_home("~/photos") == Path.home() / "photos"
        True
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - keeps ~name if there is no such user
