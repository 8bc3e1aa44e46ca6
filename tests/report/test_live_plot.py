"""Live plot in a notebook kernel, and its error outside notebooks."""

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

received = []
plot = cifarml.live_plot(received.append)
plot(Progress("training", 0, 30, line="settings"))
for epoch in range(1, 4):
    plot(Progress("training", 10 * epoch - 5, 30, detail="..."))
    curves = {"loss": [2.0, 1.5, 1.0][:epoch], "accuracy": [0.2, 0.4, 0.6][:epoch]}
    plot(Progress("training", 10 * epoch, 30, line="an epoch", history=curves))
plot(Progress("writing the run", 0, 4, unit="steps"))
assert len(received) == 8, len(received)
"""


def test_live_plot_updates_one_image() -> None:
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=120).execute()
    (shown,) = notebook.cells[0].outputs
    expected = io.BytesIO()
    curves = {"loss": [2.0, 1.5, 1.0], "accuracy": [0.2, 0.4, 0.6]}
    learning_curves(curves).savefig(expected, format="png")
    last = Image.open(io.BytesIO(base64.b64decode(shown["data"]["image/png"])))
    assert np.array_equal(np.asarray(last), np.asarray(Image.open(expected)))


def test_live_plot_outside_notebook() -> None:
    with pytest.raises(SettingsError, match="notebook") as raised:
        live_plot()
    assert "show_progress" in str(raised.value.hint)
