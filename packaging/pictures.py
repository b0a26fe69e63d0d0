# SPDX-License-Identifier: Apache-2.0
"""Make the pictures of commands in docs/images, from what these print. `./build.sh pictures`, as root."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from screens import Screen, take

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs/images"
COLUMNS = 80
PICTURES = ("status", "doctor-faults", "map", "pools", "try")  # names of screens.SHOTS
THEME = TerminalTheme(
    (13, 17, 23),
    (230, 237, 243),
    [(72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34), (88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196)],
)


def main() -> None:
    named = os.environ.get("KUBE_NODE_BINARIES")
    screens = take([COLUMNS], Path(named) if named else None)
    for screen in screens:
        if screen.name in PICTURES:
            (IMAGES / f"{screen.name}.svg").write_text(svg(screen))


def svg(screen: Screen) -> str:
    """Draw what a pane shows, below the command line."""
    console = Console(
        record=True, width=screen.columns, file=io.StringIO(), force_terminal=True, color_system="truecolor", legacy_windows=False
    )
    console.print(Text.from_ansi(f"\x1b[1m$ {screen.command}\x1b[0m\n{screen.text}".rstrip("\n")))
    # rich's own would load a font from another host.
    template = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    template = template.replace("<svg ", '<svg xml:space="preserve" ', 1)  # what is indented stays so in every viewer
    title = screen.command.partition(" -")[0]
    drawn = console.export_svg(title=title, code_format=template, unique_id="kube-node", theme=THEME)
    # Each line is cut at its own height by a path of its own, which is half of the file and cuts nothing.
    drawn = re.sub(r'\s*<clipPath id="kube-node-line-\d+">.*?</clipPath>', "", drawn, flags=re.DOTALL)
    drawn = re.sub(r' clip-path="url\(#kube-node-line-\d+\)"', "", drawn)
    return "".join(f"{line.rstrip()}\n" for line in drawn.splitlines() if line.strip())


if __name__ == "__main__":
    main()
