# SPDX-License-Identifier: Apache-2.0
"""The steps of a release that are more than a command, for .github/workflows/release.yml and whoever makes one by hand.

    release.py check v1.2.3                   the tag is the version of the code, and the changelog has a section for it: prints the version
    release.py notes 1.2.3                    that section, for the release's page
    release.py chart 1.2.3 --image=IMAGE      the chart of that version, with the image named in it, by helm
    release.py manifests 1.2.3 --image=IMAGE  the manifests for kubectl with that image
    release.py checksums DIRECTORY            DIRECTORY/SHA256SUMS, for sha256sum --check

IMAGE is REPOSITORY, with the version as tag, or REPOSITORY@sha256:….
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from kubenode.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
CHANGELOG = ROOT / "CHANGELOG.md"
CHART = ROOT / "deploy/chart"
MANIFESTS = ("kube-node.yaml",)
UNNAMED = "image: kube-node:latest"
RELEASE = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")  # of PEP 440, what may be a release's tag
SUMS = "SHA256SUMS"


class ReleaseError(Exception):
    """A release that must not be made."""


def check(tag: str, version: str = VERSION, changelog: Path = CHANGELOG) -> str:
    """Return the version that a tag names. Raises ReleaseError, unless code and changelog are of that version."""
    if tag != f"v{version}":
        raise ReleaseError(f"the tag is {tag}, and src/kubenode/version.py has {version}: that has to be the tag without its v")
    if not RELEASE.fullmatch(version):
        raise ReleaseError(f"{version} is no version of a release, such as 1.2.3 or 1.2.3rc1")
    notes(version, changelog)
    return version


def notes(version: str, changelog: Path = CHANGELOG) -> str:
    """Return what the changelog says of a version. Raises ReleaseError."""
    for section in re.split(r"^## ", changelog.read_text(), flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        if heading.split()[0].strip("[]") != version:
            continue
        if not re.fullmatch(r"\S+ - \d{4}-\d\d-\d\d", heading):
            raise ReleaseError(f"{changelog.name}: the heading of {version} has no date: ## {version} - YYYY-MM-DD")
        if not text.strip():
            raise ReleaseError(f"{changelog.name} says nothing of {version}")
        return text.strip() + "\n"
    raise ReleaseError(f"{changelog.name} has no section ## {version} - YYYY-MM-DD")


def semantic(version: str) -> str:
    """Return a version as Helm has it: 1.2.3-rc.1 for 1.2.3rc1."""
    return re.sub(r"(a|b|rc)(\d+)$", r"-\1.\2", version)


def chart(version: str, image: str, output: Path) -> Path:
    """Package the chart. It installs the image without a value being set."""
    repository, _, digest = image.partition("@")
    helm = os.environ.get("HELM", "helm")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(CHART, Path(scratch, "kube-node")))
        values = copy / "values.yaml"
        text = values.read_text()
        for old, new in (
            ("  repository: kube-node\n", f"  repository: {repository}\n"),
            ("  tag: latest\n", f'  tag: "{version}"\n'),
            ('  digest: ""\n', f'  digest: "{digest}"\n'),
        ):
            if text.count(old) != 1:
                raise ReleaseError(f"{CHART}/values.yaml has {text.count(old)} lines {old.strip()!r}, not one")
            text = text.replace(old, new)
        values.write_text(text)
        command = [helm, "package", str(copy), f"--version={semantic(version)}", f"--app-version={version}", f"--destination={output}"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ReleaseError(f"helm package: {done.stderr.strip()}")
    return output / f"kube-node-{semantic(version)}.tgz"


def manifests(version: str, image: str, output: Path) -> list[Path]:
    """Write the manifests with the image in them, each under its own name."""
    named = image if "@" in image else f"{image}:{version}"
    made = []
    for name in MANIFESTS:
        text = (ROOT / "deploy" / name).read_text()
        if UNNAMED not in text:
            raise ReleaseError(f"deploy/{name} has no {UNNAMED}")
        made.append(output / name)
        made[-1].write_text(text.replace(UNNAMED, f"image: {named}"))
    return made


def checksums(directory: Path) -> Path:
    """Write the sums of all files of a directory, as sha256sum does."""
    files = sorted(path for path in directory.iterdir() if path.is_file() and path.name != SUMS)
    if not files:
        raise ReleaseError(f"{directory} has no file")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (directory / SUMS).write_text("".join(lines))
    return directory / SUMS


def main() -> None:
    parser = argparse.ArgumentParser(description="The steps of a release that are more than a command.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check").add_argument("tag")
    commands.add_parser("notes").add_argument("version")
    for name in ("chart", "manifests"):
        command = commands.add_parser(name)
        command.add_argument("version")
        command.add_argument("--image", required=True)
        command.add_argument("--output", type=Path, default=ROOT / "_output")
    commands.add_parser("checksums").add_argument("directory", type=Path)
    given = parser.parse_args()
    try:
        match given.command:
            case "check":
                print(check(given.tag))
            case "notes":
                print(notes(given.version), end="")
            case "chart":
                print(chart(given.version, given.image, given.output))
            case "manifests":
                print(*manifests(given.version, given.image, given.output), sep="\n")
            case "checksums":
                print(checksums(given.directory))
    except ReleaseError as error:
        sys.exit(f"release: {error}")


if __name__ == "__main__":
    main()
