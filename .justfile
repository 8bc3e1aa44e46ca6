# Recipes for https://just.systems; `just` lists them. Without installing it: `uvx --from rust-just just`.

set positional-arguments

run := ".venv/bin/uv run --locked --group dev"

_list:
    @just --list

# Create .venv with all development dependencies.
setup:
    [ -x .venv/bin/uv ] || { python3 -m venv .venv && .venv/bin/pip install --quiet uv; }
    .venv/bin/uv sync --locked --inexact --group dev

# Check linting, formatting, spelling and types.
lint:
    {{ run }} .ci/lint

# Run the fast tests.
fast *arguments:
    {{ run }} pytest -m fast "$@"

# Run the default tests.
test *arguments:
    {{ run }} pytest "$@"

# Run the fast tests with the lowest dependency versions that pyproject.toml allows.
lowest *arguments:
    {{ run }} .ci/lowest "$@"

# Generate docs/reference/cli.md and the tables of docs/reference/http-api.md, and format all pages.
docs:
    {{ run }} python -m tests.cli_docs
    {{ run }} python -m tests.endpoint_docs
    {{ run }} mdformat README.md CHANGELOG.md docs .github

# Serve the documentation site at http://127.0.0.1:8000.
site *arguments:
    {{ run }} mkdocs serve -f docs/site/mkdocs.yml "$@"

# Run benchmarks by name: loading, training, answering, serving, ... (docs/benchmarks.md).
bench +names:
    {{ run }} python -m tests.benchmarks "$@"

# Build the wheel, install it with pip, and run the quickstart.
wheel:
    {{ run }} .ci/check-wheel
