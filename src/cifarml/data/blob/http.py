"""One request for one object, and lists of them: what thousands of images are read and written with.

The SDK spends 2 ms of a core on each request, as much as five of these (docs/benchmarks.md), so that many
small images would not come faster for being asked for at the same time.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self
from urllib.parse import quote, urlencode, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Retry

from cifarml.data.blob.client import LONGEST_WAIT_S, RETRIES, Access, OnWait
from cifarml.data.blob.errors import response_error, translate_errors
from cifarml.data.blob.info import BlobInfo
from cifarml.data.blob.listing import parse_listing
from cifarml.errors import CloudError

__all__ = ["CONNECTIONS", "ChangedError", "TellingRetry", "Wire"]

CONNECTIONS: Final = 8
"""Transfers at a time."""

_VERSION: Final = "2021-12-02"
"""Of the service's protocol; what Put Blob and Get Blob need has been there for longer."""

_SIGNATURE: Final = re.compile(r"sig=[^&\s\"']+")
_TRIES_DAMAGED: Final = 3
_RETRIED: Final = (408, 429, 500, 502, 503, 504)


class ChangedError(Exception):
    """The object is not, or no longer, what it was expected to be."""


class TellingRetry(Retry):
    """urllib3's retries, which say that they wait."""

    def __init__(self, *arguments: Any, on_wait: OnWait, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._on_wait = on_wait

    def new(self, **options: Any) -> Self:
        """Return the retries that are left."""
        return super().new(on_wait=self._on_wait, **options)

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Wait, and say so."""
        wanted = self.get_retry_after(response) if response else None
        reason = f"the service answers {response.status}" if response else "the connection broke"
        self._on_wait(wanted or self.get_backoff_time(), reason)
        super().sleep(response)


class Wire:
    """Connections to one container.

    Args:
        access: The container and how we sign in.
        on_wait: Told when a request waits to be tried again.
        timeout_s: How long to wait for the next bytes of an answer.
        retry_wait_s: How long to wait before the second try, doubled for each further one.
    """

    def __init__(self, access: Access, *, on_wait: OnWait, timeout_s: float, retry_wait_s: float) -> None:
        self._access = access
        self._retries = TellingRetry(
            on_wait=on_wait,
            total=RETRIES,
            connect=2,
            backoff_factor=retry_wait_s,
            backoff_max=LONGEST_WAIT_S,
            retry_after_max=LONGEST_WAIT_S,
            status_forcelist=_RETRIED,
            allowed_methods=None,
            redirect=False,
            raise_on_status=False,
        )
        _keep_secrets_out_of_the_log()
        self._timeout_s = timeout_s
        self._adapter = _PromptAdapter(pool_maxsize=CONNECTIONS, pool_block=True)
        # requests knows the environment's proxies and certificates, as the SDK that is built on it does.
        session = requests.Session()
        found = session.merge_environment_settings(access.url, {}, False, None, None)
        request = requests.Request("GET", access.url).prepare()
        self._pool: Any = self._adapter.get_connection_with_tls_context(request, **_pool_settings(found))
        self._path = urlsplit(access.url).path
        self._origin = access.url.removesuffix(self._path)

    def get(self, name: str, *, etag: str, start: int, size_bytes: int, checked: bool = False) -> bytes:
        """Read a part of an object.

        Args:
            name: Its name.
            etag: What it must still have.
            start: The first byte.
            size_bytes: How many, 1 to 4 MiB.
            checked: Let the service add an MD5 of the part, for objects that carry no hash of their own.

        Raises:
            ChangedError: If it has another etag now, or has gone.
            CloudError: If the service refuses, or can't be reached.
        """
        headers = {"If-Match": etag, "x-ms-range": f"bytes={start}-{start + size_bytes - 1}"}
        if checked:
            headers["x-ms-range-get-content-md5"] = "true"
        what = f"read {name}"
        for _ in range(_TRIES_DAMAGED):
            response = self._send("GET", name, what, headers)
            if response.status in {404, 412, 416}:
                if _code(response) != "ContainerNotFound":
                    raise ChangedError(name)
            elif response.status in {200, 206}:
                content = response.data
                md5 = response.headers.get("Content-MD5")
                if len(content) == size_bytes and (not checked or not md5 or md5 == _md5(content)):
                    return content
                continue
            raise self._refused(what, response)
        raise CloudError(f"can't {what}: the bytes were damaged on the way", "try again")

    def list_blobs(self, prefix: str, *, page_blobs: int = 5000) -> Iterator[BlobInfo]:
        """List the blobs whose names begin with ``prefix``, in the order of the service.

        Args:
            prefix: Empty for all.
            page_blobs: How many to ask for at a time, at most 5000.

        Raises:
            CloudError: If the service refuses, or can't be reached.
        """
        what = f"list {self._access.url}/{prefix}"
        marker, damaged = "", 0
        while True:
            asked = {"restype": "container", "comp": "list", "include": "metadata", "maxresults": page_blobs}
            asked |= {name: text for name, text in (("prefix", prefix), ("marker", marker)) if text}
            response = self._send("GET", "", what, {}, query=urlencode(asked, quote_via=quote))
            if response.status != requests.codes.ok:
                raise self._refused(what, response)
            try:
                blobs, marker = parse_listing(response.data)
            except ValueError as error:
                if (damaged := damaged + 1) == _TRIES_DAMAGED:
                    raise CloudError(f"can't {what}: {error}", "try again") from error
                continue
            yield from blobs
            if not marker:
                return

    def put(self, name: str, content: bytes, *, etag: str | None, headers: Mapping[str, str]) -> None:
        """Write a small object.

        Args:
            name: Its name.
            content: At most 4 MiB.
            etag: What the object there must have; None where none may be there.
            headers: Content type and metadata.

        Raises:
            ChangedError: If another object is there.
            CloudError: If the service refuses, or can't be reached.
        """
        condition = {"If-Match": etag} if etag else {"If-None-Match": "*"}
        headers = {"x-ms-blob-type": "BlockBlob", "Content-MD5": _md5(content), **condition, **headers}
        response = self._send("PUT", name, f"write {name}", headers, content)
        if response.status in {409, 412} and _code(response) in {"BlobAlreadyExists", "ConditionNotMet"}:
            raise ChangedError(name)
        if response.status != requests.codes.created:
            raise self._refused(f"write {name}", response)

    def _send(
        self,
        method: str,
        name: str,
        what: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        query: str = "",
    ) -> BaseHTTPResponse:
        with translate_errors(self._access, what):
            path = self._path + (f"/{quote(name)}" if name else "")
            headers = {"x-ms-version": _VERSION, **headers}
            if body is not None:
                headers["Content-Length"] = str(len(body))
            asked = f"{path}?{query}" if query else path
            signature, signed = self._access.authorize(method, self._origin + asked, headers)
            if signature:
                asked += ("&" if query else "?") + signature
            response: BaseHTTPResponse = self._pool.urlopen(
                method,
                asked,
                body=body,
                headers=headers | signed,
                retries=self._retries,
                redirect=False,
                timeout=self._timeout_s,
                decode_content=False,
            )
        return response

    def _refused(self, what: str, response: BaseHTTPResponse) -> CloudError:
        detail = response.data[:10_000].decode("utf-8", "replace")
        return response_error(self._access, what, response.status, response.headers, detail)

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()


class _PromptAdapter(HTTPAdapter):
    """Sends at once through a proxy as well, where urllib3 would let each small write wait 40 ms."""

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the manager of a proxy's connections."""
        prompt = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        return super().proxy_manager_for(proxy, socket_options=prompt, **options)


class _WithoutSecrets(logging.Filter):
    """Masks signatures in the addresses that urllib3 logs, and drops what TellingRetry has told already."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.args and isinstance(record.args, tuple) and isinstance(record.args[0], TellingRetry):
            return False
        message = record.getMessage()
        if "sig=" in message:
            record.msg, record.args = _SIGNATURE.sub("sig=***", message), ()
        return True


def _keep_secrets_out_of_the_log() -> None:
    logger = logging.getLogger("urllib3.connectionpool")
    if not any(isinstance(found, _WithoutSecrets) for found in logger.filters):
        logger.addFilter(_WithoutSecrets())


def _pool_settings(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"verify": found["verify"], "proxies": found["proxies"], "cert": found["cert"]}


def _code(response: BaseHTTPResponse) -> str:
    return str(response.headers.get("x-ms-error-code", ""))


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
