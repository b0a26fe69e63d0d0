# SPDX-License-Identifier: Apache-2.0
"""The words of names, docstrings, messages and documentation: plain English, for readers who are no native speakers."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "kubenode"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / ".github").rglob("*.md"))]
PHRASES = "anew|are of|are told|is of|is told|nobody's|of these|somebody's|stands|such as somebody|who only looks|whoever|whom"
BANNED = re.compile(rf"\b({PHRASES})\b", re.IGNORECASE)
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
NAMED = ast.Constant | ast.ImportFrom
BACKWARDS = re.compile(r"(?:^|[.?!] )((?:How|Of|What|Where|Who)\b.{,30})")  # a sentence that does not begin with its subject or verb


@functools.cache
def modules() -> list[tuple[Path, list[ast.AST]]]:
    """Return each module, and its nodes that have a name or a text, itself first."""
    found = []
    for path in sorted(SOURCES.rglob("*.py")):
        nodes: list[ast.AST] = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, DOCUMENTED | NAMED)]
        found.append((path, nodes))
    return found


def prose(page: Path) -> list[str]:
    """Return paragraphs, items of lists and rows of tables, each on one line, without headings and blocks of code."""
    text = re.sub(r"^ *```.*?^ *```$|<!--.*?-->|^#.*?$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"\n\s*\n|\n(?=\s*(?:[-|]|\d+\.) ?)", text)
    return [" ".join(re.sub(r"^(?:-|\d+\.) ", "", part.strip()).split()) for part in parts]


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield each public class and function below a node, methods as CLASS.NAME, and whether it has a docstring."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield prefix + child.name, ast.get_docstring(child) is not None
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, f"{child.name}.")


def test_class_names() -> None:
    """A class name is the name of one class, and an import gives a class no other name."""
    places: dict[str, list[str]] = {}
    aliases = []
    for path, nodes in modules():
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(SOURCES)))
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kubenode."):
                aliases += [f"{path.name}: {one.name} as {one.asname}" for one in node.names if (one.asname or "")[:1].isupper()]
    assert ({name: found for name, found in places.items() if len(found) > 1}, aliases) == ({}, [])


def test_words() -> None:
    """Docstrings and messages contain none of the banned phrases."""
    found = [(path.name, node) for path, nodes in modules() for node in nodes if isinstance(node, ast.Constant)]
    texts = [(f"{name}:{node.lineno}", " ".join(node.value.split())) for name, node in found if isinstance(node.value, str)]
    assert [f"{place}: {phrase}" for place, text in texts for phrase in BANNED.findall(text)] == []


def test_sentences() -> None:
    """A docstring's sentences begin with a verb or a noun."""
    found = [(path.name, node) for path, nodes in modules() for node in nodes if isinstance(node, DOCUMENTED)]
    texts = [(name, " ".join((ast.get_docstring(node) or "").split())) for name, node in found]
    assert [f"{name}: {found}" for name, text in texts for found in BACKWARDS.findall(text)] == []


def test_docstrings() -> None:
    """Public classes and functions have a docstring; a method also by the one of its interface, which has the same name."""
    found = [(path, name, has) for path, nodes in modules() for name, has in definitions(nodes[0])]
    documented = {name.partition(".")[2] for _, name, has in found if has} - {""}
    missing = [f"{path.relative_to(SOURCES)}: {name}" for path, name, has in found if not has and name.partition(".")[2] not in documented]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_pages(page: Path) -> None:
    """A page has the same words as a docstring: no banned phrase, no sentence that begins backwards."""
    found = [part for text in prose(page) for part in (*BANNED.findall(text), *BACKWARDS.findall(text))]
    assert found == []
