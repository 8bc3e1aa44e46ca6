"""Image formats: which are read, and how files of any format are recognized by suffix or first bytes."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Final, NamedTuple

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Formats that Pillow decodes, by their Pillow names; none of its other decoders is ever invoked."""

FORMAT_NAMES: Final = "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000, PPM or HEIC"
"""Formats that are read, for messages."""

HEAD_BYTES: Final = 256
"""Number of first bytes that `identify` needs."""

HAS_HEIC: Final = find_spec("pillow_heif") is not None
"""True if the extra `heic` is installed."""


class Kind(NamedTuple):
    """Kind of image file.

    Attributes:
        name: Name in messages, such as "HEIC (iPhone) image".
        suffixes: Suffixes of its files, in lower case; the first is the usual one.
        is_read: Whether its files can be decoded.
        hint: What to do with a file that is not decoded; `{name}` and `{stem}` stand for its name.
    """

    name: str
    suffixes: tuple[str, ...]
    is_read: bool
    hint: str = ""

    def to_hint(self, name: str = "IMAGE") -> str:
        """Return what to do with a file of this name."""
        stem = name[: name.rfind(".")] if "." in name.rpartition("/")[2][1:] else name
        suffix = self.suffixes[0] if name == "IMAGE" else ""
        return self.hint.format(name=name + suffix, stem=stem)


_CONVERT: Final = "convert it to PNG, such as with ImageMagick: magick '{name}' '{stem}.png'"
_HEIC_HINT: Final = "pip install 'cifarml[heic]'   (or convert it to JPEG)"

PNG: Final = Kind("PNG image", (".png", ".apng"), is_read=True)
JPEG: Final = Kind("JPEG image", (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"), is_read=True)
WEBP: Final = Kind("WebP image", (".webp",), is_read=True)
GIF: Final = Kind("GIF image", (".gif",), is_read=True)
BMP: Final = Kind("BMP image", (".bmp",), is_read=True)
TIFF: Final = Kind("TIFF image", (".tif", ".tiff"), is_read=True)
AVIF: Final = Kind("AVIF image", (".avif",), is_read=True)
JPEG2000: Final = Kind("JPEG 2000 image", (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"), is_read=True)
PPM: Final = Kind("PPM image", (".ppm", ".pgm", ".pbm", ".pnm"), is_read=True)
HEIC: Final = Kind("HEIC (iPhone) image", (".heic", ".heif", ".hif"), HAS_HEIC, _HEIC_HINT)
JXL: Final = Kind("JPEG XL image", (".jxl",), is_read=False, hint=_CONVERT)
DICOM: Final = Kind("DICOM image", (".dcm", ".dicom"), is_read=False, hint=_CONVERT)
PSD: Final = Kind("Photoshop image", (".psd", ".psb"), is_read=False, hint=_CONVERT)
ICON: Final = Kind("icon", (".ico", ".cur", ".icns"), is_read=False, hint=_CONVERT)
SVG: Final = Kind("SVG drawing", (".svg", ".svgz"), is_read=False, hint=_CONVERT)
EXR: Final = Kind("OpenEXR image", (".exr",), is_read=False, hint=_CONVERT)
HDR: Final = Kind("Radiance HDR image", (".hdr",), is_read=False, hint=_CONVERT)
QOI: Final = Kind("QOI image", (".qoi",), is_read=False, hint=_CONVERT)
FITS: Final = Kind("FITS image", (".fits",), is_read=False, hint=_CONVERT)
DDS: Final = Kind("DDS texture", (".dds",), is_read=False, hint=_CONVERT)
XCF: Final = Kind("GIMP image", (".xcf",), is_read=False, hint=_CONVERT)
RAW: Final = Kind(
    "camera raw image",
    (".dng", ".cr2", ".cr3", ".crw", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
    is_read=False,
    hint="export it as JPEG, such as with ImageMagick: magick '{name}' '{stem}.jpg'",
)
_BY_SUFFIX_ONLY: Final = (
    Kind("TGA image", (".tga",), is_read=False, hint=_CONVERT),
    Kind("PCX image", (".pcx",), is_read=False, hint=_CONVERT),
    Kind("PostScript drawing", (".eps",), is_read=False, hint=_CONVERT),
    Kind("Windows metafile", (".wmf", ".emf"), is_read=False, hint=_CONVERT),
    Kind("SGI image", (".sgi",), is_read=False, hint=_CONVERT),
    Kind("JPEG XR image", (".jxr", ".wdp", ".hdp"), is_read=False, hint=_CONVERT),
)

_KINDS: Final = (
    *(PNG, JPEG, WEBP, GIF, BMP, TIFF, AVIF, JPEG2000, PPM, HEIC),
    *(JXL, DICOM, PSD, ICON, SVG, EXR, HDR, QOI, FITS, DDS, XCF, RAW),
    *_BY_SUFFIX_ONLY,
)
_OF_SUFFIX: Final = {suffix: kind for kind in _KINDS for suffix in kind.suffixes}

SUFFIXES: Final = frozenset(suffix for suffix, kind in _OF_SUFFIX.items() if kind.is_read)
"""File name suffixes of the images that are read, in lower case."""

_MAGIC: Final = tuple(
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        (rb"\xff\xd8\xff", JPEG),
        (rb"\x89PNG\r\n\x1a\n", PNG),
        (rb"RIFF....WEBP", WEBP),
        (rb"GIF8[79]a", GIF),
        (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", BMP),
        (rb"II\*\0\x10\0\0\0CR|FUJIFILMCCD-RAW|IIU\0|IIR[OS]|MMOR", RAW),
        (rb"II[*+]\0|MM\0[*+]", TIFF),
        (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", JPEG2000),
        (rb"P[1-6]\s+[#\d]", PPM),
        (rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\n", JXL),
        (rb".{128}DICM", DICOM),
        (rb"8BPS", PSD),
        (rb"\0\0\x01\0[\x01-\x20]\0|icns", ICON),
        (rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^\0]*|<!(?:--|DOCTYPE svg)[^\0]*)?<svg\b", SVG),
        (rb"v/1\x01", EXR),
        (rb"#\?RADIANCE", HDR),
        (rb"qoif", QOI),
        (rb"SIMPLE  =", FITS),
        (rb"DDS ", DDS),
        (rb"gimp xcf", XCF),
    )
)
_BRANDS: Final = (
    (frozenset({b"avif", b"avis"}), AVIF),
    (frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}), HEIC),
    (frozenset({b"crx "}), RAW),
    (frozenset({b"mif1", b"msf1", b"miaf"}), HEIC),
)
"""Brands in the first box of an ISO base media file (ISO/IEC 14496-12, 4.3), the most specific first."""


def identify(head: bytes) -> Kind | None:
    """Return the kind of an image file by its first bytes, or None if it is not an image."""
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12]} | {head[at : at + 4] for at in range(16, end - 3, 4)}
        return next((kind for known, kind in _BRANDS if brands & known), None)
    return next((kind for pattern, kind in _MAGIC if pattern.match(head)), None)


def kind_of_name(name: str) -> Kind | None:
    """Return the kind of an image file by the suffix of its name, or None if it is not one of an image."""
    return _OF_SUFFIX.get(suffix_of(name))


def suffix_of(name: str) -> str:
    """Return the suffix of a file name, in lower case, or ""."""
    base = name[name.rfind("/") + 1 :]
    return base[base.rfind(".") :].lower() if "." in base[1:] else ""


def is_hidden(name: str) -> bool:
    """Return whether a file, or a folder around it, is hidden or was added by macOS."""
    return name.startswith((".", "__MACOSX/")) or "/." in name
