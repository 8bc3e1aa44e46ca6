"""What can go wrong with one request, and the request itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.emulators import fault_proxy as faults
from tests.emulators.fault_proxy import LoseReply

__all__ = ["Drop", "Fault", "Kill", "LoseReply", "Plan", "Refuse", "Request", "no_fault"]


@dataclass
class Request(faults.Request):
    """A request to any of the hosts; ``body`` is its JSON, if it has any."""

    host: str = ""
    body: Any = None


@dataclass(frozen=True)
class Refuse:
    """Answer with an error; nothing takes effect."""

    status: int
    code: str
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class Drop:
    """Reset the connection before the request takes effect."""


@dataclass(frozen=True)
class Kill:
    """End a process at once, before or after the request takes effect; there is no reply."""

    pid: int
    before: bool


Fault = Refuse | Drop | LoseReply | Kill
Plan = Callable[[Request], Fault | None]


def no_fault(_: Request) -> Fault | None:
    return None
