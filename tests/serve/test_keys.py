"""Tests of the key check and its explanations."""

from __future__ import annotations

import pytest

from cifarml.serve.keys import find_fault

KEY = "k3y-" * 6


@pytest.mark.parametrize("value", [f"Bearer {KEY}", f"bearer  {KEY} "])
def test_right_key(value: str) -> None:
    assert find_fault({b"authorization": value.encode()}, b"", KEY) is None


@pytest.mark.parametrize(
    ("header", "value", "query", "fault"),
    [
        ("accept", "*/*", "", "the request has no key"),
        ("accept", "*/*", f"key={KEY}", "a key in the URL is not accepted"),
        ("accept", "*/*", f"a=b&code={KEY}", "a key in the URL is not accepted"),
        ("accept", "*/*", "monkey=1", "the request has no key"),
        ("api-key", KEY, "", "in the header Authorization, not in api-key"),
        ("x-api-key", KEY, "", "in the header Authorization, not in x-api-key"),
        ("authorization", KEY, "", "does not start with Bearer"),
        ("authorization", f"Bearer{KEY}", "", "does not start with Bearer"),
        ("authorization", f"Basic {KEY}", "", "the scheme basic instead of Bearer"),
        ("authorization", f"api-key: {KEY}", "", "the scheme api-key instead of Bearer"),
        ("authorization", "Bearer ", "", "is empty"),
        ("authorization", "Bearer $KEY", "", "is a placeholder"),
        ("authorization", "Bearer <key>", "", "is a placeholder"),
        ("authorization", "Bearer YOUR_KEY", "", "is a placeholder"),
        ("authorization", f'Bearer "{KEY}"', "", "has quotes around it"),
        ("authorization", f"Bearer {KEY[:-1]}", "", "invalid key"),
        ("authorization", f"Bearer {KEY} {KEY}", "", "invalid key"),
        ("authorization", "Bearer ü", "", "invalid key"),
    ],
)
def test_faults(header: str, value: str, query: str, fault: str) -> None:
    message = find_fault({header.encode(): value.encode()}, query.encode(), KEY)
    assert message is not None
    assert fault in message
    assert message.endswith("; send the header Authorization: Bearer KEY")
    assert KEY[:-1] not in message
