"""Image files that are not read: counted by kind, in every container and every report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarml import Dataset, load_dataset
from cifarml.data.check import check_source
from cifarml.data.file_tree import Folder
from cifarml.data.ignored import IgnoredFiles, find_images
from cifarml.errors import DataError
from cifarml.images import decode_image
from cifarml.settings import Settings
from tests.image_files import WRITERS, image_bytes, image_contents, write_folder, write_zip
from tests.test_images import encode

IMAGES = image_contents(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(1, 13))
RAW = b"II*\0\x10\0\0\0CR\2\0" + bytes(80)
OTHERS = {
    "cat/a.cr2": RAW,
    "cat/b.CR2": RAW,
    "cat/c.jxl": b"\xff\x0a" + bytes(30),
    "dog/0001": image_bytes(70, "JPEG"),
    "dog/photo.download": image_bytes(71, "JPEG"),
    "dog/x.dat": b"\0\0\0\x0cJXL \r\n\x87\n",
    "logo.svg": b"<svg xmlns='x'/>",
    "README.md": b"text",
    "dog/notes.txt": b"text",
    ".hidden.cr2": RAW,
    "__MACOSX/dog/x.cr2": RAW,
}


def counts(dataset: Dataset) -> dict[str, int]:
    return {files.kind: files.count for files in dataset.ignored}


@pytest.mark.parametrize("container", list(WRITERS))
def test_unread_images_are_counted_by_kind(tmp_path: Path, container: str) -> None:
    dataset = load_dataset(WRITERS[container](tmp_path / container, IMAGES | OTHERS))
    assert len(dataset) == 24
    assert counts(dataset) == {
        "camera raw image": 2,
        "JPEG XL image": 2,
        "JPEG image without a suffix": 1,
        "JPEG image with the suffix .download": 1,
        "SVG drawing": 1,
    }
    hints = {files.kind: files.hint for files in dataset.ignored}
    assert hints["JPEG image without a suffix"] == "rename it: mv 'dog/0001' 'dog/0001.jpg'"
    assert "magick 'cat/a.cr2' 'cat/a.jpg'" in hints["camera raw image"]


@pytest.mark.parametrize("kind", ["TIFF", "AVIF", "PPM", "JPEG2000", "JPEG"])
def test_further_formats_are_trained_on(tmp_path: Path, kind: str) -> None:
    suffix = {"JPEG2000": "jp2", "JPEG": "jfif"}.get(kind, kind.lower())
    files = {f"{name}/{i}.{suffix}": image_bytes(i, kind) for name in "ab" for i in range(1, 4)}
    dataset = load_dataset(write_folder(tmp_path / "x", files))
    assert (len(dataset), dataset.ignored) == (6, ())


def test_bits_of_12_bit_images_are_stated(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    files = {
        f"{name}/{i}.png": encode(Image.fromarray(rng.integers(0, 4096, (32, 32), np.uint16)))
        for name in ("cat", "dog")
        for i in range(6)
    }
    path = write_zip(tmp_path / "x.zip", files)
    dataset = load_dataset(path)
    assert dataset.images.mean() > 100
    assert "12 images have 12 bits per channel, scaled from 0..4,095 to 0..255" in dataset.notes
    assert np.array_equal(dataset.images[0], decode_image(files[dataset.sources[0]]))


def test_broken_links_are_counted(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "x", IMAGES)
    for name in ("cat/gone.png", "dog/gone.jpg", "dog/gone.txt"):
        (root / name).symlink_to(tmp_path / "nowhere")
    (files,) = load_dataset(root).ignored
    assert (files.kind, files.count) == ("broken link", 2)
    assert set(find_images(Folder(root))) == {*IMAGES, "cat/gone.png", "dog/gone.jpg"}


def test_check_reports_them(tmp_path: Path) -> None:
    """Those in the folders of classes are problems, others are warnings."""
    found = check_source(write_folder(tmp_path / "x", IMAGES | OTHERS))
    assert "2 camera raw images not read, such as 'cat/a.cr2'" in found.problems
    assert found.warnings == ("1 SVG drawing not read: 'logo.svg'",)
    assert {"kind": "camera raw image", "count": 2}.items() <= found.to_json()["ignored"][0].items()  # type: ignore[index]
    json.dumps(found.to_json())


def test_error_of_a_source_without_readable_images_names_them(tmp_path: Path) -> None:
    files = {f"{name}/{i}.cr2": RAW for name in ("cat", "dog") for i in range(9)}
    with pytest.raises(DataError, match="no images found") as caught:
        load_dataset(write_folder(tmp_path / "x", files))
    assert "18 camera raw images not read" in caught.value.message
    assert "magick" in str(caught.value.hint)


def test_class_without_readable_images_names_them(tmp_path: Path) -> None:
    files = {name: IMAGES[name] for name in IMAGES if name.startswith("cat")}
    with pytest.raises(DataError, match="camera raw"):
        load_dataset(write_folder(tmp_path / "x", files | {f"dog/{i}.cr2": RAW for i in range(9)}))


def test_cache_keeps_them(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifarml.data.load._CACHED_FILES", 10)
    root = write_folder(tmp_path / "x", IMAGES | OTHERS)
    first = load_dataset(root, settings=settings)
    assert [*(settings.cache_dir / "decoded").glob("*.npy")]
    assert load_dataset(root, settings=settings).ignored == first.ignored
    assert first.take(first.labels[:1]).ignored == first.ignored


@pytest.mark.parametrize(
    ("kind", "count", "shown"),
    [
        ("HEIC (iPhone) image", 17, "17 HEIC (iPhone) images not read, such as 'x'"),
        ("JPEG image without a suffix", 2, "2 JPEG images without a suffix not read, such as 'x'"),
        ("broken link", 1, "1 broken link not read: 'x'"),
        ("missing batch", 2, "2 missing batches, such as 'x'"),
    ],
)
def test_ignored_files_as_text(kind: str, count: int, shown: str) -> None:
    assert str(IgnoredFiles(kind, count, "x", "")) == shown
