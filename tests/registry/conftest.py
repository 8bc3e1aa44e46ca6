"""Fixtures of the registry tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from cifarml.registry.local.registry import LocalRegistry


@pytest.fixture
def local_registry(own_cache: Path) -> LocalRegistry:
    """Empty local registry."""
    return LocalRegistry()
