"""Requests to the Azure ML emulator, and faults to inject into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.emulators import fault_proxy as faults
from tests.emulators.fault_proxy import LoseReply

__all__ = ["Drop", "Fault", "Kill", "LoseReply", "Plan", "Refuse", "Request", "no_fault"]


@dataclass
class Request(faults.Request):
    """Request to one of the hosts; ``body`` is its JSON content, if any."""

    host: str = ""
    body: Any = None


@dataclass(frozen=True)
class Refuse:
    """Respond with an error; the request has no effect."""

    status: int
    code: str
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class Drop:
    """Reset the connection before the request takes effect."""


@dataclass(frozen=True)
class Kill:
    """Kill a process before or after the request takes effect; no response is sent."""

    pid: int
    before: bool


Fault = Refuse | Drop | LoseReply | Kill
Plan = Callable[[Request], Fault | None]


def no_fault(_: Request) -> Fault | None:
    return None
