"""Fuzz test of the scoring script: every response follows the schema, and memory does not leak."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest

from cifarml.scoring import score
from tests.goldens import colour_run, requests
from tests.mutations import check, mutated_request, sample_images

NUM_REQUESTS = 20_000
MAX_GROWTH_BYTES = 16 << 20


def test_mutated_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(score.MODEL_DIR, str(colour_run(tmp_path / "cifar10" / "3").path))
    score.init()
    rng = np.random.default_rng(4)
    small = [request for request in requests().values() if len(request[1]) < 20_000]
    seeds = small + [("image/png", data) for data in sample_images().values()]
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
