# SPDX-License-Identifier: Apache-2.0
"""`kind` and `docker`, as far as docs/how-to/kind.md calls them: the words are read as the real ones read them, the cluster is the lab's.

standins.py kind|docker BASE WORD…     BASE: the directory of tests/e2e/kind.py, with lab, image-1 and the Dockerfile's checkout
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import yaml
from lab import ENTRYPOINT, POD_NETWORKS

NETWORKING = {"ipFamily", "disableDefaultCNI", "podSubnet", "serviceSubnet", "apiServerAddress", "apiServerPort", "kubeProxyMode"}


def docker(base: Path, words: list[str]) -> None:
    """Note that an image was built: what it holds is there."""
    parser = argparse.ArgumentParser(prog="docker")
    build = parser.add_subparsers(required=True).add_parser("build")
    build.add_argument("--build-arg", action="append", default=[])
    build.add_argument("-t", "--tag", required=True)
    build.add_argument("context", type=Path)
    given = parser.parse_args(words)
    dockerfile = (given.context / "Dockerfile").read_text()
    for argument in given.build_arg:
        if f"ARG {argument.partition('=')[0]}=" not in dockerfile:
            sys.exit(f"docker: the Dockerfile has no {argument}")
    (base / "built").write_text(given.tag)


def kind(base: Path, words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="kind")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, noun in (("create", "cluster"), ("load", "docker-image"), ("delete", "cluster")):
        one = commands.add_parser(command).add_subparsers(required=True).add_parser(noun)
        one.add_argument("--name", default="kind")
        if command == "create":
            one.add_argument("--config", type=Path)
        if command == "load":
            one.add_argument("image")
    given = parser.parse_args(words)
    running = base / "kind"
    if given.command == "create":
        if running.exists():
            sys.exit(f"kind: {running.read_text()} is there already")
        if given.config:
            check(yaml.safe_load(given.config.read_text()))
        running.write_text(given.name)
    elif running.read_text() != given.name:
        sys.exit(f"kind: no nodes found for cluster {given.name!r}")
    elif given.command == "delete":
        subprocess.run(["kubectl", "delete", "pods", "--all", "--now", "--wait"], check=True, stdout=subprocess.DEVNULL, timeout=300)
        running.unlink()
    else:
        load(base, given.image)


def check(config: dict[str, object]) -> None:
    """Refuse what kind refuses, and another network than the lab's."""
    networking = config["networking"]
    assert isinstance(networking, dict)
    if (config["kind"], config["apiVersion"]) != ("Cluster", "kind.x-k8s.io/v1alpha4") or networking.keys() - NETWORKING:
        sys.exit(f"kind: unknown configuration {config}")
    networks = [ipaddress.ip_network(text) for text in networking["podSubnet"].split(",")]
    if f"--cluster-cidr={','.join(map(str, networks))}" != POD_NETWORKS or not networking["disableDefaultCNI"]:
        sys.exit(f"kind: the lab has {POD_NETWORKS}, and no network; asked was for {networking}")


def load(base: Path, image: str) -> None:
    if (base / "built").read_text() != image:
        sys.exit(f"kind: image {image!r} not present locally")
    cluster = Path(os.environ["KUBE_NODE_TESTBIN"], "cluster")
    name = f"docker.io/library/{image}"
    subprocess.run([cluster, "image", base / "lab", name, (base / "image-1").resolve(), *ENTRYPOINT], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    program, place, *rest = sys.argv[1:]
    {"docker": docker, "kind": kind}[program](Path(place), rest)
