"""Checks of the network settings: addresses, host names, origins and URL paths."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from cifarml.config_files import redact

LOOPBACK: Final = "127.0.0.1"
"""Address on which an endpoint always listens."""

_HOST_NAME: Final = re.compile(r"(?!.*\.\.)[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9])?")
_ROOT_PATH: Final = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def split_list(value: object) -> object:
    """Split a text of comma-separated entries, as environment variables have, into a list."""
    return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value


def check_address(text: str) -> str:
    """Return an address to listen on."""
    if text == "localhost":
        return LOOPBACK
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(
            f"must be an IP address of this machine, or 0.0.0.0 for all. Received: {redact(text)}"
        ) from None


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach an IP address."""
    return ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback


def check_root_path(text: str) -> str:
    """Return a path prefix as ``/a/b``, or an empty string for none."""
    path = f"/{text.strip('/')}".rstrip("/")
    if not _ROOT_PATH.fullmatch(path):
        raise ValueError(f"must be a path such as /cifar10, not a URL. Received: {redact(text)}")
    return path


def check_host_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return host names in lower case; each is a name or an IP address, without port."""
    return tuple(_check_host_name(name) for name in names)


def _check_host_name(name: str) -> str:
    lower = name.lower()
    try:
        address = ipaddress.ip_address(lower.removeprefix("[").removesuffix("]"))
    except ValueError:
        if _HOST_NAME.fullmatch(lower):
            return lower
        raise ValueError(
            "must be host names such as models.example.com, without scheme, port or wildcard. "
            f"Received: {redact(name)}"
        ) from None
    return f"[{address}]" if address.version == 6 else str(address)


def check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    """Return origins as browsers send them: scheme, host and a port that is not the default."""
    return tuple(_check_origin(origin) for origin in origins)


def _check_origin(text: str) -> str:
    try:
        origin = text.lower().removesuffix("/")
        url = urlsplit(origin)
        if url.scheme in _DEFAULT_PORTS and origin == f"{url.scheme}://{url.netloc}":
            name = _check_host_name(url.netloc.removesuffix(f":{url.port}"))
            port = "" if url.port in {None, _DEFAULT_PORTS[url.scheme]} else f":{url.port}"
            return f"{url.scheme}://{name}{port}"
    except ValueError:
        pass
    raise ValueError(f"must be origins such as https://app.example.com. Received: {redact(text)}")


def check_networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    """Return IP addresses and networks in their canonical form."""
    try:
        return tuple(str(ipaddress.ip_network(each, strict=False)) for each in networks)
    except ValueError:
        raise ValueError(
            "must be IP addresses or networks such as 127.0.0.1 or 10.0.0.0/8. "
            f"Received: {redact(', '.join(networks))}"
        ) from None


def check_key(key: SecretStr) -> SecretStr:
    """Return a key that is long enough and can be sent in a header."""
    if not re.fullmatch(r"[!-~]{20,200}", key.get_secret_value()):
        raise ValueError("must have 20 to 200 ASCII characters without spaces")
    return key
