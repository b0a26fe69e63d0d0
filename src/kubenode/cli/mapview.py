"""What `kube-node map` prints: cells in the terminal, an SVG picture, JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape as xml

from rich.markup import escape
from rich.padding import Padding

from kubenode.cli import screen
from kubenode.inspection.mapping import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubenode.cli.map_ import Drawn
    from kubenode.inspection.mapping import Cell, Picture

MARKS = {
    Kind.FREE: ("·", "dim"), Kind.HELD: ("█", "green"), Kind.LEAKED: ("!", "yellow"), Kind.GATEWAY: ("G", "cyan"),
    Kind.EXCLUDED: ("x", "magenta"), Kind.OUTSIDE: ("-", "dim"),
}  # fmt: skip
SHADES = "░▒▓█"  # of a block that is in use up to a quarter, half, three quarters, all
ASCII_SHADES = ".:+#"
NARROW, BROAD = 32, 64  # cells in a row
BROAD_FROM = 110  # columns
SIDE, GAP, MARGIN, TITLE = 12, 2, 16, 44  # of the SVG picture, in its units
COLUMNS = 64  # cells in a row of it, or 32 where there are few
FEW = 256
COLOURS = {
    Kind.FREE: "free",
    Kind.HELD: "held",
    Kind.LEAKED: "leaked",
    Kind.GATEWAY: "gateway",
    Kind.EXCLUDED: "excluded",
    Kind.OUTSIDE: "outside",
}
STYLE = """
 text { font: 13px ui-monospace, monospace; fill: #24292f } .small { font-size: 11px; fill: #57606a } .page { fill: #ffffff }
 .free { fill: #e6eaef } .held { fill: #2da44e } .leaked { fill: #d4a72c } .gateway { fill: #218bff } .excluded { fill: #a475f9 }
 .outside { fill: none; stroke: #d0d7de }
 @media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #8d96a0 } .page { fill: #0d1117 } .free { fill: #21262d } .outside { stroke: #30363d }
 }
"""


def show(drawn: Iterable[Drawn]) -> None:
    """Print pictures for a terminal."""
    out = screen.console()
    row = BROAD if out.width >= BROAD_FROM else NARROW
    kinds: dict[Kind, None] = {}
    for one in drawn:
        picture = one.picture
        out.print(f"[bold]{escape(one.network)}[/]  {picture.subnet}", soft_wrap=True)
        out.print(Padding(f"[dim]{_told(picture)}[/]", (0, 0, 0, 2), expand=False))
        width = max(len(str(cell.first)) for cell in picture.cells[::row])
        for start in range(0, len(picture.cells), row):
            cells = picture.cells[start : start + row]
            marks = "".join(screen.legible(_mark(cell, picture), out) for cell in cells)
            out.print(f"  [dim]{cells[0].first!s:>{width}}[/] {marks}", soft_wrap=True)
        out.print()
        kinds |= dict.fromkeys(cell.kind for cell in picture.cells)
    legend = "  ".join(f"[{MARKS[kind][1]}]{MARKS[kind][0]}[/] {kind.value}" for kind in Kind if kind in kinds)
    out.print(screen.legible(legend or "No subnets are known.", out), soft_wrap=True)


def svg(drawn: Iterable[Drawn]) -> str:
    """Return one SVG picture of all."""
    parts: list[str] = []
    y, widest = MARGIN, 0
    for one in drawn:
        picture = one.picture
        columns = COLUMNS if len(picture.cells) > FEW else COLUMNS // 2
        parts.append(f'<text x="{MARGIN}" y="{y + 12}">{xml(one.network)} {picture.subnet}</text>')
        parts.append(f'<text class="small" x="{MARGIN}" y="{y + 28}">{xml(_told(picture))}</text>')
        y += TITLE
        for index, cell in enumerate(picture.cells):
            x, row = MARGIN + index % columns * (SIDE + GAP), y + index // columns * (SIDE + GAP)
            opacity = "" if cell.kind is not Kind.HELD or picture.block == 1 else f' fill-opacity="{max(0.25, cell.part):.2f}"'
            title = f"<title>{xml(_whose(cell, one))}</title>"
            parts.append(f'<rect class="{COLOURS[cell.kind]}" x="{x}" y="{row}" width="{SIDE}" height="{SIDE}"{opacity}>{title}</rect>')
        y += -(-len(picture.cells) // columns) * (SIDE + GAP) + MARGIN
        widest = max(widest, columns * (SIDE + GAP))
    width, height = widest + 2 * MARGIN, y
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "\n".join([head, f"<style>{STYLE}</style>", '<rect class="page" width="100%" height="100%"/>', *parts, "</svg>", ""])


def as_json(one: Drawn) -> dict[str, Any]:
    """Return a picture for a program; cells that are just free are left out."""
    picture = one.picture
    cells = [
        {"first": str(cell.first), "kind": cell.kind.value, "held": cell.held, "size": cell.size}
        for cell in picture.cells
        if cell.kind is not Kind.FREE
    ]
    return {"network": one.network, "subnet": str(picture.subnet), "shown": str(picture.shown), "block": picture.block, "cells": cells}


def _mark(cell: Cell, picture: Picture) -> str:
    mark, style = MARKS[cell.kind]
    if picture.block > 1 and cell.held:
        mark = SHADES[min(len(SHADES) - 1, int(cell.part * len(SHADES)))]
    return f"[{style}]{mark}[/]"


def _told(picture: Picture) -> str:
    held, cells = sum(cell.held for cell in picture.cells), "an address"
    if picture.block > 1:
        cells = f"{screen.number(picture.block)} addresses"
    part = "" if picture.shown == picture.subnet else f"; shown is {picture.shown}, beyond it all is free"
    return f"{held:,} held, a cell is {cells}{part}"


def _whose(cell: Cell, one: Drawn) -> str:
    if one.picture.block > 1:
        return f"{cell.first}: {cell.held:,} of {screen.number(cell.size)} held"
    who = one.names.get(cell.first)
    return f"{cell.first}: {who + (', leaked?' if cell.kind is Kind.LEAKED else '') if who else cell.kind.value}"
