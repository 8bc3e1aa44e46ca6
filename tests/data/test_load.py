"""Loading and checking of data sets: layouts, containers, invalid sources and the cache."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from cifarml import Dataset, load_dataset
from cifarml.data.check import check_dataset, check_source
from cifarml.errors import DataError, DownloadError, ImageError
from cifarml.images import decode_image
from cifarml.progress import Progress
from tests.image_files import WRITERS, flat, image_bytes, image_contents, write_folder, write_zip


@pytest.fixture(params=list(WRITERS))
def container(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(tmp_path: Path, container: str, files: dict[str, bytes]) -> Path:
    return WRITERS[container](tmp_path / container, files)


def test_flat_names_split_by_number(tmp_path: Path, container: str) -> None:
    files = flat(20)
    dataset = load_dataset(write(tmp_path, container, files))
    assert dataset.class_names == ("cat", "dog")
    assert sorted(dataset.sources) == sorted(files)
    assert set(dataset.test.sources) == {"cat_19.png", "cat_20.png", "dog_19.png", "dog_20.png"}
    for image, label, name in zip(dataset.images, dataset.labels, dataset.sources, strict=True):
        assert np.array_equal(image, decode_image(files[name]))
        assert name.startswith(dataset.class_names[label])


def test_fingerprint_is_independent_of_container(tmp_path: Path) -> None:
    files = dict(sorted(flat(12).items()))
    prints = {load_dataset(write(tmp_path, container, files)).fingerprint for container in WRITERS}
    assert len(prints) == 1


def test_split_of_the_article(tmp_path: Path) -> None:
    content = image_bytes()
    files = {f"{name}_{i}.png": content for name in ("ship", "truck") for i in range(1, 201)}
    test = load_dataset(write_zip(tmp_path / "a.zip", files)).test
    assert {int(name.split("_")[1][:-4]) for name in test.sources} == set(range(181, 201))


@pytest.mark.parametrize("wrapper", ["", "data/", "a/b/c/"])
def test_class_folders_in_train_and_test(tmp_path: Path, container: str, wrapper: str) -> None:
    names = [
        f"{wrapper}{split}/{name}/{i}.png"
        for split in ("train", "test")
        for name in ("cat", "dog", "emu")
        for i in range(2)
    ]
    dataset = load_dataset(write(tmp_path, container, image_contents(names)))
    assert dataset.class_names == ("cat", "dog", "emu")
    assert set(dataset.test.sources) == {name for name in names if "/test/" in f"/{name}"}


@pytest.mark.parametrize("wrapper", ["", "data/"])
def test_class_folders(tmp_path: Path, container: str, wrapper: str) -> None:
    names = [f"{wrapper}{name}/IMG_{i}.png" for name in ("red panda", "trains") for i in range(1, 33)]
    dataset = load_dataset(write(tmp_path, container, image_contents(names)))
    assert dataset.class_names == ("red panda", "trains")
    assert dataset.test.class_counts().tolist() == [3, 3]
    assert "drawn at random" in dataset.notes[-1]


@pytest.mark.parametrize(("split", "tests"), [("test", 4), ("train", 2)])
def test_train_or_test_folder_only(tmp_path: Path, split: str, tests: int) -> None:
    names = [f"{split}/{name}/{i}.png" for name in ("cat", "dog") for i in range(2)]
    assert load_dataset(write_folder(tmp_path / "x", image_contents(names))).is_test.sum() == tests


def test_flat_names_inside_train_and_test(tmp_path: Path) -> None:
    names = [
        f"{split}/{name}_{i}.png" for split in ("train", "test") for name in ("a", "b") for i in range(2)
    ]
    dataset = load_dataset(write_folder(tmp_path / "x", image_contents(names)))
    assert dataset.class_names == ("a", "b")
    assert all(name.startswith("test/") for name in dataset.test.sources)


def test_class_names_in_any_script(tmp_path: Path, container: str) -> None:
    classes = ("猫", "собака", "قطة", "naïve café", "🐸", "[red]b", "$x_1$")
    files = image_contents(f"{name}/{i}.png" for name in classes for i in range(2))
    dataset = load_dataset(write(tmp_path, container, files))
    assert dataset.class_names == tuple(sorted(classes))


def test_other_files_are_ignored(tmp_path: Path, container: str) -> None:
    extra = {
        "README.txt": b"hello",
        ".hidden/cat_99.png": b"?",
        "__MACOSX/._cat_1.png": b"?",
        "._dog_1.png": b"?",
        "more.zip": b"PK",
    }
    dataset = load_dataset(write(tmp_path, container, flat() | extra))
    assert len(dataset) == 20


def test_links_are_followed_without_cycles(tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere", image_contents(["1.png", "2.png"]))
    root = write_folder(tmp_path / "x", image_contents(["cat/1.png", "cat/2.png"]))
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert load_dataset(root).class_names == ("cat", "dog")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_formats_and_sizes(tmp_path: Path, kind: str) -> None:
    files = {f"{name}_{i}.{kind.lower()}": image_bytes(i, kind, (50, 40)) for name in "ab" for i in (1, 2)}
    assert load_dataset(write_folder(tmp_path / "x", files)).images.shape == (4, 32, 32, 3)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no images"),
        ({"notes.txt": b"x"}, "no images"),
        (flat(10, ["cat"]), "2 to 1000"),
        ({f"cat/{i}.png": image_bytes(i) for i in range(3)}, "a single class: 'cat'"),
        (image_contents(["cat_1.png", "cat_2.png", "dog_1.png"]), "single image: 'dog'"),
        (image_contents(["one.png", "two.png"]), "no label"),
        (image_contents(["cat_1.png", "cat_2.png", "dog.png"]), "1 of 3 images have no label: 'dog.png'"),
        (image_contents(["cat/1.png", "top.png"]), "1 images such as 'top.png' beside 1 images in folders"),
        (image_contents(["train/cat/1.png", "valid/cat/1.png"]), "a single class: 'cat'"),
        (image_contents(["a/b/c/1.png", "a/b/2.png", "d/3.png"]), "single image: 'd'"),
        (image_contents(["a\n/1.png", "a\n/2.png", "b/1.png", "b/2.png"]), "printable"),
        ({f"{i}/{j}.png": b"" for i in range(1001) for j in range(2)}, "2 to 1000"),
    ],
)
def test_unlabelled_images(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(write_folder(tmp_path / "source", files))
    assert str(tmp_path / "source") in str(caught.value) or "2 to 1000" in str(caught.value)


@pytest.mark.parametrize("name", ["cifar10", "drawn:40"])
def test_folder_that_is_named_like_a_keyword(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / name, flat(10))
    for source in (f"./{name}", Path(name), tmp_path / name):
        assert load_dataset(source).class_names == ("cat", "dog")
        assert check_source(source).sizes == (((32, 32), 20),)
    if name != "cifar10":  # which is downloaded
        drawings = load_dataset(name)
        assert len(drawings.class_names) == 10
        assert drawings.notes == (f"{name!r} is not the folder or file of this name, which is './{name}'",)
        assert check_source(name).sizes == ()


def test_zip_with_backslashes(tmp_path: Path) -> None:
    names = [f"{split}/{name}/{i}.png" for split in ("train", "test") for name in "ab" for i in range(2)]
    files = {name.replace("/", "\\"): content for name, content in image_contents(names).items()}
    dataset = load_dataset(write_zip(tmp_path / "x.zip", {"train\\": b""} | files))
    assert dataset.class_names == ("a", "b")
    assert dataset.is_test.sum() == 4


def test_class_folder_without_images(tmp_path: Path) -> None:
    root = write_folder(
        tmp_path / "x", image_contents(f"{name}/{i}.png" for name in ("a", "b") for i in range(3))
    )
    (root / "c").mkdir()
    with pytest.raises(DataError, match="class folders without images: 'c'"):
        load_dataset(root)


@pytest.mark.parametrize("source", ["nowhere", "nowhere.zip", "drawn:x", "CIFAR10", ""])
def test_missing_source(tmp_path: Path, source: str) -> None:
    if source:
        with pytest.raises(DataError, match="no such folder or archive"):
            load_dataset(source)
    else:
        with pytest.raises(DataError):
            load_dataset(tmp_path / "empty")


@pytest.mark.parametrize("content", [b"", b"x", b"plain text", b"PK\x03\x04", b"\x1f\x8b\x08\x00"])
def test_invalid_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"images\.zip"):
        load_dataset(path)


@pytest.mark.slow
def test_cifar10_without_network() -> None:
    with pytest.raises(DownloadError, match="connection failed") as caught:
        load_dataset("cifar10")
    assert caught.value.hint


BAD = {
    "cat_3.png": b"",
    "dog_4.png": image_bytes()[:200],
    "dog_5.png": b"a text",
    "dog_6.png": image_bytes(0, "ICO"),
}


def test_bad_images_are_listed(tmp_path: Path, container: str) -> None:
    with pytest.raises(ImageError, match=r"4 of 20 images can't be read") as caught:
        load_dataset(write(tmp_path, container, flat() | BAD))
    assert all(name in caught.value.message for name in BAD)
    assert caught.value.hint
    assert "--skip-bad" in caught.value.hint


def test_skip_bad(tmp_path: Path, container: str) -> None:
    dataset = load_dataset(write(tmp_path, container, flat() | BAD), skip_bad=True)
    assert len(dataset) == 16
    assert {image.name for image in dataset.skipped} == set(BAD)
    assert "skipped 4 unreadable images: cat 1 of 10, dog 3 of 10" in dataset.notes
    subset = load_dataset(tmp_path / container, skip_bad=True, subset=8)
    assert subset.class_counts().tolist() == [4, 4]
    assert subset.skipped == dataset.skipped
    assert subset.notes == dataset.notes
    whole = load_dataset(write(tmp_path / "good", "folder", flat()))
    for name in dataset.sources:
        assert np.array_equal(
            dataset.images[dataset.sources.index(name)], whole.images[whole.sources.index(name)]
        )


def test_bad_images_are_left_out_before_the_split(tmp_path: Path) -> None:
    files = flat(10) | {"cat_10.png": b"?", "dog_10.png": b"?"}  # the images that would be tested
    dataset = load_dataset(write_folder(tmp_path / "x", files), skip_bad=True)
    assert set(dataset.test.sources) == {"cat_9.png", "dog_9.png"}
    assert load_dataset(tmp_path / "x", skip_bad=True, subset=18).class_counts().tolist() == [9, 9]
    files = image_contents(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(30))
    whole = load_dataset(write_folder(tmp_path / "tree", files))
    for name in whole.test.sources:
        (tmp_path / "tree" / name).write_bytes(b"?")
    assert load_dataset(tmp_path / "tree", skip_bad=True).test.class_counts().tolist() == [3, 3]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (["cat_1.png", "cat_2.png"], "classes with a single readable image: 'cat'"),
        (["cat_1.png", "cat_2.png", "cat_3.png"], "classes without readable images: 'cat'"),
    ],
)
def test_minimum_is_checked_among_readable_images(tmp_path: Path, bad: list[str], message: str) -> None:
    files = flat(3) | dict.fromkeys(bad, b"?")
    with pytest.raises(DataError, match=message):
        load_dataset(write_folder(tmp_path / "x", files), skip_bad=True)


def test_no_readable_test_image(tmp_path: Path) -> None:
    files = image_contents(f"train/{name}/{i}.png" for name in "ab" for i in range(3))
    files |= {"test/a/1.png": b"?", "test/b/1.png": b"?"}
    with pytest.raises(DataError, match="no test image is readable"):
        load_dataset(write_folder(tmp_path / "x", files), skip_bad=True)


def test_class_of_bad_images_only(tmp_path: Path) -> None:
    files = flat(3, ["cat", "dog"]) | {f"emu_{i}.png": b"?" for i in range(3)}
    with pytest.raises(DataError, match="classes without readable images: 'emu'"):
        load_dataset(write_folder(tmp_path / "x", files), skip_bad=True)


def test_long_list_of_bad_images_is_shortened(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="and 40 more"):
        load_dataset(
            write_folder(tmp_path / "x", {f"{name}_{i}.png": b"" for name in "ab" for i in range(30)})
        )


def test_subset_and_progress(tmp_path: Path) -> None:
    steps: list[Progress] = []
    path = write_zip(tmp_path / "x.zip", flat(30))
    dataset = load_dataset(path, subset=20, seed=1, on_progress=steps.append)
    assert dataset.class_counts().tolist() == [10, 10]
    assert steps[-1].done == steps[-1].total == 60


class TestCache:
    """Cache of decoded images."""

    @pytest.fixture
    def large(self, tmp_path: Path) -> Path:
        """An archive at the caching threshold of 5,000 files."""
        content = [image_bytes(i) for i in range(50)]
        files = {f"{'cat' if i % 2 else 'dog'}_{i}.png": content[i % 50] for i in range(5_000)}
        return write_zip(tmp_path / "large.zip", files)

    def load(self, path: Path) -> tuple[Dataset, int]:
        steps: list[Progress] = []
        dataset = load_dataset(path, on_progress=steps.append)
        return dataset, len(steps)

    def test_second_load(self, large: Path, own_cache: Path) -> None:
        first, reading = self.load(large)
        second, again = self.load(large)
        assert reading > 0
        assert again == 0, "nothing is decoded"
        assert (first.fingerprint, first.sources) == (second.fingerprint, second.sources)
        with pytest.raises(ValueError, match="read-only"):
            second.images[0] = 0
        assert [path.suffix for path in (own_cache / "decoded").glob("*.npy")] == [".npy"]

    def test_validation_images_and_notes_are_cached(self, tmp_path: Path) -> None:
        content = [image_bytes(i) for i in range(50)]
        files = {
            f"{split}/{name}/{i}.png": content[i % 50]
            for split, count in (("train", 1500), ("dev", 500), ("test", 500))
            for name in ("cat", "dog")
            for i in range(count)
        }
        first, _ = self.load(write_zip(tmp_path / "large.zip", files))
        second, again = self.load(tmp_path / "large.zip")
        assert again == 0
        assert second.is_validation.sum() == 1000
        assert (first.fingerprint, first.notes) == (second.fingerprint, second.notes)
        assert "validation 'dev'" in second.notes[0]

    def test_entry_of_an_older_version_is_decoded_again(self, large: Path, own_cache: Path) -> None:
        """An entry without validation images and notes, under the key that is used now."""
        first, _ = self.load(large)
        (entry,) = (own_cache / "decoded").glob("*.npy")
        with entry.open("wb") as file:
            for array in (first.images, first.labels, first.is_test):
                np.save(file, array)
            about = {
                "class_names": first.class_names,
                "sources": first.sources,
                "fingerprint": first.fingerprint,
            }
            np.save(file, np.frombuffer(json.dumps(about).encode(), np.uint8))
        second, reading = self.load(large)
        assert reading > 0
        assert first.notes == second.notes

    def test_changed_archive_is_decoded_again(self, large: Path) -> None:
        self.load(large)
        write_zip(large, {f"{name}_{i}.png": image_bytes(i % 9) for name in "ab" for i in range(2_500)})
        dataset, reading = self.load(large)
        assert reading > 0
        assert dataset.class_names == ("a", "b")

    def test_changed_file_in_folder_is_decoded_again(self, tmp_path: Path) -> None:
        root = write_folder(
            tmp_path / "x", {f"{n}_{i}.png": image_bytes(1) for n in "ab" for i in range(2_500)}
        )
        before, _ = self.load(root)
        assert self.load(root)[1] == 0
        changed = root / "a_7.png"
        written_ns = changed.stat().st_mtime_ns
        changed.write_bytes(image_bytes(2))
        os.utime(changed, ns=(written_ns + 10**9, written_ns + 10**9))
        after, reading = self.load(root)
        assert reading > 0
        assert before.fingerprint != after.fingerprint

    @pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "pickle"])
    def test_damaged_entry_is_replaced(self, large: Path, own_cache: Path, damage: str) -> None:
        first, _ = self.load(large)
        (entry,) = (own_cache / "decoded").glob("*.npy")
        content = bytearray(entry.read_bytes())
        if damage == "flip":
            content[len(content) // 2] ^= 1
        elif damage == "truncate":
            del content[len(content) // 2 :]
        else:
            content[:] = b"" if damage == "empty" else b"\x80\x04cos\nsystem\n."
        entry.write_bytes(content)
        second, reading = self.load(large)
        assert reading > 0
        assert first.fingerprint == second.fingerprint
        assert self.load(large)[1] == 0, "the entry is valid again"

    def test_unwritable_cache_is_ignored(
        self, large: Path, own_cache: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (own_cache / "decoded").write_bytes(b"a file where the folder should be")
        assert len(self.load(large)[0]) == 5_000
        assert "not cached" in caplog.text

    def test_cache_locked_by_another_process_is_ignored(
        self, large: Path, own_cache: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = own_cache / "decoded"
        folder.mkdir()
        with FileLock(folder / "lock"):
            (folder / "being-written").write_bytes(b"by the other")
            assert len(self.load(large)[0]) == 5_000
            assert (folder / "being-written").read_bytes() == b"by the other"
        assert "not cached" in caplog.text

    def test_full_disk_is_ignored(
        self, large: Path, own_cache: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))  # makes writes fail like a full disk
        try:
            assert len(self.load(large)[0]) == 5_000
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "not cached" in caplog.text
        assert [path.name for path in (own_cache / "decoded").iterdir()] == ["lock"]

    def test_interrupted_load_leaves_no_entry(self, large: Path, own_cache: Path) -> None:
        def interrupt(_: Progress) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            load_dataset(large, on_progress=interrupt)
        assert [path.name for path in (own_cache / "decoded").iterdir()] == ["lock"]

    def test_bad_images_are_not_cached(self, tmp_path: Path) -> None:
        files = {f"{n}_{i}.png": image_bytes(1) for n in "ab" for i in range(2_500)} | {"a_0.png": b""}
        path = write_zip(tmp_path / "x.zip", files)
        assert len(load_dataset(path, skip_bad=True)) == 4_999
        with pytest.raises(ImageError, match="a_0"):
            load_dataset(path)


class TestCheck:
    """Data checks."""

    def test_source_without_problems(self, tmp_path: Path) -> None:
        found = check_source(write_zip(tmp_path / "x.zip", flat(20)))
        assert found.problems == found.warnings == ()
        assert found.sizes == (((32, 32), 40),)
        assert [tuple(count) for count in found.classes] == [("cat", 18, 2), ("dog", 18, 2)]

    def test_leaks_conflicts_duplicates_and_bad_files(self, tmp_path: Path) -> None:
        files = flat(20)
        files["cat_2.png"] = files["cat_1.png"]  # duplicate in train
        files["cat_20.png"] = files["cat_3.png"]  # leak from train to test
        files["dog_5.png"] = files["cat_5.png"]  # conflicting labels
        files["dog_6.png"] = b"?"
        files["dog_7.jpg"] = image_bytes(7, "JPEG", (60, 20))
        found = check_source(write_folder(tmp_path / "x", files))
        assert {frozenset(group) for group in found.duplicates} == {frozenset({"cat_1.png", "cat_2.png"})}
        assert {frozenset(group) for group in found.leaks} == {frozenset({"cat_20.png", "cat_3.png"})}
        assert {frozenset(group) for group in found.conflicts} == {frozenset({"cat_5.png", "dog_5.png"})}
        assert [image.name for image in found.unreadable] == ["dog_6.png"]
        assert found.sizes == (((32, 32), 39), ((60, 20), 1))
        assert len(found.problems) == 3
        assert found.warnings == ("1 image is duplicated",)

    def test_duplicates_are_compared_by_pixels(self, tmp_path: Path) -> None:
        files = flat(20)
        files["cat_20.bmp"] = image_bytes(2, "BMP")  # the pixels of cat_3.png in another format
        del files["cat_20.png"]
        assert len(check_source(write_folder(tmp_path / "x", files)).leaks) == 1

    def test_missing_classes_and_imbalance(self, tmp_path: Path) -> None:
        names = [f"train/cat/{i}.png" for i in range(30)] + [f"train/dog/{i}.png" for i in range(2)]
        names += ["test/cat/x.png", "test/emu/y.png", "test/emu/z.png"]
        found = check_source(write_folder(tmp_path / "x", image_contents(names)))
        assert "class 'emu' has no training images" in found.problems
        assert "class 'dog' has no test images" in found.problems
        assert "'cat' has 30" in found.warnings[0]

    def test_classes_that_differ_only_in_case(self, tmp_path: Path, container: str) -> None:
        files = image_contents(f"{name}/{i}.png" for name in ("Cat", "cat", "dog") for i in range(10))
        found = check_source(write(tmp_path, container, files))
        assert found.problems == ("class names that differ only in case: 'Cat', 'cat'",)

    def test_notes(self, tmp_path: Path) -> None:
        names = [f"{split}/{name}/{i}.png" for split in ("train", "val") for name in "ab" for i in range(3)]
        found = check_source(write_folder(tmp_path / "x", image_contents(names)))
        assert found.to_json()["notes"] == found.dataset.notes
        assert "test 'val'" in found.dataset.notes[0]

    def test_drawings_have_no_problems(self, drawn: Dataset) -> None:
        assert check_dataset(drawn).problems == ()


def test_real_images(real_data: Path) -> None:
    small = load_dataset(real_data / "2000pics_cifar10.zip")
    assert len(small.train) == 1800
    assert small.test.class_counts().tolist() == [20] * 10
    large = load_dataset(real_data / "cifar10-images.zip")
    assert large.train.class_counts().tolist() == [5000] * 10
    assert large.test.class_counts().tolist() == [1000] * 10
    assert check_dataset(small).unreadable == check_dataset(large).unreadable == ()
    # As before names of splits were recognized and test sets drawn.
    assert small.fingerprint.startswith("6cb1c047e7cd3895")
    assert large.fingerprint.startswith("b3f31870d419cfa0")


def test_real_photos_keep_their_own_split(real_data: Path) -> None:
    clothing = load_dataset(real_data / "clothing-photos.zip")
    assert [len(part) for part in clothing.split()] == [3068, 341, 372]
    assert "training 'train'; validation 'validation'; test 'test'" in clothing.notes[0]
    assert len(clothing.split(validation_fraction=0).validation) == 0
    assert clothing.subset(200).split().validation.class_counts().min() > 0
