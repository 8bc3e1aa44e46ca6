"""Generated parts of docs/reference/http-api.md; ``python -m tests.endpoint_docs`` regenerates them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cifarml.scoring.api_schema import (
    SERVER_CODES,
    ErrorAnswer,
    ErrorDetail,
    ImageAnswer,
    ImagePrediction,
    ImageRequest,
    ImagesAnswer,
    ImagesRequest,
    ModelVersion,
)
from cifarml.scoring.multipart import FORM
from cifarml.scoring.request import BINARY, CODES, IMAGE_TYPES, MAX_BODY_BYTES, MAX_IMAGES
from tests.cli_docs import format_page

ENDPOINT_DOCS = Path(__file__).parents[1] / "docs" / "reference" / "http-api.md"


def example(model: type[BaseModel]) -> dict[str, Any]:
    """Return the field values of a model, taken from the examples in its schema."""
    return {name: field.examples[0] for name, field in model.model_fields.items() if field.examples}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = [*head]
    lines = [f"| {' | '.join(line)} |" for line in (names, *rows)]
    return "\n".join([lines[0], "|---" * len(names) + "|", *lines[1:]])


def fields(**models: type[BaseModel]) -> str:
    """Return a table of the fields of the given models, each named with its place in the document."""
    rows = [
        [f"`{'model.' if where == 'model' else ''}{name}`", field.description]
        for where, model in models.items()
        for name, field in model.model_fields.items()
        if field.description
    ]
    return table(["field", "description"], rows)


def meanings(codes: Mapping[str, tuple[int, str]]) -> str:
    rows = ([str(status), f"`{code}`", meaning] for code, (status, meaning) in codes.items())
    return table(["status", "code", "description"], rows)


def shown(answer: BaseModel) -> str:
    return f"```json\n{json.dumps(answer.model_dump(), indent=2)}\n```"


def parts() -> dict[str, str]:
    """Return the generated parts by name."""
    prediction = ImagePrediction(**example(ImagePrediction))
    model = ModelVersion(**example(ModelVersion))
    error = ErrorAnswer(error=ErrorDetail(**example(ErrorDetail)))
    kinds = ", ".join(f"`{kind}`" for kind in (*sorted(IMAGE_TYPES), BINARY))
    return {
        "request": table(
            ["Content-Type", "body"],
            [
                ["`application/json`, or no header", '`{"imagebase64": "..."}` for one image'],
                ["", f'`{{"images": ["...", "..."]}}` for 1 to {MAX_IMAGES} images'],
                [kinds, "the image file"],
                [f"`{FORM}`", "a form with one file, in a field of any name"],
            ],
        )
        + f"\n\nAt most {MAX_BODY_BYTES:,} bytes. Other fields are ignored. "
        "A body can be compressed with `Content-Encoding: gzip`; the limit applies before and after.\n\n"
        + fields(one=ImageRequest, several=ImagesRequest),
        "answer": shown(ImageAnswer(**prediction.model_dump(), model=model)),
        "answers": shown(ImagesAnswer(predictions=[prediction, error], model=model)),
        "fields": fields(one=ImagePrediction, several=ImagesAnswer, model=ModelVersion),
        "error": shown(error),
        "errors": meanings(CODES),
        "server errors": meanings(SERVER_CODES),
    }


def render(page: str) -> str:
    """Return the page with its generated parts updated."""
    for name, part in parts().items():
        before, start, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            raise ValueError(f"the page has no markers for {name}")
        page = f"{before}{start}{part}\n{end}{after}"
    return format_page(page)


if __name__ == "__main__":
    ENDPOINT_DOCS.write_text(render(ENDPOINT_DOCS.read_text(encoding="utf-8")), encoding="utf-8")
