"""Thousands of mutated requests: each gets an answer of the contract, and no memory stays behind."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest

from cifarml.scoring import score
from cifarml.scoring.api_schema import ErrorAnswer, ImageAnswer, ImagesAnswer
from tests.data.test_fuzz import mutated, sample_images, with_right_checksums
from tests.goldens import JSON, asked, colour_run, encoded, requests

NUM_REQUESTS = 20_000
MAX_GROWTH_BYTES = 16 << 20

SPLINTERS = (
    *(b"null", b"NaN", b"1e999", b"-0", b"{}", b"[]", b'"', b"\\", b"\\u0000", b"\\ud800", b"\x00", b"\xff"),
    *(
        b"[" * 3000,
        b'{"a":' * 2000,
        b"9" * 5000,
        b"=" * 9,
        b"data:image/png;base64,",
        b"imagebase64",
        b"images",
    ),
)
"""What JSON and base64 may stumble over."""

KINDS = (
    JSON,
    JSON,
    JSON,
    "",
    "image/png",
    "image/webp",
    "application/json;charset=\xff",
    "text/plain",
    "\x00",
)


def splintered(rng: np.random.Generator, body: bytes) -> bytes:
    for _ in range(int(rng.integers(1, 4))):
        at, end = sorted(int(rng.integers(0, len(body) + 1)) for _ in range(2))
        splinter = SPLINTERS[int(rng.integers(0, len(SPLINTERS)))]
        body = body[:at] + splinter + (body[at:] if rng.random() < 0.7 else body[end:])
    return body


def mutated_request(rng: np.random.Generator, seeds: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """A golden request or an image, damaged in its JSON, its base64 or the image itself."""
    kind, body = seeds[int(rng.integers(0, len(seeds)))]
    match int(rng.integers(0, 5)):
        case 0:
            body = splintered(rng, body)
        case 1:
            kind = KINDS[int(rng.integers(0, len(KINDS)))]
        case 2 if kind.startswith("image/"):
            body = with_right_checksums(mutated(rng, body))
        case 3 if kind.startswith("image/"):
            kind, body = (
                JSON,
                asked(images=[encoded(mutated(rng, body)) for _ in range(int(rng.integers(1, 4)))]),
            )
        case _ if body:
            body = mutated(rng, body)
    return kind, body


def check(status: int, content: bytes) -> str:
    """Hold an answer against the contract and return what it was."""
    values = json.loads(content)
    if status == 200:
        (ImagesAnswer if "predictions" in values else ImageAnswer).model_validate(values)
        return "a list" if "predictions" in values else "an image"
    assert 400 <= status < 500
    return ErrorAnswer.model_validate(values).error.code


def test_mutated_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(score.MODEL_DIR, str(colour_run(tmp_path / "cifar10" / "3").path))
    score.init()
    rng = np.random.default_rng(4)
    small = [request for request in requests().values() if len(request[1]) < 20_000]
    images = [(f"image/{name[:3].lower()}", data) for name, data in sample_images().items()]
    seeds = small + [(kind.replace("jpe", "jpeg").replace("web", "webp"), data) for kind, data in images]
    process = psutil.Process()
    seen: Counter[str] = Counter()
    done, before_bytes = 0, 0
    while done < NUM_REQUESTS:
        batch = [mutated_request(rng, seeds) for _ in range(int(rng.integers(1, 33)))]
        seen.update(check(*answer) for answer in score.answer(batch))
        done += len(batch)
        if not before_bytes and done > NUM_REQUESTS // 4:
            before_bytes = process.memory_info().rss
    assert process.memory_info().rss - before_bytes < MAX_GROWTH_BYTES
    assert {"an image", "a list", "not_json", "wrong_fields", "not_base64", "not_an_image"} <= set(seen)
    assert {"damaged_image", "empty_body", "wrong_content_type"} <= set(seen)
    assert min(seen["an image"], seen["a list"], seen["damaged_image"]) > NUM_REQUESTS // 100, seen
