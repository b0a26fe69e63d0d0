# SPDX-License-Identifier: Apache-2.0
"""Make docs/images/dashboard.svg: the panels of deploy/monitoring/dashboard.json, in their places, with what real agents tell.

`./build.sh dashboard [SECONDS]`, with etcd and kube-apiserver in $KUBEBUILDER_ASSETS and Debian's prometheus. Grafana is not needed: the
same queries are drawn here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from monitored import MONITORING, Monitored, Series

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from apiserver import RealApiServer

if TYPE_CHECKING:
    from collections.abc import Sequence

PICTURE = Path(__file__).resolve().parent.parent / "docs/images/dashboard.svg"
SECONDS = 180
CELL, ROW, GAP, TOP = 50, 34, 8, 44  # of the grid: a column's width, a row's height, between panels, above them
LETTER, LINE = 6.2, 15  # of a legend: how wide a letter is, how high a line
COLOURS = (
    "#7eb26d",
    "#eab839",
    "#6ed0e0",
    "#ef843c",
    "#e24d42",
    "#1f78c1",
    "#ba43a9",
    "#705da0",
    "#508642",
    "#cca300",
    "#447ebc",
    "#c15c17",
)
NAMED = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}
STYLE = """
 text { font: 11px system-ui, sans-serif; fill: #ccccdc } .title { font-weight: 600; font-size: 13px } .dim { fill: #8e8ea0 }
 .stat { font-size: 34px; font-weight: 600; text-anchor: middle } .axis { stroke: #2c3235 }
 .page { fill: #111217 } .panel { fill: #181b1f; stroke: #2c3235 }
 polyline { fill: none; stroke-width: 1.5 } .right { text-anchor: end } .middle { text-anchor: middle }
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="./build.sh dashboard", description="Draw the dashboard with what real agents tell.")
    parser.add_argument("seconds", nargs="?", type=float, default=SECONDS, help="how long pods come and go")
    seconds = parser.parse_args().seconds
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    with tempfile.TemporaryDirectory(prefix="kube-node-dashboard.") as scratch:
        (Path(scratch) / "server").mkdir()
        server = RealApiServer(Path(os.environ["KUBEBUILDER_ASSETS"]), Path(scratch) / "server")
        server.start()
        try:
            with Monitored(Path(scratch), server, 3) as monitored:
                monitored.work(seconds)
                drawn = [(panel, [monitored.series(target, seconds) for target in panel["targets"]]) for panel in dashboard["panels"]]
        finally:
            server.close()
    PICTURE.write_text(picture(dashboard["title"], drawn, seconds))
    print(f"dashboard: {len(drawn)} panels in {PICTURE}")


def picture(title: str, drawn: Sequence[tuple[dict[str, Any], list[list[Series]]]], seconds: float) -> str:
    """Return all panels as one SVG picture."""
    width, height = 24 * CELL + GAP, TOP + max((panel["gridPos"]["y"] + panel["gridPos"]["h"]) * ROW for panel, _ in drawn) + GAP
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">']
    parts += [f"<style>{STYLE}</style>", '<rect class="page" width="100%" height="100%"/>']
    parts.append(f'<text class="title" x="{GAP}" y="27">{escape(title)}</text>')
    parts.append(f'<text class="dim right" x="{width - GAP}" y="27">Last {seconds / 60:.3g} minutes</text>')
    for panel, targets in drawn:
        place = panel["gridPos"]
        size = place["w"] * CELL - GAP, place["h"] * ROW - GAP
        parts.append(f'<g transform="translate({place["x"] * CELL + GAP} {place["y"] * ROW + TOP})">')
        parts.append(f'<rect class="panel" width="{size[0]}" height="{size[1]}" rx="3"/>')
        parts.append(f'<text class="title" x="10" y="20">{escape(panel["title"])}</text>')
        series = [one for target in targets for one in target]
        parts += (_stat if panel["type"] == "stat" else _graph)(panel["fieldConfig"]["defaults"], series, *size)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _stat(field: dict[str, Any], series: list[Series], width: int, height: int) -> list[str]:
    if not series:
        return [f'<text class="dim middle" x="{width / 2:g}" y="{height / 2:g}">No data</text>']
    value = series[0].values[-1][1]
    steps = field.get("thresholds", {"steps": [{"color": "green", "value": None}]})["steps"]
    colour = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
    told = f"{value:.{field['decimals']}f}" if "decimals" in field else _told(value, field["unit"])
    return [f'<text class="stat" style="fill: {NAMED[colour]}" x="{width / 2:g}" y="{height / 2 + 24:g}">{told}</text>']


def _graph(field: dict[str, Any], series: list[Series], width: int, height: int) -> list[str]:
    legend, left, right, top = _legend(series, width), 64, width - 12, 34
    bottom = height - 26 - LINE * (1 + max((row for _, row, _ in legend), default=0))
    points = [point for one in series for point in one.values if math.isfinite(point[1])]
    if not points:
        return [f'<text class="dim middle" x="{width / 2:g}" y="{height / 2:g}">No data</text>']
    start, end = min(when for when, _ in points), max(when for when, _ in points)
    highest = field.get("max", _round_up(max(value for _, value in points)))
    parts = []
    for part in range(5):
        y = bottom - (bottom - top) * part / 4
        parts.append(f'<line class="axis" x1="{left}" y1="{y:g}" x2="{right}" y2="{y:g}"/>')
        parts.append(f'<text class="dim right" x="{left - 6}" y="{y + 4:g}">{_told(highest * part / 4, field["unit"])}</text>')
    for minute in range(int((end - start) / 60) + 1):
        x = left + (right - left) * minute * 60 / (end - start or 1)
        parts.append(f'<text class="dim middle" x="{x:g}" y="{bottom + 15}">{minute} min</text>')
    for index, one in enumerate(series):
        places = [
            f"{left + (right - left) * (when - start) / (end - start or 1):.1f},{bottom - (bottom - top) * min(1.0, value / highest):.1f}"
            for when, value in one.values
            if math.isfinite(value)
        ]
        parts.append(f'<polyline stroke="{COLOURS[index % len(COLOURS)]}" points="{" ".join(places)}"/>')
    for index, (x, row, text) in enumerate(legend):
        y = bottom + 22 + row * LINE
        parts.append(f'<rect x="{x:g}" y="{y + 3}" width="12" height="3" fill="{COLOURS[index % len(COLOURS)]}"/>')
        parts.append(f'<text x="{x + 17:g}" y="{y + 9}">{escape(text)}</text>')
    return parts


def _legend(series: list[Series], width: int) -> list[tuple[float, int, str]]:
    """Return for each line where in its row its name begins, and in which row."""
    found, x, row = [], 12.0, 0
    for one in series:
        wide = 17 + LETTER * len(one.legend) + 12
        if x + wide > width and x > 12.0:  # noqa: PLR2004 -- the margin
            x, row = 12.0, row + 1
        found.append((x, row, one.legend))
        x += wide
    return found


def _round_up(value: float) -> float:
    """Return a number of one digit that is not smaller: an axis ends there."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(factor * unit for factor in (1, 2, 4, 6, 8, 10) if factor * unit >= value)


def _told(value: float, unit: str) -> str:
    """Return a value as Grafana has it in a unit."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "bytes":
        return f"{value / 1e6:.3g} MB"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 or not value else f"{1000 * value:.3g} ms"
    return f"{value:.3g}" + (" /s" if unit == "reqps" else "")


if __name__ == "__main__":
    main()
