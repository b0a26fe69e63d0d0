"""Make docs/images and the page that shows them: what all commands print at 80 and at 200 columns. `./build.sh pictures`, as root."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from screens import SHOTS, Screen, take

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs/images"
PAGE = ROOT / "docs/reference/pictures.md"
COLUMNS = (80, 200)
INTRODUCTION = """# All commands, as they look

In a tmux pane of 80 columns, and behind each picture's link in one of 200. `./build.sh pictures` makes them on a node of its own, with an
agent and pods; a test runs the same commands and sees that no line is wrapped or cut. [The command line](cli.md) says what they do.
"""
SECTIONS = {
    "Networks and addresses": ("status", "status-wide", "status-watch", "status-address", "map", "map-network"),
    "Is all well?": ("doctor", "try-add", "try-add-pod", "gc", "version"),
    "When it is not": ("doctor-faults", "status-leak", "gc-faults", "release"),
    "Pools of subnets for every node": ("pools", "pools-name", "map-pool"),
    "Install, and take back": ("install", "uninstall"),
    "Without a cluster": ("try",),
    "Help": ("help", *(name for name in SHOTS if name.endswith("-help"))),
}
THEME = TerminalTheme(
    (13, 17, 23),
    (230, 237, 243),
    [(72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34), (88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196)],
)


def main() -> None:
    named = os.environ.get("KUBE_NODE_BINARIES")
    screens = take(list(COLUMNS), Path(named) if named else None)
    for old in IMAGES.glob("*-[0-9]*.svg"):
        old.unlink()
    IMAGES.mkdir(exist_ok=True)
    for screen in screens:
        (IMAGES / f"{screen.name}-{screen.columns}.svg").write_text(svg(screen))
    PAGE.write_text(page({screen.name: screen.command for screen in screens}))
    print(f"pictures: {len(screens)} in docs/images, shown by {PAGE.relative_to(ROOT)}")


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


def page(commands: dict[str, str]) -> str:
    """Return the page that shows them all."""
    parts = [INTRODUCTION]
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n")
        parts += [f"[![{commands[name]}](../images/{name}-80.svg)](../images/{name}-200.svg)\n" for name in names]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
