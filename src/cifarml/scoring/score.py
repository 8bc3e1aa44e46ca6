"""Scoring script of a deployment, the same in Azure ML and on this machine.

Azure ML's inference server loads this file by its path, calls :func:`init` once in each process and
:func:`run` for each request; our own server calls :func:`answer` with several requests at a time.
numpy, Pillow and ONNX Runtime are all that it needs.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

if not __package__:  # loaded by its path: what it imports lies around it
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from PIL import Image

from cifarml.errors import ImageError, ModelFileError, RequestError
from cifarml.predict import Prediction, Predictor
from cifarml.run import MANIFEST, Run
from cifarml.scoring.request import CODES, MAX_BODY_BYTES, Request, read_request

try:  # in Azure ML's image, and nowhere else
    from azureml_inference_server_http.api.aml_request import rawhttp
    from azureml_inference_server_http.api.aml_response import AMLResponse
except ImportError:
    AMLResponse = rawhttp = None

MODEL_DIR: Final = "AZUREML_MODEL_DIR"
"""The variable that names the folder of the model: ``.../<name>/<version>``."""

_MAX_PASSED_BYTES: Final = 10 * MAX_BODY_BYTES

_NUM_THREADS: Final = 2
"""An image is answered a third quicker than with one; more than that gain little on images of 32x32."""

_log = logging.getLogger("cifarml.score")


class _Served(NamedTuple):
    predictor: Predictor
    model: dict[str, str]


_served: _Served | None = None


def init() -> None:
    """Load the model in the folder AZUREML_MODEL_DIR, or in the one folder in it.

    Its name and version are those of the path, ``.../<name>/<version>``.

    Raises:
        ModelFileError: If it is missing, damaged, or can't answer; the log says so in one line.
    """
    global _served  # noqa: PLW0603  # Azure ML's server calls functions of a module
    try:
        _served = None
        path = Path(os.environ.get(MODEL_DIR, "")).absolute()
        predictor = Run.open(_find_run(path)).predictor(num_threads=_NUM_THREADS)
        _served = _Served(predictor, {"name": path.parent.name, "version": path.name})
        _warm_up()
    except (ModelFileError, OSError) as error:
        _served = None
        _log.error("the model can't be served: %s", error)  # one line, not a traceback
        raise ModelFileError(str(error)) from None
    _log.info("serving %s:%s", *_served.model.values())


def _find_run(path: Path) -> Path:
    if not os.environ.get(MODEL_DIR):
        raise ModelFileError(f"{MODEL_DIR} is not set; it names the folder of the model")
    if not path.is_dir():
        raise ModelFileError(f"there is no model folder {path}")
    if not path.parent.name:
        raise ModelFileError(f"{MODEL_DIR} must end in the model's name and version. Received: {path}")
    if (path / MANIFEST).exists():
        return path
    folders = [entry for entry in path.iterdir() if entry.is_dir()]
    if len(folders) != 1:
        raise ModelFileError(f"{path} holds neither a {MANIFEST} nor one folder with one")
    return folders[0]


def _warm_up() -> None:
    """Answer once, so that the first request finds all loaded, and a model that can't is found now."""
    Image.init()  # Pillow loads most of its decoders when it first sees something strange
    file = io.BytesIO()
    Image.new("RGB", (40, 40), "gray").save(file, "PNG")
    ((status, body),) = answer([("image/png", file.getvalue())])
    if status != 200:
        raise ModelFileError(f"the model can't answer: {json.loads(body)['error']['message']}")


def answer(requests: Sequence[tuple[str, bytes]]) -> list[tuple[int, bytes]]:
    """Answer several requests at once; an invalid one does not affect the others.

    Args:
        requests: The content type and body of each.

    Returns:
        The HTTP status and JSON body of each answer, in order.
    """
    if _served is None:
        raise RuntimeError("init() comes first")
    asked = [_try_read(*request) for request in requests]
    valid = [request for request in asked if isinstance(request, Request)]
    images = [image for request in valid for image in request.images if isinstance(image, bytes)]
    try:
        results = iter(_predict(_served.predictor, images))
    except Exception:  # noqa: BLE001  # ONNX Runtime's exceptions have no common base
        _log.exception("the model failed")
        asked = [request if isinstance(request, RequestError) else _model_failed() for request in asked]
        results = iter(())
    return [_answer_one(request, results, _served.model) for request in asked]


def _try_read(content_type: str, body: bytes) -> Request | RequestError:
    try:
        return read_request(content_type, body)
    except RequestError as error:
        return error


def _predict(predictor: Predictor, images: Sequence[bytes]) -> list[Prediction | RequestError]:
    return [
        # The message of the error itself may show what was sent.
        RequestError(result.code, CODES[result.code][1]) if isinstance(result, ImageError) else result
        for result in predictor.predict_many(images)
    ]


def _answer_one(
    request: Request | RequestError, results: Iterator[Prediction | RequestError], model: dict[str, str]
) -> tuple[int, bytes]:
    """Answer a request, taking as many results as it has images to look at."""
    if isinstance(request, RequestError):
        return _refuse(request)
    answers = [next(results) if isinstance(image, bytes) else image for image in request.images]
    if not request.is_list and isinstance(answers[0], RequestError):
        return _refuse(answers[0])
    entries = [_to_entry(answer) for answer in answers]
    content = {"predictions": entries} if request.is_list else entries[0]
    try:
        return 200, _to_json(content | {"model": model})
    except ValueError:  # not a number is no JSON
        _log.exception("the model gave no probabilities")
        return _refuse(_model_failed())


def _to_entry(answer: Prediction | RequestError) -> dict[str, Any]:
    if isinstance(answer, RequestError):
        return {"error": {"code": answer.code, "message": answer.message}}
    return {
        "result": answer.label,
        "probability": answer.probability,
        "probabilities": answer.probabilities,
    }


def _model_failed() -> RequestError:
    return RequestError("model_failed", CODES["model_failed"][1])


def _refuse(error: RequestError) -> tuple[int, bytes]:
    return CODES[error.code][0], _to_json(_to_entry(error))


def _to_json(content: dict[str, Any]) -> bytes:
    return _encode(content).encode()


_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def run(request: Any) -> Any:
    """Answer one request.

    Args:
        request: Azure ML's ``AMLRequest``, or the JSON of a request in a plain call.

    Returns:
        An ``AMLResponse``, or in a plain call the values of the answer.
    """
    if isinstance(request, str | bytes):
        body = request.encode(errors="surrogatepass") if isinstance(request, str) else request
        return json.loads(answer([("application/json", body)])[0][1])
    if request.method == "OPTIONS":  # a browser asks whether it may; the server adds what it may
        return AMLResponse("", 200)
    try:
        if request.method != "POST":
            raise RequestError("wrong_method", "this address only takes POST")
        asked = (request.content_type or "", _read_body(request.stream))
    except RequestError as error:
        status, content = _refuse(error)
    else:
        status, content = answer([asked])[0]
    return AMLResponse(content, status, {"Content-Type": "application/json"})


if rawhttp is not None:
    rawhttp(run)  # the server gives it the request as it came: images, too, and what is no JSON


def _read_body(stream: BinaryIO) -> bytes:
    """Read a body; drain one that is too large, so that the client reads the error response."""
    parts, size_bytes = [], 0
    try:
        while size_bytes < _MAX_PASSED_BYTES and (part := stream.read(2**20)):
            if size_bytes <= MAX_BODY_BYTES:
                parts.append(part)
            size_bytes += len(part)
    except Exception:  # noqa: BLE001  # gunicorn's and Flask's have no common base
        raise RequestError("broken_body", CODES["broken_body"][1]) from None
    return b"".join(parts)
