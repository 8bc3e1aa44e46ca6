"""Names of data set formats that are not read, so that an error says what was recognized."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from cifarml.data.file_tree import FileTree
from cifarml.errors import ImageError
from cifarml.imaging.formats import HEAD_BYTES, identify, is_hidden

_PEEKED_BYTES: Final = 64 * 2**20
_HINT: Final = "export the images into a folder per class; see docs/guides/own-images.md"


class Format(NamedTuple):
    """Format of a data set.

    Attributes:
        name: Name in messages, such as "a TFRecord file".
        names: Pattern of file names, in lower case.
        head: Pattern of the first bytes; None if the name is enough.
        content: Byte strings that the file contains.
    """

    name: str
    names: str
    head: bytes | None = None
    content: tuple[bytes, ...] = ()


_FORMATS: Final = (
    Format("an SVHN .mat file", r"(?:train|test|extra)_32x32\.mat"),
    Format("a MATLAB .mat file", r".*\.mat"),
    Format("an IDX (MNIST) file", r".*idx[1-4]-ubyte(?:\.gz)?"),
    Format("an IDX (MNIST) file", r"[^.]*|.*\.(?:idx|ubyte|bin|dat)", rb"\0\0[\x08-\x0e][\x01-\x04]"),
    Format("a TFRecord file", r".*\.tfrecords?(?:-\d+-of-\d+)?(?:\.gz)?"),
    Format("a COCO json file", r".*\.json", None, (b'"images"', b'"annotations"', b'"categories"')),
    Format("a Pascal VOC xml file", r".*\.xml", None, (b"<annotation", b"<object")),
    Format("an STL-10 binary file", r"(?:train|test|unlabeled)_[xy]\.bin"),
    Format("a Hugging Face Arrow file", r".*\.arrow"),
    Format("a WebDataset shard", r".*-\d{4,}\.tar"),
    Format("an LMDB database", r"data\.mdb|.*\.lmdb"),
    Format("an MXNet RecordIO file", r".*\.rec"),
    Format("an HDF5 file", r".*", rb"\x89HDF\r\n\x1a\n"),
    Format("a Parquet file", r".*", rb"PAR1"),
    Format("a single NumPy array (.npy)", r".*", rb"\x93NUMPY"),
    Format("a PyTorch file", r".*\.(?:pt|pth)"),
    Format("a pickle, which could run code", r".*\.(?:pkl|pickle)"),
    Format("a pickle, which could run code", r".*", rb"\x80[\x02-\x05](?:[}\]c(q]|\x95)"),
    Format("a 7z archive", r".*", rb"7z\xbc\xaf\x27\x1c"),
    Format("a RAR archive", r".*", rb"Rar!\x1a\x07"),
    Format("an xz archive", r".*", rb"\xfd7zXZ\0"),
    Format("a bzip2 archive", r".*", rb"BZh[1-9]"),
    Format("a Zstandard archive", r".*", rb"\x28\xb5\x2f\xfd"),
    Format("a zip archive in the source", r".*\.zip", rb"PK"),
    Format("a PDF document", r".*", rb"%PDF-"),
    Format("a CSV file of pixel values", r".*\.csv", rb"[^\n]*(?:pixel_?0|pixel_?1|pixels|1x1)\b"),
    Format("a CSV file", r".*\.(?:csv|tsv)"),
    Format("a video", r".*\.(?:mp4|avi|mov|mkv|webm)"),
)
_HINTS: Final = {
    "7z": "unpack it, and pass the folder",
    "RAR": "unpack it, and pass the folder",
    "xz": "unpack it, and pass the folder",
    "bzip2": "unpack it, and pass the folder",
    "Zstandard": "unpack it, and pass the folder",
    "zip": "unpack it, and pass the folder",
    "Arrow": 'write Parquet files: dataset.to_parquet("train.parquet")',
    "(.npy)": 'save images and labels: numpy.savez("images.npz", images=images, labels=labels)',
}


class Recognized(NamedTuple):
    """Content of a source, and a hint at how to use it."""

    description: str
    hint: str


def recognize(tree: FileTree) -> Recognized | None:
    """Return the format of a source that has no labelled images, or None if no file has a known one."""
    files = [name for name in tree.files if not is_hidden(name)]
    for form in _FORMATS:
        for name in files:
            if _matches(form, name, tree):
                return Recognized(f"{form.name}: {name!r}", _hint(form.name))
    return None


def describe_file(name: str, content: bytes) -> str:
    """Return what a single file is, such as "an SVHN .mat file" or "one PNG image", or "" if unknown."""
    for form in _FORMATS:
        if _named(form, name) and _holds(form, content[:HEAD_BYTES], content):
            return form.name
    kind = identify(content[:HEAD_BYTES])
    return f"one {kind.name}" if kind else ""


def hint_for(description: str) -> str:
    """Return what to do with a file that `describe_file` described."""
    return "pass the folder that contains it" if description.startswith("one ") else _hint(description)


def _hint(description: str) -> str:
    return next((hint for word, hint in _HINTS.items() if word in description), _HINT)


def _matches(form: Format, name: str, tree: FileTree) -> bool:
    if not _named(form, name) or (form.content and tree.files[name] > _PEEKED_BYTES):
        return False
    try:
        head = tree.head(name) if form.head else b""
        return _holds(form, head, tree.read(name) if form.content else b"")
    except ImageError:
        return False


def _named(form: Format, name: str) -> bool:
    return re.fullmatch(form.names, name.rpartition("/")[2].lower()) is not None


def _holds(form: Format, head: bytes, content: bytes) -> bool:
    has_head = form.head is None or re.match(form.head, head, re.DOTALL) is not None
    return has_head and all(each in content for each in form.content)
