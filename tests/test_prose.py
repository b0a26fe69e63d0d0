"""The words of docstrings and messages: plain English, for readers who are no native speakers."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "src" / "kubenode"
PHRASES = "anew|are of|are told|is of|is told|nobody's|of these|somebody's|stands|such as somebody|who only looks|whoever|whom"
BANNED = re.compile(rf"\b({PHRASES})\b", re.IGNORECASE)
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
BACKWARDS = re.compile(r"(?:^|[.?!] )((?:How|Of|What|Where|Who)\b.{,30})")  # a sentence that does not begin with its subject or verb


def modules() -> list[Path]:
    """Return all modules."""
    return sorted(SOURCES.rglob("*.py"))


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield each public class and function below a node, methods as CLASS.NAME, and whether it has a docstring."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield prefix + child.name, ast.get_docstring(child) is not None
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, f"{child.name}.")


def test_words() -> None:
    """Docstrings and messages contain none of the banned phrases."""
    nodes = [(path.name, node) for path in modules() for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    texts = [(f"{name}:{node.lineno}", " ".join(node.value.split())) for name, node in nodes if isinstance(node.value, str)]
    assert [f"{place}: {phrase}" for place, text in texts for phrase in BANNED.findall(text)] == []


def test_sentences() -> None:
    """A docstring's sentences begin with a verb or a noun."""
    nodes = [(path.name, node) for path in modules() for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, DOCUMENTED)]
    texts = [(name, " ".join((ast.get_docstring(node) or "").split())) for name, node in nodes]
    assert [f"{name}: {found}" for name, text in texts for found in BACKWARDS.findall(text)] == []


def test_docstrings() -> None:
    """Public classes and functions have a docstring; a method also by the one of its interface, which has the same name."""
    found = [(path, name, has) for path in modules() for name, has in definitions(ast.parse(path.read_text()))]
    documented = {name.partition(".")[2] for _, name, has in found if has} - {""}
    missing = [f"{path.relative_to(SOURCES)}: {name}" for path, name, has in found if not has and name.partition(".")[2] not in documented]
    assert missing == []
