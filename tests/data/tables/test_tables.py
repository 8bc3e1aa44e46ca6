"""Sources whose labels are in a table: CSV, Parquet, NumPy arrays; and CIFAR-100."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cifarml import Dataset, load_dataset
from cifarml.data.check import check_source
from cifarml.errors import DataError, ImageError
from cifarml.images import decode_image
from tests.image_files import WRITERS, image_bytes, image_contents, write_folder, write_zip

CLASSES = ("cat", "dog")


def labels_of(dataset: Dataset) -> dict[str, str]:
    pairs = zip(dataset.sources, dataset.labels.tolist(), strict=True)
    return {name: dataset.class_names[label] for name, label in pairs}


def numbered(folder: str, count: int = 20) -> dict[str, bytes]:
    return image_contents(f"{folder}{i}.png" for i in range(1, count + 1))


def label(number: int) -> str:
    return CLASSES[number % 2]


@pytest.mark.parametrize("container", list(WRITERS))
@pytest.mark.parametrize(
    ("table", "header", "key", "folder"),
    [
        ("labels.csv", "filename,label", "{}.png", "images/"),
        ("labels.csv", "filename,label", "images/{}.png", "images/"),
        ("labels.csv", "id,breed", "{}", "train/"),
        ("trainLabels.csv", "id,label", "{}", "train/"),
        ("train.csv", "image_id,label", "{}.png", "train_images/"),
        ("images/metadata.csv", "file_name,label", "{}.png", "images/"),
        ("labels.csv", "", "{}.png", ""),
        ("labels.tsv", "file\tclass", "{}.png", ""),
        ("labels.csv", "id;Label;width", "{}", ""),
        ("labels.csv", "path,category", "C:\\data\\images\\{}.png", "images/"),
    ],
)
def test_labels_in_a_csv_file(
    tmp_path: Path, container: str, table: str, header: str, key: str, folder: str
) -> None:
    images = numbered(folder)
    delimiter = next((each for each in "\t;" if each in header), ",")
    extra = [""] * (header.count(delimiter) - 1)
    lines = [delimiter.join([key.format(i), label(i), *extra]) for i in range(1, 21)]
    content = "\n".join(filter(None, [header, *lines])).encode()
    dataset = load_dataset(WRITERS[container](tmp_path / container, images | {table: content}))
    assert labels_of(dataset) == {f"{folder}{i}.png": label(i) for i in range(1, 21)}
    assert dataset.is_test.sum() == 2
    assert not dataset.ignored


def test_kaggle_cifar_10(tmp_path: Path) -> None:
    """The ids of train/ and test/ are the same; the submission is not a source of labels."""
    files = numbered("train/") | numbered("test/", 30)
    files["trainLabels.csv"] = "\n".join(["id,label", *(f"{i},{label(i)}" for i in range(1, 21))]).encode()
    files["sampleSubmission.csv"] = "\n".join(["id,label", *(f"{i},cat" for i in range(1, 31))]).encode()
    dataset = load_dataset(write_folder(tmp_path / "kaggle", files))
    assert labels_of(dataset) == {f"train/{i}.png": label(i) for i in range(1, 21)}
    (ignored,) = dataset.ignored
    assert (ignored.kind, ignored.count) == ("image without a label", 30)


def test_csv_file_with_splits(tmp_path: Path) -> None:
    splits = ["train"] * 14 + ["valid"] * 2 + ["TEST"] * 4
    lines = [f"{i}.png,{label(i)},{splits[i - 1]}" for i in range(1, 21)]
    content = "\n".join(["filename,label,split", *lines]).encode()
    dataset = load_dataset(write_folder(tmp_path / "x", numbered("") | {"labels.csv": content}))
    assert set(dataset.test.sources) == {f"{i}.png" for i in range(17, 21)}


def test_csv_file_per_split(tmp_path: Path) -> None:
    files = numbered("train/", 10) | numbered("test/", 4)
    files["train.csv"] = "\n".join(["image,label", *(f"{i}.png,{label(i)}" for i in range(1, 11))]).encode()
    files["test.csv"] = "\n".join(["image,label", *(f"{i}.png,{label(i)}" for i in range(1, 5))]).encode()
    dataset = load_dataset(write_folder(tmp_path / "x", files))
    assert set(dataset.test.sources) == {f"test/{i}.png" for i in range(1, 5)}


def test_labels_without_images_are_counted(tmp_path: Path) -> None:
    lines = [f"{i}.png,{label(i)}" for i in range(1, 26)]
    content = "\n".join(["filename,label", *lines]).encode()
    dataset = load_dataset(write_folder(tmp_path / "x", numbered("") | {"labels.csv": content}))
    (ignored,) = dataset.ignored
    assert (ignored.kind, ignored.count, ignored.example) == ("label without an image", 5, "21.png")


def test_conflicting_labels_are_refused(tmp_path: Path) -> None:
    content = "\n".join(
        ["filename,label", *(f"{i}.png,{label(i)}" for i in range(1, 21)), "1.png,cow"]
    ).encode()
    with pytest.raises(DataError, match=r"'1\.png' as 'cow' and as 'dog'"):
        load_dataset(write_folder(tmp_path / "x", numbered("") | {"labels.csv": content}))


def test_unclear_label_column_is_refused(tmp_path: Path) -> None:
    content = "\n".join(["filename,a,b", *(f"{i}.png,{label(i)},1" for i in range(1, 21))]).encode()
    with pytest.raises(
        DataError, match=r"which column holds the labels\. Received: filename, a, b"
    ) as caught:
        load_dataset(write_folder(tmp_path / "x", numbered("") | {"labels.csv": content}))
    assert 'name the column "label"' in str(caught.value.hint)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\0", b"filename,width\n" + b"cat_1.png,40\n" * 9, b"a,b\nc,d\n", b'"', b"x" * 200_000],
)
def test_other_csv_files_are_no_labels(tmp_path: Path, content: bytes) -> None:
    files = image_contents(f"{name}_{i}.png" for name in CLASSES for i in range(1, 11))
    dataset = load_dataset(write_folder(tmp_path / "x", files | {"notes.csv": content}))
    assert dataset.class_names == CLASSES


def test_list_of_classes_is_no_labels(tmp_path: Path) -> None:
    files = image_contents(f"{name}/{i}.png" for name in CLASSES for i in range(10))
    dataset = load_dataset(write_folder(tmp_path / "x", files | {"labels.csv": b"id,label\n0,cat\n1,dog\n"}))
    assert len(dataset) == 20


# Parquet


def write_parquet(
    path: Path, count: int, *, first: int = 0, names: tuple[str, ...] = CLASSES, **columns: Any
) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"bytes": image_bytes(first + i), "path": f"{i}.png"} for i in range(count)]
    feature = {"names": list(names), "_type": "ClassLabel"}
    features = {
        "image": {"_type": "Image"},
        "label": feature,
        "coarse_label": feature | {"names": ["pet", "cow"]},
    }
    table = pa.table({"image": rows, "label": [i % 2 for i in range(count)], **columns})
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=7)
    return path


def test_hugging_face_parquet(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", 20)
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", 10, first=20)
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", 6, first=30)
    dataset = load_dataset(tmp_path)
    assert dataset.class_names == CLASSES
    assert (len(dataset.train), len(dataset.test)) == (30, 6)
    assert np.array_equal(dataset.test.images[0], decode_image(image_bytes(30)))
    last = dataset.sources.index("data/train-00001-of-00002.parquet:9")
    assert np.array_equal(dataset.images[last], decode_image(image_bytes(29)))
    assert check_source(tmp_path).sizes == (((32, 32), 36),)


def test_single_parquet_file_and_archive(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "pets.parquet", 20)
    alone = load_dataset(path)
    zipped = load_dataset(write_zip(tmp_path / "pets.zip", {"pets.parquet": path.read_bytes()}))
    assert alone.fingerprint == zipped.fingerprint
    assert alone.is_test.sum() == 2
    assert alone.sources[0] == "pets.parquet:0"


def test_parquet_with_coarse_labels(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", 20, coarse_label=[i // 10 for i in range(20)])
    assert load_dataset(path).class_names == CLASSES
    assert load_dataset(f"{path}:coarse").class_names == ("pet", "cow")


def test_parquet_rows_without_bytes_are_bad_images(tmp_path: Path) -> None:
    rows = [{"bytes": image_bytes(i) if i else None, "path": f"{i}.png"} for i in range(20)]
    path = write_parquet(tmp_path / "x.parquet", 20, image=rows)
    with pytest.raises(ImageError, match="1 of 20 images can't be read"):
        load_dataset(path)
    assert len(load_dataset(path, skip_bad=True)) == 19


@pytest.mark.parametrize("damage", [slice(0, 60), slice(4, None, 2), slice(0, -9)])
def test_damaged_parquet(tmp_path: Path, damage: slice) -> None:
    content = write_parquet(tmp_path / "good.parquet", 20).read_bytes()
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + content[4:][damage])
    with pytest.raises(DataError, match=r"x\.parquet: damaged Parquet file"):
        load_dataset(tmp_path / "x.parquet")


def test_parquet_without_images(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"no column with images\. Received: text, label"):
        load_dataset(tmp_path / "x.parquet")


# Arrays


def pixels(count: int, *shape: int, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    return np.random.default_rng(0).integers(0, 250, (count, *shape), dtype)


def save(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (40, 30, 3), (3, 32, 32), (32, 32, 4)])
@pytest.mark.parametrize(
    "labels", [np.arange(20) % 2, (np.arange(20) % 2)[:, None], np.eye(2, dtype=int)[np.arange(20) % 2]]
)
def test_npz_file(tmp_path: Path, shape: tuple[int, ...], labels: npt.NDArray[Any]) -> None:
    images = pixels(20, *shape)
    dataset = load_dataset(save(tmp_path / "x.npz", images=images, labels=labels))
    assert dataset.class_names == ("0", "1")
    assert dataset.labels.tolist() == [i % 2 for i in range(20)]
    first = images[0].transpose(1, 2, 0) if shape[0] == 3 else images[0].squeeze()
    assert np.abs(dataset.images[0].astype(int) - decode_image(first)).max() <= 1


def test_npz_file_with_splits_and_names(tmp_path: Path) -> None:
    arrays = {
        "x_train": pixels(20, 28, 28),
        "y_train": np.arange(20) % 2,
        "x_test": pixels(4, 28, 28),
        "y_test": np.arange(4) % 2,
    }
    dataset = load_dataset(save(tmp_path / "mnist.npz", **arrays, class_names=np.array(["zero", "one"])))
    assert dataset.class_names == ("zero", "one")
    assert dataset.is_test.sum() == 4
    folder = tmp_path / "folder"
    folder.mkdir()
    save(folder / "mnist.npz", **arrays)
    assert load_dataset(folder).is_test.sum() == 4


def test_npz_of_12_bits(tmp_path: Path) -> None:
    images = pixels(20, 32, 32, dtype=np.uint16) * 16
    dataset = load_dataset(save(tmp_path / "x.npz", images=images, labels=np.array(["a", "b"] * 10)))
    assert np.abs(dataset.images[..., 0].astype(int) - images // 16).max() <= 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": pixels(20, 28, 28)}, "expected an array of images and one of labels"),
        ({"images": pixels(20, 28, 28), "labels": np.arange(19) % 2}, "19 labels for the 20 images"),
        ({"images": pixels(20, 28, 28) / 255, "labels": np.arange(20) % 2}, "uint8 or uint16.*float64"),
        ({"images": pixels(20, 28, 28), "labels": np.arange(20) / 2}, "integers or strings"),
        ({"images": np.array([{}] * 20), "labels": np.arange(20) % 2}, "Python objects"),
        ({"images": pixels(20, 784), "labels": np.arange(20) % 2}, r"\(20, 784\)"),
    ],
)
def test_unusable_arrays(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(save(tmp_path / "x.npz", **arrays))


def test_array_with_a_wrong_header_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, pixels(20, 28, 28))
    for shape in (b"(2000000000, 28, 28), }", b"(-1, 28, 28), }"):
        content = file.getvalue().replace(b"(20, 28, 28), }" + b" " * (len(shape) - 15), shape)
        labels = io.BytesIO()
        np.save(labels, np.arange(20) % 2)
        path = write_zip(tmp_path / "x.npz", {"images.npy": content, "labels.npy": labels.getvalue()})
        with pytest.raises(DataError, match="does not match its shape"):
            load_dataset(path)


# CIFAR-100


def cifar100(folder: str, *, binary: bool) -> dict[str, bytes]:
    rng = np.random.default_rng(5)
    files: dict[str, bytes] = {}
    for part, count in (("train", 30), ("test", 6)):
        images = rng.integers(0, 256, (count, 3072), np.uint8)
        fine, coarse = [i % 3 for i in range(count)], [i % 3 // 2 for i in range(count)]
        if binary:
            rows = np.column_stack([np.array(coarse, np.uint8), np.array(fine, np.uint8), images])
            files[f"{folder}{part}.bin"] = rows.tobytes()
        else:
            batch = {
                b"data": images,
                b"fine_labels": fine,
                b"coarse_labels": coarse,
                b"filenames": [b"a.png"] * count,
            }
            files[f"{folder}{part}"] = pickle.dumps(batch, 4)
    names = {"fine": ["apple", "pear", "bee"], "coarse": ["fruit", "insects"]}
    if binary:
        files |= {f"{folder}{kind}_label_names.txt": "\n".join(each).encode() for kind, each in names.items()}
    else:
        meta = {
            f"{kind}_label_names".encode(): [name.encode() for name in each] for kind, each in names.items()
        }
        files[f"{folder}meta"] = pickle.dumps(meta, 4)
    return files


@pytest.mark.parametrize("container", list(WRITERS))
@pytest.mark.parametrize("binary", [False, True])
def test_cifar_100(tmp_path: Path, container: str, binary: bool) -> None:
    path = WRITERS[container](tmp_path / container, cifar100("cifar-100/", binary=binary))
    fine, coarse = load_dataset(path), load_dataset(f"{path}:coarse")
    assert fine.class_names == ("apple", "pear", "bee")
    assert coarse.class_names == ("fruit", "insects")
    assert np.array_equal(coarse.labels, fine.labels // 2)
    assert np.array_equal(fine.images, coarse.images)
    assert fine.is_test.sum() == 6
    assert fine.notes == ("CIFAR-100 with fine labels",)
    assert coarse.notes == ("CIFAR-100 with coarse labels",)
    assert check_source(f"{path}:coarse").classes[0].name == "fruit"


def test_damaged_cifar_100(tmp_path: Path) -> None:
    files = cifar100("", binary=False)
    for name, content in {"train": files["train"][:500], "meta": b"x"}.items():
        with pytest.raises(DataError, match=f"{name}|class names"):
            load_dataset(write_zip(tmp_path / "x.zip", files | {name: content}))


# What is not read says what it is


def idx() -> bytes:
    return b"\0\0\x08\x03" + bytes(12)


COCO = json.dumps({"images": [], "annotations": [], "categories": []}).encode()
UNREAD: dict[str, tuple[str, bytes, str]] = {
    "SVHN": ("train_32x32.mat", b"MATLAB 5.0 MAT-file", "an SVHN .mat file"),
    "MATLAB": ("imagelabels.mat", b"MATLAB 5.0 MAT-file", "a MATLAB .mat file"),
    "IDX": ("train-images-idx3-ubyte", idx(), "an IDX (MNIST) file"),
    "IDX, renamed": ("images", idx(), "an IDX (MNIST) file"),
    "TFRecord": ("train.tfrecord-00000-of-00010", bytes(40), "a TFRecord file"),
    "COCO": ("annotations.json", COCO, "a COCO json file"),
    "HDF5": ("data.h5", b"\x89HDF\r\n\x1a\n" + bytes(9), "an HDF5 file"),
    "7z": ("images.7z", b"7z\xbc\xaf\x27\x1c" + bytes(9), "a 7z archive"),
    "RAR": ("images.rar", b"Rar!\x1a\x07\x00", "a RAR archive"),
    "Arrow": ("data-00000-of-00001.arrow", b"ARROW1", "a Hugging Face Arrow file"),
    "pickle": ("data.pkl", b"\x80\x04}", "a pickle, which could run code"),
    "pixels": ("fer2013.csv", b"emotion,pixels,Usage\n0,1 2 3,Training\n", "a CSV file of pixel values"),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_unread_formats_are_named(tmp_path: Path, kind: str) -> None:
    name, content, expected = UNREAD[kind]
    folder = write_folder(tmp_path / "x", {name: content})
    sources: list[Callable[[], object]] = [
        lambda: load_dataset(folder),
        lambda: load_dataset(folder / name),
        lambda: load_dataset(write_zip(tmp_path / "x.zip", {f"deep/{name}": content})),
    ]
    for load in sources:
        with pytest.raises(DataError) as caught:
            load()
        assert expected in caught.value.message
        assert caught.value.hint


def test_single_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(image_bytes())
    with pytest.raises(DataError, match="is one PNG image, not a folder or archive") as caught:
        load_dataset(tmp_path / "x.png")
    assert caught.value.hint == "pass the folder that contains it"
