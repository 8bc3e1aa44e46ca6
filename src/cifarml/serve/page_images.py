"""Images for the page, rendered in a separate process, so that a malicious file cannot crash the server.

The module has the interface of a scoring script (``init``, ``answer``). A request of type ``sample`` returns
a drawing of the class named in its body; any other returns its image as the network sees it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from cifarml.cifar10 import CLASS_NAMES
from cifarml.data.drawn.drawings import MIN_DRAWN, draw_dataset
from cifarml.errors import ImageError
from cifarml.images import decode_image
from cifarml.scoring.request import CODES

_SEED: Final = 8
_samples: dict[str, bytes] = {}


def init() -> None:
    """Draw the sample images."""
    drawn = draw_dataset(MIN_DRAWN, seed=_SEED)
    for name, image in zip(CLASS_NAMES, drawn.images, strict=False):
        _samples[name] = _png(image)


def answer(requests: Sequence[tuple[str, bytes]]) -> list[tuple[int, bytes]]:
    """Return status and body for each request: a PNG file of 32x32 pixels, or an error as JSON."""
    return [_answer(kind, body) for kind, body in requests]


def _answer(kind: str, body: bytes) -> tuple[int, bytes]:
    if kind == "sample":
        sample = _samples.get(body.decode("utf-8", "replace"))
        return (200, sample) if sample else _error(404, "not_found", "there is no sample image of that class")
    try:
        return 200, _png(decode_image(body))
    except ImageError as error:
        return _error(CODES[error.code][0], error.code, error.message)


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _error(status: int, code: str, message: str) -> tuple[int, bytes]:
    return status, json.dumps({"error": {"code": code, "message": message}}).encode()
