"""How the server and a worker talk over a pipe: frames of pairs of bytes.

A frame is its length, then the pairs: what it is about (a content type, a status), and a body.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

__all__ = ["LENGTH", "Pair", "pack", "unpack"]

Pair = tuple[bytes, bytes]

LENGTH: Final = struct.Struct("<Q")
"""Comes first: how many bytes the pairs take."""

_SIZES: Final = struct.Struct("<II")


def pack(pairs: Sequence[Pair]) -> bytes:
    """Return a frame, its length first."""
    parts = [b""]
    for head, body in pairs:
        parts += (_SIZES.pack(len(head), len(body)), head, body)
    parts[0] = LENGTH.pack(sum(map(len, parts)))
    return b"".join(parts)


def unpack(frame: bytes) -> list[Pair]:
    """Return the pairs of a frame, given without its length.

    Raises:
        ValueError: If it is cut off.
    """
    pairs = []
    at = 0
    while at < len(frame):
        if at + _SIZES.size > len(frame):
            raise ValueError("a frame is cut off")
        head_bytes, body_bytes = _SIZES.unpack_from(frame, at)
        middle = at + _SIZES.size + head_bytes
        at = middle + body_bytes
        if at > len(frame):
            raise ValueError("a frame is cut off")
        pairs.append((frame[middle - head_bytes : middle], frame[middle:at]))
    return pairs
