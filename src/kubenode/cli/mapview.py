# SPDX-License-Identifier: Apache-2.0
"""The output of `kube-node map`: cells in the terminal, an SVG picture, an HTML page, JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape as xml

from rich.markup import escape
from rich.padding import Padding

from kubenode.cli import screen
from kubenode.inspection.mapping import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kubenode.cli.map_ import Drawn
    from kubenode.inspection.mapping import Cell, Picture

MARKS = {
    Kind.FREE: ("·", "dim"), Kind.HELD: ("█", "green"), Kind.LEAKED: ("!", "yellow"), Kind.GATEWAY: ("G", "cyan"),
    Kind.RESTING: ("z", "blue"),
    Kind.EXCLUDED: ("x", "magenta"), Kind.OUTSIDE: ("-", "dim"), Kind.RELEASED: ("~", "yellow"), Kind.CONFLICT: ("!", "red"),
}  # fmt: skip
SHADES = "░▒▓█"  # for blocks in use up to a quarter, half, three quarters, all
ASCII_SHADES = ".:+#"
NARROW, BROAD = 32, 64  # cells in a row
BROAD_FROM = 110  # columns
SIDE, GAP, MARGIN, TITLE = 12, 2, 16, 40  # of the SVG picture, in its units
STEP = SIDE + GAP
LETTER = 7  # width of a letter of small text
COLUMNS = 64  # cells in a row of the SVG picture; 32 if there are few
FEW = 256
CLASSES = {
    Kind.FREE: "free",
    Kind.HELD: "held",
    Kind.LEAKED: "leaked",
    Kind.RESTING: "resting",
    Kind.GATEWAY: "gateway",
    Kind.EXCLUDED: "excluded",
    Kind.OUTSIDE: "outside",
    Kind.RELEASED: "released",
    Kind.CONFLICT: "conflict",
}
MEANINGS = {
    Kind.FREE: "the next pod may get it",
    Kind.HELD: "a pod or container has it; the darker a block, the more of it is held",
    Kind.LEAKED: "its holder's network namespace is gone: the agent releases it once the pod is gone, too",
    Kind.RESTING: "kept for the next pod of that name, by stickyFor",
    Kind.GATEWAY: "the network's gateway",
    Kind.EXCLUDED: "by exclude",
    Kind.OUTSIDE: "outside of the ranges",
    Kind.RELEASED: "its Node no longer has it: free after reclaimAfter",
    Kind.CONFLICT: "two Nodes have it, or the pool does not offer it",
}
STYLE = """
 text { font: 13px ui-monospace, monospace; fill: #24292f } .small { font-size: 11px; fill: #57606a } .page { fill: #ffffff }
 .free { fill: #e6eaef } .held { fill: #2da44e } .leaked { fill: #cf222e } .resting { fill: #54aeff }
 .gateway { fill: #0550ae } .excluded { fill: #a475f9 }
 .outside { fill: none; stroke: #d0d7de } .released { fill: #d4a72c } .conflict { fill: #cf222e }
 @media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #8d96a0 } .page { fill: #0d1117 } .free { fill: #21262d } .outside { stroke: #30363d }
 }
"""
PAGE = """
 body { font: 15px/1.5 system-ui, sans-serif; color: #24292f; background: #ffffff; max-width: 1100px; margin: 2em auto; padding: 0 1em }
 h1 { font-size: 22px } h2 { font-size: 17px; margin: 0 } p { color: #57606a; margin: .3em 0 1em } code { font-weight: normal }
 section { border-top: 1px solid #d0d7de; padding: 1em 0 }
 section > svg { max-width: 100%; height: auto } rect:hover { stroke: #fb8500; stroke-width: 2 }
 dl { display: flex; flex-wrap: wrap; gap: 1.5em; margin: .3em 0 0 } dl div { display: flex; gap: .4em } dd { margin: 0; font-weight: 600 }
 ul { list-style: none; padding: 0 }
 @media (prefers-color-scheme: dark) { body { color: #e6edf3; background: #0d1117 } p { color: #8d96a0 } section { border-color: #30363d } }
"""


def show(drawn: Sequence[Drawn], *, wide: bool) -> None:
    """Print maps for a terminal."""
    out = screen.console()
    row = BROAD if wide or out.width >= BROAD_FROM else NARROW
    for one in drawn:
        picture = one.picture
        out.print(f"[bold]{escape(one.network)}[/]  {picture.subnet}{escape(_where([one]))}", soft_wrap=True)
        out.print(Padding(f"[dim]{_told(picture)}[/]", (0, 0, 0, 2), expand=False))
        width = max(len(str(cell.first)) for cell in picture.cells[::row])
        for start in range(0, len(picture.cells), row):
            cells = picture.cells[start : start + row]
            marks = "".join(screen.legible(_mark(cell, picture), out) for cell in cells)
            out.print(f"  [dim]{cells[0].first!s:>{width}}[/] {marks}", soft_wrap=True)
        out.print()
    legend = "  ".join(f"[{MARKS[kind][1]}]{MARKS[kind][0]}[/] {kind.value}" for kind in _kinds(drawn))
    out.print(screen.legible(legend or "No subnets are known.", out), soft_wrap=True)


def svg(drawn: Sequence[Drawn]) -> str:
    """Return one SVG picture of all."""
    parts: list[str] = []
    y, widest = MARGIN, 0
    for one in drawn:
        cells, width, height = _grid(one)
        parts.append(f'<text x="{MARGIN}" y="{y + 12}">{xml(one.network)} {one.picture.subnet}{xml(_where([one]))}</text>')
        parts.append(f'<text class="small" x="{MARGIN}" y="{y + 28}">{xml(_told(one.picture))}</text>')
        parts += [f'<g transform="translate({MARGIN} {y + TITLE})">', *cells, "</g>"]
        y += TITLE + height + MARGIN
        widest = max(widest, width)
    x = MARGIN
    for kind in _kinds(drawn):
        parts.append(f'<rect class="{CLASSES[kind]}" x="{x}" y="{y}" width="{SIDE}" height="{SIDE}"/>')
        parts.append(f'<text class="small" x="{x + SIDE + 6}" y="{y + 10}">{kind.value}</text>')
        x += SIDE + 6 + LETTER * (len(kind.value) + 3)
    width, height = max(widest + MARGIN, x), y + SIDE
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {_size(width + MARGIN, height + MARGIN)}>'
    return "\n".join([head, f"<style>{STYLE}</style>", '<rect class="page" width="100%" height="100%"/>', *parts, "</svg>", ""])


def html(drawn: Sequence[Drawn]) -> str:
    """Return a self-contained page with all maps."""
    title = xml("kube-node map: " + (", ".join(dict.fromkeys(one.network for one in drawn)) or "no subnets are known") + _where(drawn))
    parts = ["<!DOCTYPE html>", '<html lang="en">', '<meta charset="utf-8">', '<meta name="viewport" content="width=device-width">']
    parts += [f"<title>{title}</title>", f"<style>{STYLE}{PAGE}</style>", f"<h1>{title}</h1>"]
    parts.append(f"<p>As of {screen.stamp(time.time())}. The pointer on a cell shows its holder.</p>")
    for one in drawn:
        cells, width, height = _grid(one)
        numbers = "".join(f"<div><dt>{name}</dt><dd>{xml(value)}</dd></div>" for name, value in _numbers(one.picture).items())
        parts += ["<section>", f"<h2>{xml(one.network)} <code>{one.picture.subnet}</code></h2>", f"<dl>{numbers}</dl>"]
        parts += [f"<p>{_scale(one.picture)}</p>", f"<svg {_size(width, height)}>", *cells, "</svg>", "</section>"]
    kinds = [
        (f'<svg {_size(SIDE, SIDE)}><rect class="{CLASSES[kind]}" width="{SIDE}" height="{SIDE}"/></svg>', kind) for kind in _kinds(drawn)
    ]
    legend = "".join(f"<li>{cell} <b>{xml(kind.value)}</b>: {xml(MEANINGS[kind])}</li>" for cell, kind in kinds)
    return "\n".join([*parts, f"<ul>{legend}</ul>", "</html>", ""])


def _grid(one: Drawn) -> tuple[list[str], int, int]:
    """Return the cells, each row with its first address, and their width and height."""
    picture = one.picture
    columns = COLUMNS if len(picture.cells) > FEW else COLUMNS // 2
    left = max(len(str(cell.first)) for cell in picture.cells[::columns]) * LETTER + GAP
    parts = []
    for index, cell in enumerate(picture.cells):
        x, y = left + index % columns * STEP, index // columns * STEP
        if index % columns == 0:
            parts.append(f'<text class="small" x="{left - 2 * GAP}" y="{y + 10}" text-anchor="end">{cell.first}</text>')
        opacity = "" if cell.kind is not Kind.HELD or picture.block == 1 else f' fill-opacity="{max(0.25, cell.part):.2f}"'
        title = f"<title>{xml(_whose(cell, one))}</title>"
        parts.append(f'<rect class="{CLASSES[cell.kind]}" x="{x}" y="{y}" width="{SIDE}" height="{SIDE}"{opacity}>{title}</rect>')
    return parts, left + min(columns, len(picture.cells)) * STEP, -(-len(picture.cells) // columns) * STEP


def _size(width: int, height: int) -> str:
    return f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'


def _where(drawn: Sequence[Drawn]) -> str:
    """Name the Node of the maps."""
    return f" on {drawn[0].node}" if drawn and drawn[0].node else ""


def _kinds(drawn: Iterable[Drawn]) -> list[Kind]:
    """Return the kinds of cells in the maps, in their order."""
    seen = {cell.kind for one in drawn for cell in one.picture.cells}
    return [kind for kind in Kind if kind in seen]


def _numbers(picture: Picture) -> dict[str, str]:
    held, leaked = _held(picture), sum(cell.kind is Kind.LEAKED for cell in picture.cells)
    used = f"{screen.number(held)} of {screen.number(picture.total)}, {screen.percent(held, picture.total)}"
    numbers = {"in use": used, "free": screen.number(max(0, picture.total - held))}
    return numbers | ({Kind.LEAKED.value: str(leaked)} if leaked else {})


def as_object(one: Drawn) -> dict[str, Any]:
    """Return a map for a program, without free cells."""
    picture = one.picture
    cells = [
        {"first": str(cell.first), "kind": cell.kind.value, "held": cell.held, "size": cell.size}
        for cell in picture.cells
        if cell.kind is not Kind.FREE
    ]
    return {
        "node": one.node or None,
        "network": one.network,
        "subnet": str(picture.subnet),
        "shown": str(picture.shown),
        "block": picture.block,
        "cells": cells,
    }


def _mark(cell: Cell, picture: Picture) -> str:
    mark, style = MARKS[cell.kind]
    if picture.block > 1 and cell.kind is Kind.HELD:
        mark = SHADES[min(len(SHADES) - 1, int(cell.part * len(SHADES)))]
    return f"[{style}]{mark}[/]"


def _told(picture: Picture) -> str:
    return f"{_held(picture):,} of {screen.number(picture.total)} held, {_scale(picture)}"


def _scale(picture: Picture) -> str:
    one, many = picture.unit
    cells = one if picture.block == 1 else f"{screen.number(picture.block)} {many}"
    part = "" if picture.shown == picture.subnet else f"; only {picture.shown} is shown, the rest is free"
    return f"a cell is {cells}{part}"


def _held(picture: Picture) -> int:
    return sum(cell.held for cell in picture.cells)


def _whose(cell: Cell, one: Drawn) -> str:
    if one.picture.block > 1:
        return f"{cell.first}: {cell.held:,} of {screen.number(cell.size)} held"
    who = one.names.get(cell.first)
    return f"{cell.first}: {who + (', leaked?' if cell.kind is Kind.LEAKED else '') if who else cell.kind.value}"
