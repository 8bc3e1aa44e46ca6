"""An empty registry on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from cifarml.registry.local.registry import LocalRegistry


@pytest.fixture
def local_registry(own_cache: Path) -> LocalRegistry:
    return LocalRegistry()
