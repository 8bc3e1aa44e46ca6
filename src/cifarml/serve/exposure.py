"""Address of an endpoint, and the hosts, origins and proxies that it accepts."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Final, Self

from pydantic import TypeAdapter

from cifarml.network_checks import LOOPBACK, is_loopback
from cifarml.settings import Settings

_LOCAL_HOSTS: Final = (LOOPBACK, "localhost")
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?")


@dataclass(frozen=True)
class Exposure:
    """Network access to an endpoint; by default from this machine only.

    Args:
        host: IP address to listen on, in addition to 127.0.0.1.
        root_path: Path prefix under which a reverse proxy serves the endpoint, such as ``/cifar10``.
        allowed_hosts: Names that the Host header may have, in addition to those of this machine.
        allowed_origins: Origins of web pages that may send requests.
        trusted_proxies: Networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.
    """

    host: str = LOOPBACK
    root_path: str = ""
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the exposure that the settings describe."""
        return cls(**{name: getattr(settings, f"serve_{name}") for name in cls.__dataclass_fields__})

    def to_json(self) -> str:
        """Return the fields as JSON, for :data:`EXPOSURE` to read."""
        return json.dumps(asdict(self))

    @property
    def is_local(self) -> bool:
        """True if only this machine can connect."""
        return is_loopback(self.host)

    @property
    def warning(self) -> str:
        """Warning for the user if other machines can connect, or an empty string."""
        if self.is_local:
            return ""
        return (
            f"Warning: listening on {self.host} with plain HTTP, which shows the key and all images to the "
            "network. Let a proxy add TLS, or listen on 127.0.0.1 and use ssh -L: docs/guides/expose.md"
        )

    @property
    def host_names(self) -> tuple[str, ...]:
        """Names that the Host header may have."""
        return (*_LOCAL_HOSTS, *self.allowed_hosts)

    def allows_host(self, host: str, own_address: str) -> bool:
        """Return whether a Host header names the endpoint; its own IP address can't be rebound by DNS."""
        found = _HOST.fullmatch(host)
        return found is not None and found[1].strip("[]") in {
            *(name.strip("[]") for name in self.host_names),
            own_address.removeprefix("::ffff:"),
        }

    def allows_origin(self, origin: str, scheme: str, host: str) -> bool:
        """Return whether a web page may send requests: one of the endpoint, or of an allowed origin.

        An allowed host is served by a proxy, so that its pages may have either scheme.
        """
        found = _HOST.fullmatch(host)
        schemes = {"http", "https"} if found and found[1] in self.allowed_hosts else {scheme}
        return origin in self.allowed_origins or origin in {f"{each}://{host}" for each in schemes}

    def strip_root(self, path: str) -> str:
        """Return the path without the prefix, whether or not the proxy has removed it."""
        return path.removeprefix(self.root_path) if path.startswith(f"{self.root_path}/") else path


EXPOSURE: Final = TypeAdapter(Exposure)
"""Validates an exposure."""
