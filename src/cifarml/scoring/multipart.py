"""Strict reader of ``multipart/form-data`` bodies (RFC 7578) that contain one image file."""

from __future__ import annotations

import re
from typing import Final

from cifarml.errors import RequestError

FORM: Final = "multipart/form-data"

_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER: Final = r'[ \t]*;[ \t]*([\w!#$%&\'*+.^`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s";]*))'
_PARAMETERS: Final = re.compile(rf"[\w/-]+(?:{_PARAMETER})*[ \t]*;?[ \t]*", re.ASCII)
"""A value with parameters, such as ``form-data; name="image"; filename="ship.png"``."""

_HEADER: Final = re.compile(r"\r\n([\w-]+):[ \t]*([^\r\n]*)", re.ASCII)
_MAX_FIELDS: Final = 100
_MAX_HEADER_BYTES: Final = 8 << 10
_EXAMPLE: Final = "send one file, as curl does with -F image=@ship.png"


def read_file(content_type: str, body: bytes) -> bytes:
    """Return the content of the only file of a form; the field may have any name, other fields are ignored.

    Args:
        content_type: Value of the Content-Type header.
        body: The body, not empty.

    Raises:
        RequestError: If the form is malformed, or does not contain exactly one file.
    """
    files = [content for is_file, content in map(_read_field, _split(content_type, body)) if is_file]
    if not files:
        raise _wrong_form(f"the form has no file; {_EXAMPLE}")
    if len(files) > 1:
        raise _wrong_form(
            f'the form has {len(files)} files; send one at a time, or a list as JSON: {{"images": [...]}}'
        )
    if not files[0]:
        raise RequestError("empty_body", f"the file in the form is empty; {_EXAMPLE}")
    return files[0]


def _split(content_type: str, body: bytes) -> list[bytes]:
    """Split a body into its fields, each with its headers."""
    boundary = (_read_parameters(content_type) or {}).get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise _wrong_form(
            "the Content-Type of the form has no valid boundary; let the client set this header itself"
        )
    start, *fields = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("ascii"), _MAX_FIELDS + 2)
    if len(fields) > _MAX_FIELDS + 1:
        raise _wrong_form(f"the form has more than {_MAX_FIELDS} fields; {_EXAMPLE}")
    if start or not fields or fields.pop() not in {b"--", b"--\r\n"}:
        raise _wrong_form("the form is incomplete, or does not match the boundary in its Content-Type")
    return fields


def _read_field(field: bytes) -> tuple[bool, bytes]:
    """Return whether a field is a file, and its content."""
    lines, separator, content = field.partition(b"\r\n\r\n")
    if not separator or not lines.startswith(b"\r\n") or len(lines) > _MAX_HEADER_BYTES:
        raise _wrong_form("a field of the form has malformed headers")
    headers = dict(_HEADER.findall(lines.decode("latin-1").lower()))
    about = _read_parameters(headers.get("content-disposition", ""))
    if about is None or not headers["content-disposition"].startswith("form-data;"):
        raise _wrong_form(
            'a field of the form has no valid header Content-Disposition: form-data; name="..."'
        )
    if headers.get("content-transfer-encoding", "binary") not in {"binary", "8bit", "7bit"}:
        raise _wrong_form("the file in the form has a Content-Transfer-Encoding; send its bytes as they are")
    return not about.keys().isdisjoint({"filename", "filename*"}), content


def _read_parameters(value: str) -> dict[str, str] | None:
    """Return the parameters of a header value by name in lower case, or None if the value is malformed."""
    if not _PARAMETERS.fullmatch(value):
        return None
    return {name.lower(): quoted or plain for name, quoted, plain in re.findall(_PARAMETER, value, re.ASCII)}


def _wrong_form(message: str) -> RequestError:
    return RequestError("wrong_form", message)
