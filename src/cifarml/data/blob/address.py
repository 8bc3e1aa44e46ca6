"""Addresses of images in Azure Blob Storage."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import SecretStr

from cifarml.errors import DataError

_CONTAINER: Final = re.compile(r"\$root|\$web|\$logs|(?=.{3,63}$)[a-z0-9]+(?:-[a-z0-9]+)*")
_BLOB_HOST: Final = re.compile(
    r"[a-z0-9-]{3,30}(?:\.z\d+)?\.blob\.(?:core\.windows\.net|core\.chinacloudapi\.cn"
    r"|core\.usgovcloudapi\.net|storage\.azure\.net)"
)
_LOCAL_HOSTS: Final = ("127.0.0.1", "localhost")
_HINT: Final = "write az://CONTAINER/NAME or https://ACCOUNT.blob.core.windows.net/CONTAINER/NAME"


def is_blob_address(source: object) -> bool:
    """Return whether a source is an address of blobs or a URL rather than a local path."""
    return isinstance(source, str) and re.match(r"(?:az|https?)://", source, re.IGNORECASE) is not None


def is_blob_host(host: str) -> bool:
    """Return whether a host belongs to Azure Storage, or is this machine (an emulator)."""
    return host in _LOCAL_HOSTS or _BLOB_HOST.fullmatch(host) is not None


@dataclass(frozen=True)
class BlobAddress:
    """Address of a blob, or of all blobs under a prefix.

    Args:
        container: Name of the container.
        name: Name of a blob, or prefix of several names; empty for the whole container.
        account_url: ``https://ACCOUNT.blob.core.windows.net``; None for the account of the settings.
        sas: Shared access signature from the address's query string; never shown.

    Example:
        >>> str(BlobAddress.parse("az://2000picscifar10/2000pics_cifar10.zip"))
        'az://2000picscifar10/2000pics_cifar10.zip'
    """

    container: str
    name: str = ""
    account_url: str | None = None
    sas: SecretStr | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not _CONTAINER.fullmatch(self.container):
            raise DataError(
                f"a container name must have 3 to 63 lower-case letters, digits and single hyphens. "
                f"Received: {self.container[:80]!r}",
                _HINT,
            )
        if len(self.name) > 1024 or not self.name.isprintable():
            raise DataError(
                f"a blob name must have at most 1,024 printable characters. Received: {self.name[:80]!r}"
            )

    @classmethod
    def parse(cls, text: str) -> BlobAddress:
        """Parse an address: ``az://CONTAINER/NAME``, or an https URL of a blob, with or without SAS.

        Raises:
            DataError: If it is invalid, or not an address of Azure Blob Storage.
        """
        if text[:5].lower() == "az://":
            container, _, name = text[5:].partition("/")
            if re.search(r"[?&]sig=", text):
                raise DataError("an az:// address cannot contain a SAS token", "set AZURE_STORAGE_SAS_TOKEN")
            return cls(container, name.lstrip("/"))
        shown = text.partition("?")[0][:200]  # the query string may be a secret
        try:
            url = urlsplit(text)
            host, port = (url.hostname or "").lower(), url.port
        except ValueError as error:
            raise DataError(f"not a valid address: {shown!r}", _HINT) from error
        local = host in _LOCAL_HOSTS
        if url.username or url.password is not None:
            raise DataError("an address cannot contain a user name or password", _HINT)
        if not (local or _BLOB_HOST.fullmatch(host)) or not (local or url.scheme.lower() == "https"):
            raise DataError(f"not an https URL of Azure Blob Storage: {shown!r}", _HINT)
        parts = [unquote(part) for part in url.path.lstrip("/").split("/")]
        account_url = f"{url.scheme.lower()}://{host}" + (f":{port}" if port else "")
        if local:  # Azurite's form: the account is the first part of the path
            account_url += f"/{parts.pop(0)}"
        sas = None
        if url.query:
            if "sig" not in parse_qs(url.query):
                raise DataError(f"the query string of {shown!r} is not a SAS token", "remove it")
            sas = SecretStr(url.query)
        return cls(parts[0] if parts else "", "/".join(parts[1:]), account_url, sas)

    def __str__(self) -> str:
        if self.account_url is None:
            return f"az://{self.container}/{self.name}"
        return f"{self.account_url}/{self.container}/{quote(self.name)}"

    def at(self, name: str) -> BlobAddress:
        """Return the address of another blob in the same container."""
        return replace(self, name=name)
