# SPDX-License-Identifier: Apache-2.0
"""What a test may want of a machine beyond Python, and where that comes from. A test without it is left out, and the end says so."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

DEBIANS_CNI = Path("/usr/lib/cni")  # 1.1.1 in Debian 12
QEMU = "qemu-{}-static"
PREFIX = "wants "
SKIPPED = re.compile(r"(?:Skipped: )?" + PREFIX + r"(?P<name>.+?): (?P<source>.+)", re.DOTALL)


class Wanted(NamedTuple):
    source: str
    is_there: Callable[[], bool]


def program(*names: str) -> Callable[[], bool]:
    return lambda: all(map(shutil.which, names))


def works(*command: str) -> bool:
    """Tell whether a command ends well. What it says is nobody's business."""
    try:
        return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def is_root() -> bool:
    return os.geteuid() == 0


def may_mount() -> bool:
    """Mount something in a mount namespace of our own, as tests do. A chroot has none that it could change, most containers no right."""
    with tempfile.TemporaryDirectory() as directory:
        return is_root() and works("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && mount --bind "$0" "$0"', directory)


def may_make_netns() -> bool:
    """Make a network namespace with a name, and a link in it."""
    name = f"kn-probe-{os.getpid()}"
    if not (is_root() and works("ip", "netns", "add", name)):
        return False
    try:
        return works("ip", "-n", name, "link", "add", "one", "type", "veth", "peer", "name", "two") and may_mount()
    finally:
        works("ip", "netns", "del", name)


def may_shift_time() -> bool:
    """Run something in a time namespace, in which the machine has just booted."""
    return works("unshare", "--time", "--boottime", "-1", "true")


def links(compiler: str, option: str) -> bool:
    """Compile a static program, with libc, as the relay is compiled."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "empty.c")
        source.write_text("#include <unistd.h>\nint main(void) { return getpid() == 0; }\n")
        return works(compiler, option, str(source), "-o", f"{directory}/empty")


def gcc_links() -> bool:
    return links("gcc", "-static-pie")


def musl_gcc_links() -> bool:
    return links("musl-gcc", "-static")


def zig() -> bool:
    return find_spec("ziglang") is not None


def kustomizes() -> bool:
    """Tell whether kubectl knows components: Debian 12's is of 2020, with a kustomize that is older still."""
    with tempfile.TemporaryDirectory() as directory:
        for name, text in (
            ("component", "{apiVersion: kustomize.config.k8s.io/v1alpha1, kind: Component, configMapGenerator: [{name: x}]}"),
            ("top", "components: [../component]"),
        ):
            Path(directory, name).mkdir()
            Path(directory, name, "kustomization.yaml").write_text(text)
        return works("kubectl", "kustomize", f"{directory}/top")


def kubectl_version() -> tuple[int, int]:
    try:
        said = subprocess.run(["kubectl", "version", "--client"], check=False, capture_output=True, text=True).stdout
    except OSError:
        said = ""
    found = re.search(r"v(\d+)\.(\d+)\.", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@functools.cache
def specifications(directory: Path) -> tuple[str, ...]:
    """Return the versions of the specification that the host-local of a directory knows; none where there is none."""
    try:
        environ = {**os.environ, "CNI_COMMAND": "VERSION"}
        stdin = '{"cniVersion": "1.0.0"}'
        said = subprocess.run([directory / "host-local"], input=stdin, env=environ, check=False, capture_output=True, text=True).stdout
        return tuple(json.loads(said)["supportedVersions"])
    except (OSError, ValueError, KeyError):
        return ()


def reference(specification: str = "") -> Path | None:
    """Return a directory with the reference plugins: the one that is named, else Debian's, if that knows the specification."""
    if named := os.environ.get("CNI_TEST_PATH"):
        return Path(named)
    known = specifications(DEBIANS_CNI) if (DEBIANS_CNI / "bridge").exists() else ()
    return DEBIANS_CNI if known and (not specification or specification in known) else None


def asset(name: str) -> str | None:
    """Return the path of etcd or kube-apiserver: from the directory that is named, or PATH."""
    return shutil.which(name, path=f"{os.environ.get('KUBEBUILDER_ASSETS', '')}:{os.environ.get('PATH', os.defpath)}")


@functools.cache
def apiserver_minor() -> int:
    """Return the second number of kube-apiserver's version; 0 where there is none."""
    program = asset("kube-apiserver")
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout if program else ""
    return int(said.split(".")[1]) if said else 0


WANTED = {
    "machine-id": Wanted("/etc/machine-id, which systemd-machine-id-setup makes", lambda: bool(_text("/etc/machine-id").strip())),
    "root": Wanted("run the tests as root", is_root),
    "the right to mount": Wanted("root, outside of a chroot and of most containers", may_mount),
    "network namespaces": Wanted("root and Debian's iproute2, outside of a chroot and of most containers", may_make_netns),
    "time namespaces": Wanted("root and Debian's util-linux, outside of most containers", may_shift_time),
    "kube-apiserver": Wanted(
        "KUBEBUILDER_ASSETS, a directory with it and etcd (Debian: etcd-server; it has no kube-apiserver)",
        lambda: bool(asset("kube-apiserver") and asset("etcd")),
    ),
    "kube-apiserver whose rules know networks": Wanted(
        "KUBEBUILDER_ASSETS with kube-apiserver 1.31 or later, or one before 1.25, which has no rules",
        lambda: not 25 <= apiserver_minor() < 31,
    ),
    "the reference CNI plugins": Wanted(
        "CNI_TEST_PATH, a directory with 1.9.1 (Debian: containernetworking-plugins)", lambda: bool(reference())
    ),
    "the reference CNI plugins, for 1.1.0": Wanted(
        "CNI_TEST_PATH, a directory with 1.9.1 (Debian 12's containernetworking-plugins 1.1.1 end at specification 1.0.0)",
        lambda: bool(reference("1.1.0")),
    ),
    "the reference CNI plugins 1.1.1": Wanted(
        "Debian 12's containernetworking-plugins", lambda: specifications(DEBIANS_CNI)[-1:] == ("1.0.0",)
    ),
    "the reference CNI plugins in /usr/lib/cni": Wanted("Debian: containernetworking-plugins", (DEBIANS_CNI / "bridge").exists),
    "zig": Wanted(f"{sys.executable} -m pip install ziglang", zig),
    "a C compiler": Wanted("Debian: gcc musl-tools, or zig from PyPI: ziglang", lambda: zig() or musl_gcc_links() or gcc_links()),
    "gcc": Wanted("Debian: gcc libc6-dev", gcc_links),
    "musl-gcc": Wanted("Debian: gcc musl-tools", musl_gcc_links),
    "kubectl": Wanted("kubernetes.io, 1.21 or later in PATH (Debian 12's kubernetes-client 1.20.5 is too old)", kustomizes),
    "kubectl 1.28": Wanted("kubernetes.io, 1.28 or later in PATH", lambda: kubectl_version() >= (1, 28)),
    "helm": Wanted("helm.sh, in PATH or named by HELM", lambda: bool(os.environ.get("HELM") or shutil.which("helm"))),
    "promtool": Wanted("Debian: prometheus", program("promtool")),
    "prometheus": Wanted("Debian: prometheus", program("prometheus")),
    "systemd-analyze": Wanted("Debian: systemd", program("systemd-analyze")),
    "containerd": Wanted("Debian: containerd", program("containerd")),
    "setpriv": Wanted("Debian: util-linux", program("setpriv")),
    "strace": Wanted("Debian: strace", lambda: works("strace", "-o", os.devnull, "true")),
    "tmux": Wanted("Debian: tmux", program("tmux")),
    "ping": Wanted("Debian: iputils-ping", lambda: bool(shutil.which("ping") or shutil.which("busybox"))),
    "curl": Wanted("Debian: curl", program("curl")),
    "git": Wanted("Debian: git, and a clone", lambda: works("git", "-C", os.path.dirname(__file__), "rev-parse")),
}
WANTED |= {
    f"qemu for {name}": Wanted("Debian: qemu-user-static", program(QEMU.format(name)))
    for name in ("x86_64", "aarch64", "arm", "riscv64", "ppc64le", "s390x")
}


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


@functools.cache
def has(name: str) -> bool:
    return WANTED[name].is_there()


def want(*names: str) -> None:
    """Leave the test out unless all of this is here. The names are those of WANTED."""
    if missing := [name for name in names if not has(name)]:
        pytest.skip("\n".join(f"{PREFIX}{name}: {WANTED[name].source}" for name in missing))


def summary(reasons: Iterable[str]) -> Iterator[str]:
    """Yield lines that say for want of what tests were left out, and of how many; `reasons` has one entry a test."""
    counts: Counter[tuple[str, str]] = Counter()
    for reason in reasons:
        for line in reason.split("\n"):
            found = SKIPPED.fullmatch(line)
            counts[(found["name"], found["source"]) if found else (line.removeprefix("Skipped: "), "")] += 1
    width = max((len(name) for name, _ in counts), default=0)
    for (name, source), count in counts.most_common():
        yield f"{count:5} {name:{width}}  {source}".rstrip()
