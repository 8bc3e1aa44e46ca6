"""Train image classifiers with Keras and deploy them, on the command line or in Python.

Importing this package imports nothing heavy: each public name is imported on first use. The names are listed
in `__init__.pyi` only.

Example:
    ```python
    import cifarml

    dataset = cifarml.load_dataset("drawn:200")
    config = cifarml.TrainConfig(num_epochs=1)
    run = cifarml.train_model(config, dataset, "runs/first")
    print(run.predictor().predict("ship.png").label)
    ```
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any


@cache
def _modules() -> dict[str, str]:
    """Return the module of each public name, read from the stub file."""
    import ast
    import pkgutil

    stub = ast.parse(pkgutil.get_data(__name__, "__init__.pyi") or b"")
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name == "__all__":
        return sorted({*_modules(), "__version__"})
    if name in _modules():
        from cifarml.environment import explain_environment
        from cifarml.extras import explain_missing_extra

        with explain_missing_extra(), explain_environment():
            return getattr(import_module(_modules()[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_modules(), "__all__", "__version__"})
