"""Pipe protocol between server and worker: frames of (head, body) pairs.

A frame is its length, followed by the pairs. Each pair is a head (content type or status) and a body.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

Pair = tuple[bytes, bytes]

LENGTH: Final = struct.Struct("<Q")
"""Header of a frame: size of the pairs in bytes."""

_SIZES: Final = struct.Struct("<II")


def pack(pairs: Sequence[Pair]) -> bytes:
    """Return a frame with its header."""
    parts = [b""]
    for head, body in pairs:
        parts += (_SIZES.pack(len(head), len(body)), head, body)
    parts[0] = LENGTH.pack(sum(map(len, parts)))
    return b"".join(parts)


def unpack(frame: bytes) -> list[Pair]:
    """Return the pairs of a frame, given without its header.

    Raises:
        ValueError: If the frame is truncated.
    """
    pairs = []
    at = 0
    while at < len(frame):
        if at + _SIZES.size > len(frame):
            raise ValueError("the frame is truncated")
        head_bytes, body_bytes = _SIZES.unpack_from(frame, at)
        middle = at + _SIZES.size + head_bytes
        at = middle + body_bytes
        if at > len(frame):
            raise ValueError("the frame is truncated")
        pairs.append((frame[middle - head_bytes : middle], frame[middle:at]))
    return pairs
