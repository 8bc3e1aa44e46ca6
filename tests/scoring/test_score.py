"""Tests of the scoring script: responses, errors, schema and startup."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from pathlib import Path

import jsonschema
import pytest
from fastapi import FastAPI
from PIL import Image

from cifarml.errors import ImageError, ModelFileError, RequestError
from cifarml.scoring import score
from cifarml.scoring.api_schema import (
    SCORE_REQUEST,
    SCORE_RESPONSES,
    ErrorAnswer,
    ImageAnswer,
    ImagesAnswer,
)
from cifarml.scoring.request import CODES
from tests.goldens import JSON, Golden, asked, colour_run, encoded, goldens, plain

GOLDENS = goldens()
NAMES = [golden.name for golden in GOLDENS]
NOT_IN_GOLDENS = {
    "out_of_memory", "wrong_method", "broken_body", "model_failed", "wrong_content_encoding",
}  # fmt: skip
"""Error codes that have tests of their own instead of a golden."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the goldens, in the folder layout of Azure ML."""
    return colour_run(tmp_path_factory.mktemp("azureml-models") / "cifar10" / "3").path


@pytest.fixture
def serving(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(score.MODEL_DIR, str(model))
    score.init()


# Responses


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("golden", GOLDENS, ids=NAMES)
def test_goldens(golden: Golden) -> None:
    ((status, content),) = score.answer([(golden.content_type, golden.body)])
    golden.check(status, content)


@pytest.mark.parametrize("golden", GOLDENS, ids=NAMES)
def test_goldens_match_their_names(golden: Golden) -> None:
    code = golden.name.partition(":")[0]
    if code == "ok":
        assert golden.status == 200
    else:
        assert golden.status == CODES[code][0]
        assert golden.answer["error"]["code"] == code


def test_every_code_has_a_golden() -> None:
    assert {golden.name.partition(":")[0] for golden in GOLDENS} == {"ok", *CODES} - NOT_IN_GOLDENS


def test_batch_gives_the_same_responses(serving: None) -> None:
    """In a batch of valid and invalid requests, none affects the response to another."""
    answers = score.answer([(golden.content_type, golden.body) for golden in GOLDENS])
    for golden, (status, content) in zip(GOLDENS, answers, strict=True):
        golden.check(status, content)
    assert score.answer([]) == []


def test_list_keeps_its_order(serving: None) -> None:
    names = ["ship", "frog", "deer", "truck"]
    ((_, content),) = score.answer([(JSON, asked(images=[encoded(plain(name)) for name in names]))])
    assert [entry["result"] for entry in json.loads(content)["predictions"]] == names


def test_errors_do_not_quote_the_request(serving: None) -> None:
    secret = "geheim"
    for content_type, body in (
        (JSON, asked(imagebase64=secret + "!")),
        (JSON, asked(imagebase64=encoded(secret.encode() * 9))),
        (JSON, secret.encode()),
        (JSON, asked(**{secret: secret})),
        (JSON, asked(images=[{secret: secret}])),
        ("image/png", secret.encode()),
        ("image/png", b"\x89PNG\r\n\x1a\n" + secret.encode() * 9),
        (f"text/{secret}", secret.encode()),
    ):
        ((status, content),) = score.answer([(content_type, body)])
        assert 400 <= status < 500
        assert secret.encode() not in content
        assert encoded(secret.encode())[:6].encode() not in content


def test_run_accepts_json_text(serving: None) -> None:
    text = asked(imagebase64=encoded(plain("ship"))).decode()
    assert score.run(text)["result"] == score.run(text.encode())["result"] == "ship"
    assert score.run("{}")["error"]["code"] == "wrong_fields"
    assert score.run("\ud800")["error"]["code"] == "not_json"


# Schema


@pytest.mark.parametrize("golden", GOLDENS, ids=NAMES)
def test_responses_match_the_models(golden: Golden) -> None:
    content = json.dumps(golden.answer)
    assert golden.status in SCORE_RESPONSES
    if golden.status != 200:
        ErrorAnswer.model_validate_json(content)
    elif "predictions" in golden.answer:
        answer = ImagesAnswer.model_validate_json(content)
        assert len(answer.predictions) == len(json.loads(golden.body)["images"])
    else:
        ImageAnswer.model_validate_json(content)


@pytest.mark.parametrize(
    "golden",
    [golden for golden in GOLDENS if golden.name.startswith(("ok", "wrong_fields", "too_many_images"))],
)
def test_request_schema_accepts_only_valid_requests(golden: Golden) -> None:
    contents = SCORE_REQUEST["requestBody"]["content"]
    kind = golden.content_type.partition(";")[0].lower() or JSON
    if kind != JSON:
        assert kind in contents
    else:
        validator = jsonschema.Draft202012Validator(contents[JSON]["schema"])
        assert validator.is_valid(json.loads(golden.body.decode("utf-8-sig"))) == golden.name.startswith("ok")


def test_responses_match_the_openapi_document() -> None:
    app = FastAPI()

    @app.post("/score", openapi_extra=SCORE_REQUEST, responses=SCORE_RESPONSES, response_model=None)
    async def _() -> None: ...

    document = app.openapi()
    assert set(document["paths"]["/score"]["post"]["requestBody"]["content"]) > {JSON, "image/png"}
    for golden in GOLDENS:
        schema = document["paths"]["/score"]["post"]["responses"][str(golden.status)]["content"][JSON][
            "schema"
        ]
        jsonschema.validate(golden.answer, schema | {"components": document["components"]})


@pytest.mark.parametrize(
    "change",
    [
        {"result": "frog"},
        {"probability": 0.5},
        {"probabilities": {"ship": 0.4, "frog": 0.6}},
        {"probabilities": {"ship": 0.9, "frog": 0.6}},
        {"model": None},
        {"more": 1},
    ],
)
def test_models_reject_invalid_responses(change: dict[str, object]) -> None:
    answer = {
        "result": "ship",
        "probability": 0.9,
        "probabilities": {"ship": 0.9, "frog": 0.1},
        "model": {"name": "cifar10", "version": "3"},
    }
    ImageAnswer.model_validate_json(json.dumps(answer))
    with pytest.raises(ValueError, match="validation error"):
        ImageAnswer.model_validate_json(json.dumps(answer | change))
    with pytest.raises(ValueError, match="unknown error code"):
        ErrorAnswer.model_validate({"error": {"code": "odd", "message": ""}})


# Startup


def test_run_in_a_subfolder_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure ML keeps the folder name of a model that was registered as a folder."""
    colour_run(tmp_path / "sketch" / "12" / "2026-11-23_12-00-00_tutorial")
    monkeypatch.setenv(score.MODEL_DIR, f"{tmp_path}/sketch/12/")
    score.init()
    ((_, content),) = score.answer([("image/png", plain("ship"))])
    assert json.loads(content)["model"] == {"name": "sketch", "version": "12"}


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (shutil.rmtree, "the model folder .* does not exist"),
        (lambda path: flip(path / "model.onnx"), "model.onnx was changed after training"),
        (lambda path: (path / "model.onnx").unlink(), "can't read .*model.onnx"),
        (lambda path: (path / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda path: (path / "manifest.json").unlink(), "must contain manifest.json, or exactly one folder"),
        (lambda path: (path / "model.pkl").touch(), "'model.pkl' is not allowed"),
        (lambda path: [(path / "a").mkdir(), (path / "b").mkdir()], "'[ab]' is not allowed"),
    ],
)
def test_damaged_model_fails_at_startup_with_one_log_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    serving: None,
    change: object,
    reason: str,
) -> None:
    path = colour_run(tmp_path / "cifar10" / "4").path
    assert callable(change)
    change(path)
    monkeypatch.setenv(score.MODEL_DIR, str(path))
    with pytest.raises(ModelFileError, match=reason):
        score.init()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "\n" not in record.getMessage()
    with pytest.raises(RuntimeError, match="init"):  # the previous model is unloaded, too
        score.answer([])


@pytest.mark.parametrize("value", [None, "", "/"])
def test_missing_model_folder(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv(score.MODEL_DIR, raising=False)
    if value is not None:
        monkeypatch.setenv(score.MODEL_DIR, value)
    with pytest.raises(ModelFileError, match=score.MODEL_DIR):
        score.init()


@pytest.mark.parametrize("flaw", ["nan", "crash"])
def test_failing_model_affects_only_its_own_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, flaw: str
) -> None:
    monkeypatch.setenv(score.MODEL_DIR, str(colour_run(tmp_path / "cifar10" / "5", flaw=flaw).path))
    score.init()
    blank = Image.new("RGB", (32, 32), "white")
    blank.save(tmp_path / "white.png")
    white = (tmp_path / "white.png").read_bytes()
    wrong, failed, in_list = score.answer(
        [(JSON, b"{}"), ("image/png", white), (JSON, asked(images=[encoded(white)]))]
    )
    assert wrong[0] == 400
    for status, content in (failed, in_list):
        assert status == 500
        assert ErrorAnswer.model_validate_json(content).error.code == "model_failed"
        assert b"Traceback" not in content
    assert "Traceback" in caplog.text
    assert score.answer([("image/png", plain("ship"))])[0][0] == 200


def test_broken_model_fails_at_startup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(score.MODEL_DIR, str(colour_run(tmp_path / "m" / "1", flaw="always nan").path))
    with pytest.raises(ModelFileError, match="failed on a test image"):
        score.init()


def test_errors_can_be_pickled() -> None:
    for error in (ImageError("odd", code="not_an_image"), RequestError("not_json", "odd")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), copy.code, copy.message) == (type(error), error.code, "odd")
