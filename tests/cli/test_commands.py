"""Command line in real processes: exit codes, messages, JSON."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarml import Run
from tests.conftest import CommandLine, in_folder
from tests.image_files import flat, image_bytes, write_folder, write_tar, write_zip
from tests.processes import CLI, run_new


@pytest.fixture
def installed(tmp_path: Path) -> CommandLine:
    """Run the installed command as a shell does."""
    return in_folder(run_new, tmp_path)


def test_version_and_help(installed: CommandLine) -> None:
    assert installed("--version").stdout.startswith("cifarml 0.")
    shown = installed("train", "--help")
    assert shown.returncode == 0
    assert "Examples" in shown.stdout
    assert installed().returncode == 2, "no command is wrong usage and shows the help"


@pytest.mark.parametrize(
    "arguments",
    [["predic"], ["train", "--epochs", "many"], ["predict"], ["data", "show"], ["train", "--nothing"],
     ["predict", "x.png", "--top", "0"], ["evaluate", "x", "--split", "none"]],
)  # fmt: skip
def test_wrong_usage_exits_with_2(installed: CommandLine, arguments: list[str]) -> None:
    done = installed(*arguments)
    assert done.returncode == 2
    assert "Error" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["predict", "x.png"], "no trained model", "cifarml train"),
        (["predict", "x.png", "--run", "none"], "no run 'none'", "cifarml runs list"),
        (["evaluate", "none"], "no run 'none'", "cifarml runs list"),
        (["train", "--data", "none"], "no such folder or archive: none", "drawn"),
        (["train", "--data", "drawn:100", "--epochs", "0"], "num_epochs", "passes over"),
        (["train", "--data", "drawn:100", "--name", "../x"], "plain folder name", ""),
        (["train", "--data", "drawn:100", "--preset", "none"], "preset", "tutorial"),
        (["train"], "can't fetch", "resumes"),
        (["train", "--data", "drawn:100", "--subset", "5000"], "needs", "--subset"),
        (["data", "show", "drawn:1"], "20", ""),
        (["runs", "show"], "no trained model", "cifarml train"),
    ],
)
def test_errors_exit_with_1_and_print_a_hint(
    cifarml: CommandLine, tmp_path: Path, arguments: list[str], message: str, hint: str
) -> None:
    done = cifarml(*arguments)
    assert done.returncode == 1
    assert not done.stdout
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("drawing: ")]
    error, *rest = lines
    assert error.startswith("Error: ")
    assert message in error
    assert hint in "\n".join(rest)
    assert not (tmp_path / "runs").exists()


def test_debug_shows_the_traceback(installed: CommandLine) -> None:
    assert "Traceback" in installed("runs", "show", env={"CIFARML_DEBUG": "1"}).stderr
    assert "Traceback" not in installed("runs", "show", env={"CIFARML_DEBUG": "0"}).stderr


def test_error_names_invalid_setting(installed: CommandLine) -> None:
    done = installed("train", env={"CIFARML_CIFAR10_URL": "not a url"})
    assert done.returncode == 1
    assert "CIFARML_CIFAR10_URL" in done.stderr


def test_train_list_show_predict_evaluate(
    installed: CommandLine, cifarml: CommandLine, tmp_path: Path
) -> None:
    """Each command prints text and JSON."""
    trained = installed("train", "--data", "drawn:100", "--epochs", 1, "--name", "first", "--json")
    assert trained.returncode == 0, trained.stderr
    document = json.loads(trained.stdout)
    assert document["run"] == "first"
    assert Path(document["path"]) == tmp_path / "runs" / "first"
    assert "fast: 1 epoch of " in trained.stderr
    assert "epoch 1/1" in trained.stderr
    assert "tensorflow" not in trained.stderr.lower(), "TensorFlow's startup messages are hidden"
    assert "\x1b" not in trained.stderr, "no escape codes without a terminal"

    (listed,) = json.loads(cifarml("runs", "list", "--json").stdout)
    assert (listed["name"], listed["state"]) == ("first", "finished")
    assert "first" in cifarml("runs", "list").stdout
    shown = json.loads(cifarml("runs", "show", "--json").stdout)
    assert shown["config"]["num_epochs"] == 1
    assert shown["metrics"]["test"]["num_images"] == 10
    output = cifarml("runs", "show", "first").stdout
    assert "Accuracy" in output
    assert "runs/first/report.html   (open it with a browser)" in output

    (tmp_path / "image.png").write_bytes(image_bytes())
    one = cifarml("predict", "image.png")
    assert one.returncode == 0
    assert one.stdout.count("%") == 3
    (prediction,) = json.loads(cifarml("predict", "image.png", "--top", 2, "--json").stdout)
    assert prediction["path"] == "image.png"
    assert len(prediction["probabilities"]) == 2
    assert f"{prediction['label']} {prediction['probability']:.1%}" in one.stdout

    evaluated = cifarml("evaluate", "first", "--data", "drawn:60:5", "--split", "all", "--json", "-o", "out")
    assert json.loads(evaluated.stdout)["num_images"] == 60
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"confusion_matrix.png", "predictions.png"}
    assert "Accuracy" in cifarml("evaluate", "latest", "--data", "drawn:60:5").stdout

    again = cifarml("train", "--data", "drawn:100", "--epochs", 1, "--name", "first")
    assert again.returncode == 1
    assert "already exists" in again.stderr


def test_predict_folder(cifarml: CommandLine, trained: Run, tmp_path: Path) -> None:
    files = {f"sub/{i}.png": image_bytes(i) for i in range(300)} | {"sub/bad.png": b"?", "sub/notes.txt": b""}
    write_folder(tmp_path / "many", files)
    done = cifarml("predict", "many", "--run", trained.path)
    assert done.returncode == 1, "one file is not an image"
    assert len(done.stdout.splitlines()) == 300
    assert "bad.png: not a PNG" in done.stderr
    documents = json.loads(cifarml("predict", "many", "--run", trained.path, "--json").stdout)
    assert len(documents) == 301
    assert sum("error" in document for document in documents) == 1
    (tmp_path / "empty").mkdir()
    assert "no images in empty" in cifarml("predict", "empty", "--run", trained.path).stderr
    assert "no file gone.png" in cifarml("predict", "gone.png", "--run", trained.path).stderr


def test_predict_states_how_12_bit_images_are_scaled(
    cifarml: CommandLine, trained: Run, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(3).integers(0, 4096, (32, 32), np.uint16)
    for name in ("scan.png", "scan.tiff"):
        Image.fromarray(pixels).save(tmp_path / name)
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(tmp_path / "photo.png")
    done = cifarml("predict", "scan.png", "scan.tiff", "photo.png", "--run", trained.path)
    assert done.returncode == 0, done.stderr
    assert "2 images have 12 bits per channel, scaled from 0..4,095 to 0..255" in done.stderr


def test_unread_images_are_reported_everywhere(cifarml: CommandLine, trained: Run, tmp_path: Path) -> None:
    """17 of 20 photos in a format that can't be read must not vanish without a word."""
    raw = {f"{name}/{i}.cr3": b"\0\0\0\x18ftypcrx " + bytes(40) for name in ("cat", "dog") for i in range(17)}
    photos = {f"{name}/{i}.png": image_bytes(i + ord(name[0])) for name in ("cat", "dog") for i in range(3)}
    root = write_folder(tmp_path / "photos", raw | photos)
    (root / "cat" / "gone.png").symlink_to("nowhere")
    (tmp_path / "narrow.toml").write_text("widths = [8]")
    train = cifarml("train", "--data", "photos", "--epochs", 1, "--config", "narrow.toml", "--json")
    assert "34 camera raw images not read, such as 'cat/0.cr3'" in train.stderr
    counts = [("camera raw image", 34), ("broken link", 1)]
    assert [(each["kind"], each["count"]) for each in json.loads(train.stdout)["ignored"]] == counts
    check = cifarml("data", "check", "photos")
    assert check.returncode == 1
    assert "34 camera raw images not read" in check.stdout
    found = json.loads(cifarml("data", "check", "photos", "--json").stdout)
    assert [(each["kind"], each["count"]) for each in found["ignored"]] == counts
    done = cifarml("predict", "photos", "--run", trained.path)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 6
    assert "35 of 41 images have no prediction: 34: camera raw image" in done.stderr
    documents = json.loads(cifarml("predict", "photos", "--run", trained.path, "--json").stdout)
    assert len(documents) == 41
    assert sum("camera raw image" in str(document.get("error")) for document in documents) == 34
    assert "not read" in cifarml("data", "show", "photos").stderr


def test_data_show(cifarml: CommandLine, tmp_path: Path) -> None:
    done = cifarml("data", "show", "drawn:200", "-o", "deep/grid.png")
    assert done.returncode == 0
    assert "deep/grid.png" in done.stdout
    with Image.open(tmp_path / "deep" / "grid.png") as image:
        assert min(image.size) > 800


def test_data_check(cifarml: CommandLine, tmp_path: Path) -> None:
    write_zip(tmp_path / "good.zip", flat(20))
    good = cifarml("data", "check", "good.zip")
    assert good.returncode == 0
    assert "No problems found." in good.stdout
    write_zip(tmp_path / "bad.zip", flat(20) | {"cat_3.png": b"", "dog_20.png": image_bytes(0)})
    bad = cifarml("data", "check", "bad.zip")
    assert bad.returncode == 1
    assert "cat_3.png: the file is empty" in bad.stdout
    assert "Problems: " in bad.stdout
    found = json.loads(cifarml("data", "check", "bad.zip", "--json").stdout)
    assert found["leaks"] == found["conflicts"] == [["cat_1.png", "dog_20.png"]]


def test_skip_bad(cifarml: CommandLine, tmp_path: Path) -> None:
    write_zip(tmp_path / "x.zip", flat(20) | {"cat_3.png": b""})
    (tmp_path / "narrow.toml").write_text("widths = [8]")
    failed = cifarml("train", "--data", "x.zip", "--epochs", 1)
    assert failed.returncode == 1
    assert "cat_3.png" in failed.stderr
    done = cifarml("train", "--data", "x.zip", "--epochs", 1, "--config", "narrow.toml", "--skip-bad")
    assert done.returncode == 0
    assert "skipped cat_3.png" in done.stderr
    report = next(line for line in done.stdout.splitlines() if line.startswith("Report:")).split()[1]
    assert "cat_3.png" in (tmp_path / report).read_text(encoding="utf-8")


def test_data_unzip(cifarml: CommandLine, tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar.gz", flat(3))
    assert cifarml("data", "unzip", "x.tar.gz", "images").returncode == 0
    assert len(list((tmp_path / "images").iterdir())) == 6
    again = cifarml("data", "unzip", "x.tar.gz", "images")
    assert again.returncode == 1
    assert "already exists" in again.stderr


def test_special_characters_in_class_names_are_printed(installed: CommandLine, tmp_path: Path) -> None:
    classes = ["[red]no markup", "猫", "$x_1$", "%s %d {}"]
    write_folder(tmp_path / "x", {f"{name}/{i}.png": image_bytes(i) for name in classes for i in range(20)})
    done = installed("data", "check", "x")
    assert all(name in done.stdout for name in classes)
    for encoding in ("ascii", "utf-8"):
        assert installed("data", "check", "x", env={"PYTHONIOENCODING": encoding}).returncode == 1
    assert installed("data", "show", "x").returncode == 0


def test_progress_bar_in_a_terminal(tmp_path: Path) -> None:
    """The bar is drawn on standard error, so that redirected output stays valid JSON."""
    primary, secondary = pty.openpty()
    command = [CLI, "data", "show", "drawn:400", "--json"]
    with (tmp_path / "out.json").open("wb") as out:
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=out, stderr=secondary, env=os.environ | {"TERM": "xterm"}
        )
        os.close(secondary)
        drawn = b""
        try:
            while block := os.read(primary, 65536):
                drawn += block
        except OSError:  # the terminal closes with the process
            pass
        finally:
            os.close(primary)
        assert process.wait() == 0
    assert "━".encode() in drawn
    assert json.loads((tmp_path / "out.json").read_text())["num_images"] == 400


def test_closed_pipe_is_not_an_error(cifarml: CommandLine, trained: Run, tmp_path: Path) -> None:
    write_folder(tmp_path / "many", {f"{i}.png": image_bytes(i) for i in range(200)})
    done = subprocess.run(
        f"{CLI} predict many --run {trained.path} | head -1",
        shell=True, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def endpoint_names(cifarml: CommandLine) -> list[str]:
    return [each["name"] for each in json.loads(cifarml("endpoint", "list", "--json").stdout)]


def test_quickstart_without_network_uses_synthetic_images(cifarml: CommandLine, tmp_path: Path) -> None:
    done = cifarml("quickstart", "--epochs", 1, "--keep")
    assert done.returncode == 0, done.stderr
    assert "synthetic drawings instead of photographs" in done.stdout
    assert (tmp_path / "quickstart" / "images.png").exists()
    assert "quickstart/ship.png" in done.stdout
    _, run = sorted((tmp_path / "quickstart" / "runs").iterdir())
    Run.open(run).verify()
    for line in done.stdout.splitlines():
        if line.endswith(".png"):
            assert (tmp_path / line.split()[-1]).exists()
    again = cifarml("predict", "quickstart/ship.png", "--runs-dir", "quickstart/runs")
    assert again.returncode == 0
    assert endpoint_names(cifarml) == ["quickstart"]
    predicted = cifarml("predict", "quickstart/ship.png", "--endpoint", "quickstart")
    assert predicted.stdout.strip() in done.stdout
    assert cifarml("endpoint", "delete", "quickstart").returncode == 0
    assert endpoint_names(cifarml) == []


def test_source_as_an_argument(cifarml: CommandLine, tmp_path: Path, trained: Run) -> None:
    write_folder(tmp_path / "photos", {"a/x.png": image_bytes(1), "b/x.png": image_bytes(2)})
    for command in (["train", "photos/"], ["tune", "photos/"]):
        done = cifarml(*command)
        assert "photos" in done.stderr
        assert "unexpected" not in done.stderr
        assert done.returncode == 1, "too few images"
    done = cifarml("evaluate", trained.path, "drawn:40", "--json", "--quiet")
    assert json.loads(done.stdout)["data"].startswith("drawn:40")
    both = cifarml("train", "photos/", "--data", "drawn:40")
    assert both.returncode == 1
    assert "cannot be combined with --data. Received: photos/ --data drawn:40" in both.stderr
    resumed = cifarml("train", "photos/", "--resume", "none")
    assert "no run 'none'" in resumed.stderr
