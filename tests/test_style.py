"""Style checks of docs/style.md: docstrings, comments, messages and pages use the field's terms."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    *sorted((ROOT / "src").rglob("*.pyi")),
    *sorted((ROOT / "src").rglob("*.py")),
    *(path for path in sorted((ROOT / "tests").rglob("*.py")) if "node_modules" not in path.parts),
]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / ".github" / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.ipynb")),
    *sorted((ROOT / "src").rglob("*.html")),
]
EXEMPT = {ROOT / "docs" / "style.md", Path(__file__)}  # they quote what they forbid

CLAUSE = re.compile(r"(What|Where|Who|Whose|Which|Whether|How|Whatever|Whoever)\b")

PARAPHRASES = {
    r"pictures?": "image",
    r"anew": "again",
    r"of ours|our own": "managed by cifarml",
    r"nobody|somebody|whoever": "name the actor",
    r"rightly": "correctly",
    r"(is|are|was|were) left out": "is omitted",
    r"(go|goes|going|went) on (?:as|at|by|from|until|where|with)": "continue, resume",
    r"(?<!under)(lies?|lying|lay) (in|there|beside|at|on|under)": "is stored in, is located in",
    r"(is|are|was|were|be) told": "is reported",
    r"(is|are) (?-i:none)(?! of them)": "is missing",
    r"where (there|it|none|nothing|anything|that|nobody) (is|are|isn't|was|can|can't|fails?|has|does)": "if",
    r"brings? (it )?(live|home)|brought (live|home)": "deploy, download",
    r"asks? (again|once more)": "verify",
    r"at hand": "available",
    r"so many (epochs|images|steps|seconds)": "N epochs",
    r"shall": "must, will",
    r"as sure as": "calibrated",
    r"by heart": "overfitting",
    r"a look at": "an evaluation of",
}
"""Regular expressions of paraphrases, each with the plain term: the worst of docs/style.md's glossary."""

PATTERN = re.compile("|".join(rf"(?<![\w-])(?:{each})(?![\w-])" for each in PARAPHRASES), re.IGNORECASE)


def find_docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line number and text of each docstring, of attributes too."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for each in body if isinstance(body, list) else []:
            if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):
                text = each.value.value
                if isinstance(text, str):
                    yield each.lineno, text


def find_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and text of everything in a file that is written for people."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in {".py", ".pyi"}:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}:
                for offset, line in enumerate(token.string.splitlines()):
                    yield token.start[0] + offset, line
        return
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= line.startswith("```")
        if not fenced:
            yield number, line


def test_docstrings_start_with_an_imperative_or_a_noun() -> None:
    found = [
        f"{path}:{line}: {text[:60]}"
        for path in SOURCES
        for line, text in find_docstrings(ast.parse(path.read_text(encoding="utf-8")))
        if CLAUSE.match(text.strip())
    ]
    assert not found, "see docs/style.md\n" + "\n".join(found)


def test_texts_use_the_terms_of_the_field() -> None:
    found = [
        f"{path}:{number}: {match[0]!r} in: {line.strip()[:90]}"
        for path in SOURCES + PAGES
        if path not in EXEMPT
        for number, line in find_texts(path)
        if (match := PATTERN.search(line))
    ]
    assert not found, "see docs/style.md\n" + "\n".join(found)


def test_pages_wrap_at_100_columns() -> None:
    """Tables, links and code are exempt: they cannot be wrapped."""
    found = [
        f"{page}:{number}: {len(line)} columns"
        for page in PAGES
        if page.suffix == ".md"
        for number, line in find_texts(page)
        if len(line) > 100 and not line.startswith("|") and "](" not in line
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Bring it live where it fails", True),
        ("The cache lies in this folder", True),
        ("Deploy the model to an endpoint", False),
        ("the underlying relies on it", False),
        ("a shallow copy", False),
    ],
)
def test_the_pattern_finds_paraphrases_only(text: str, found: bool) -> None:
    assert bool(PATTERN.search(text)) is found
