"""The words of docstrings and messages: plain English, for readers who are no native speakers."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src" / "kubenode"
DONE = ["agent", "base", "cni", "controller", "host", "installer", "kube", "launcher.py"]  # the packages that hold to it; add yours
PHRASES = "anew|are of|are told|is of|is told|nobody's|of these|somebody's|stands|such as somebody|who only looks|whoever|whom"
BANNED = re.compile(rf"\b({PHRASES})\b", re.IGNORECASE)


def modules() -> list[Path]:
    """Return the modules of the packages that hold to it."""
    return [path for name in DONE for path in ([SOURCES / name] if name.endswith(".py") else sorted((SOURCES / name).rglob("*.py")))]


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield each public class and function below a node, methods as CLASS.NAME, and whether it has a docstring."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield prefix + child.name, ast.get_docstring(child) is not None
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, f"{child.name}.")


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(SOURCES)))
def test_words(module: Path) -> None:
    """Docstrings and messages contain none of the banned phrases."""
    constants = [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Constant)]
    texts = [(node.lineno, " ".join(node.value.split())) for node in constants if isinstance(node.value, str)]
    assert [f"{line}: {phrase}" for line, text in texts for phrase in BANNED.findall(text)] == []


def test_docstrings() -> None:
    """Public classes and functions have a docstring; a method also by the one of its interface, which has the same name."""
    found = [(path, name, has) for path in modules() for name, has in definitions(ast.parse(path.read_text()))]
    documented = {name.partition(".")[2] for _, name, has in found if has} - {""}
    missing = [f"{path.relative_to(SOURCES)}: {name}" for path, name, has in found if not has and name.partition(".")[2] not in documented]
    assert missing == []
