"""The documentation keeps up with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kubenode.cni import errors

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
CODES = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}


def test_every_error_code_is_explained() -> None:
    """docs/reference/errors.md has one row for each code, and none for any other."""
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs/reference/errors.md").read_text(), re.MULTILINE)
    assert sorted(map(int, rows)) == sorted(CODES)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link in a page names a file that is there."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
