"""Tests of compressed request bodies and of multipart forms beyond the goldens."""

from __future__ import annotations

import gzip
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from cifarml.errors import RequestError
from cifarml.scoring.request import CODES, MAX_BODY_BYTES, inflate, read_request
from tests.goldens import BOUNDARY, encoded_bodies, form, plain, requests
from tests.mutations import mutated

MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
SPLINTERS = (
    b"filename*0*=",
    b"filename*1=x;",
    b"; filename*=a'b'c'd",
    b'"',
    b"\\",
    b"\r\n ",
    b"\x00",
    b"\xff",
)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " x-gzip "])
def test_inflate_gzip(encoding: str) -> None:
    largest = bytes(MAX_BODY_BYTES)
    assert inflate(encoding, gzip.compress(plain("ship"))) == plain("ship")
    assert inflate(encoding, gzip.compress(largest)) == largest


@pytest.mark.parametrize("encoding", ["", "identity"])
def test_body_without_encoding_is_unchanged(encoding: str) -> None:
    assert inflate(encoding, b"x") == b"x"


@pytest.mark.parametrize("name", encoded_bodies())
def test_invalid_encoding_is_rejected(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        inflate(*encoded_bodies()[name])
    assert name.startswith(f"{caught.value.code}:")
    assert "geheim" not in caught.value.message


def test_decompression_bomb_is_not_inflated() -> None:
    bomb = encoded_bodies()["too_large: decompression bomb"]
    tracemalloc.start()
    with pytest.raises(RequestError, match="decompressed"):
        inflate(*bomb)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 3 * MAX_BODY_BYTES


def test_form_keeps_every_byte() -> None:
    content = bytes(range(256)) * 4 + b"\r\n--" + BOUNDARY[:-1].encode() + b"\n\r\n--\r"
    body = form(('; name="image"; filename="x \\"y\\"; z.png"', content))
    assert read_request(MULTIPART, body).images == [content]


def test_mutated_forms_raise_no_other_error() -> None:
    rng = np.random.default_rng(5)
    seeds = [
        request for request in requests().values() if "multipart" in request[0] and len(request[1]) < 3000
    ]
    seen: Counter[str] = Counter()
    for _ in range(4000):
        kind, body = seeds[int(rng.integers(len(seeds)))]
        at = body.find(b"form-data") + 9
        match int(rng.integers(4)):
            case 0:
                body = mutated(rng, body)
            case 1:
                body = body[:at] + b";" + SPLINTERS[int(rng.integers(len(SPLINTERS)))] + body[at:]
            case 2:
                kind = mutated(rng, kind.encode()).decode("latin-1")
        try:
            read_request(kind, body)
            seen["ok"] += 1
        except RequestError as error:
            seen[error.code] += 1
    assert seen.keys() <= {"ok", *CODES}
    assert min(seen["ok"], seen["wrong_form"]) > 100, seen
