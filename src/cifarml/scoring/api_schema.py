"""Pydantic models of an endpoint's requests and answers, for OpenAPI, tests and docs/endpoint.md.

The scoring script itself does not use pydantic; tests validate its answers against these models.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from cifarml.scoring.request import CODES, IMAGE_TYPES, MAX_BODY_BYTES, MAX_IMAGES

SERVER_CODES: Final[Mapping[str, tuple[int, str]]] = {
    "bad_http": (400, "what was sent is no HTTP"),
    "unauthorized": (401, "the key is missing or wrong"),
    "wrong_origin": (403, "a page of another site may not ask"),
    "not_found": (404, "there is nothing at this address"),
    "unknown_deployment": (404, "there is no deployment of the name in the header azureml-model-deployment"),
    "too_slow": (408, "the request did not arrive in time"),
    "wrong_host": (421, "the server answers to 127.0.0.1 and localhost only"),
    "busy": (429, "too much is asked at once; come again after the seconds in Retry-After"),
    "headers_too_large": (431, "the headers are too long"),
    "internal": (500, "the server failed; the log says why"),
    "not_ready": (503, "not all deployments with traffic are ready"),
    "unavailable": (503, "no deployment can answer now; come again after the seconds in Retry-After"),
    "timeout": (504, "the deployment did not answer in time"),
}
"""Codes of the server on this machine, beside those of :data:`cifarml.scoring.request.CODES`."""

_ALL_CODES: Final = {**CODES, **SERVER_CODES}

_EXAMPLE_IMAGE: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABAQAAAAA3bvkkAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)

Base64Image = Annotated[
    str,
    Field(
        description="A PNG, JPEG, WebP, GIF or BMP file as base64; line breaks in it do no harm, "
        "`data:` in front does.",
        examples=[_EXAMPLE_IMAGE],
    ),
]
"""An image file in JSON."""


class ImageRequest(BaseModel):
    """One image."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["images"]}})

    imagebase64: Base64Image


class ImagesRequest(BaseModel):
    """Several images."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["imagebase64"]}})

    images: list[Base64Image] = Field(
        description="The images.", min_length=1, max_length=MAX_IMAGES, examples=[[_EXAMPLE_IMAGE] * 2]
    )


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelVersion(_Answer):
    """Who answered."""

    name: str = Field(description="Name of the model.", examples=["cifar10"])
    version: str = Field(description="Its version in the registry.", examples=["3"])


Probability = Annotated[float, Field(ge=0, le=1)]


class ImagePrediction(_Answer):
    """What the model sees in an image."""

    result: str = Field(description="The most probable class.", examples=["ship"])
    probability: Probability = Field(description="Its probability, 0 to 1.", examples=[0.93])
    probabilities: dict[str, Probability] = Field(
        description="The probability of each class, the most probable first; they add up to 1.",
        examples=[{"ship": 0.93, "airplane": 0.05, "truck": 0.02}],
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        values = list(self.probabilities.values())
        if values != sorted(values, reverse=True) or abs(sum(values) - 1) > 1e-3:
            raise ValueError("probabilities stand in falling order and add up to 1")
        if (self.result, self.probability) != next(iter(self.probabilities.items())):
            raise ValueError("result and probability are the first of probabilities")
        return self


class ImageAnswer(ImagePrediction):
    """The answer to one image."""

    model: ModelVersion


def _known(code: str) -> str:
    if code not in _ALL_CODES:
        raise ValueError(f"no code of ours: {code}")
    return code


ErrorCode = Annotated[str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": [*_ALL_CODES]})]


class ErrorDetail(_Answer):
    """What is wrong."""

    code: ErrorCode = Field(description="One word for programs.", examples=["not_base64"])
    message: str = Field(
        description="The same for people. It shows nothing of what was sent.",
        examples=["the image is not base64"],
    )


class ErrorAnswer(_Answer):
    """An error: of the request, or of one image in a list."""

    error: ErrorDetail


class ImagesAnswer(_Answer):
    """The answer to several images."""

    predictions: list[ImagePrediction | ErrorAnswer] = Field(
        description="For each image, in order, its prediction, or the error that says why there is none."
    )
    model: ModelVersion


SCORE_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": f"At most {MAX_BODY_BYTES:,} bytes.",
        "content": {
            "application/json": {
                "schema": {"oneOf": [model.model_json_schema() for model in (ImageRequest, ImagesRequest)]}
            },
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in sorted(IMAGE_TYPES)},
        },
    }
}
"""What is sent to the scoring address, in OpenAPI 3.1; FastAPI takes it as ``openapi_extra``."""

SCORE_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": ImageAnswer | ImagesAnswer, "description": "One answer, or one for each image."},
    **{
        status: {
            "model": ErrorAnswer,
            "description": f"{HTTPStatus(status).phrase}: "
            + ", ".join(code for code, (its_status, _) in _ALL_CODES.items() if its_status == status),
        }
        for status in sorted({status for status, _ in _ALL_CODES.values()})
    },
}
"""What may be answered, by HTTP status; FastAPI takes it as ``responses``."""
