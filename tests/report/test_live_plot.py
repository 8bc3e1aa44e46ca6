"""The live plot: in a real kernel, and its error elsewhere."""

from __future__ import annotations

import base64
import io
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from cifarml import learning_curves, live_plot
from cifarml.errors import SettingsError

CELL = """
import cifarml
from cifarml.progress import Progress

told = []
plot = cifarml.live_plot(told.append)
plot(Progress("training", 0, 30, line="what was chosen"))
for epoch in range(1, 4):
    plot(Progress("training", 10 * epoch - 5, 30, detail="..."))
    curves = {"loss": [2.0, 1.5, 1.0][:epoch], "accuracy": [0.2, 0.4, 0.6][:epoch]}
    plot(Progress("training", 10 * epoch, 30, line="an epoch", history=curves))
plot(Progress("writing the run", 0, 4, unit="steps"))
assert len(told) == 8, len(told)
"""


def test_one_image_that_ends_with_all_epochs() -> None:
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=120).execute()
    (shown,) = notebook.cells[0].outputs
    expected = io.BytesIO()
    curves = {"loss": [2.0, 1.5, 1.0], "accuracy": [0.2, 0.4, 0.6]}
    learning_curves(curves).savefig(expected, format="png")
    last = Image.open(io.BytesIO(base64.b64decode(shown["data"]["image/png"])))
    assert np.array_equal(np.asarray(last), np.asarray(Image.open(expected)))


def test_elsewhere_it_says_what_to_use() -> None:
    with pytest.raises(SettingsError, match="notebook") as raised:
        live_plot()
    assert "show_progress" in str(raised.value.hint)
