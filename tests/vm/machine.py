# SPDX-License-Identifier: Apache-2.0
"""A virtual machine with Debian's own kernel and live systemd: qemu's software emulation, so that no KVM is needed.

Debian's cloud kernel has NVMe and ext4 built in, so it finds its root without an initramfs. The host sends commands to `guest.py` by a
virtio port. The guest reaches the host's loopback, and nothing else, at GATEWAY.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

from lab import ROOT, CheckFailedError, run, wait

GATEWAY, ADDRESS = "10.96.0.1", "10.96.0.15"  # the first one is in the certificate of the tests' API server
PACKAGES = ("systemd-sysv", "kmod", "iproute2", "iputils-ping", "containernetworking-plugins", "curl")
KERNEL = "linux-image-cloud-amd64"
DISK = "3G"
PATIENCE = 300.0  # seconds for anything: the host may have other things to do
MODULES = ("virtio_pci", "virtio_console", "virtio_net")
# What would take time and tells nothing here.
MASKED = (
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "getty.target",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "tmp.mount",
)
SERVICE = f"""\
[Unit]
Description=Commands of the test
After=systemd-modules-load.service

[Service]
ExecStartPre=ip address replace {ADDRESS}/24 dev eth0
ExecStartPre=ip link set eth0 up
ExecStart=/usr/bin/python3 {ROOT}/tests/vm/guest.py
Restart=always
KillMode=process
StandardError=journal+console

[Install]
WantedBy=multi-user.target
"""


class Done(NamedTuple):
    """What a command in the guest came to."""

    code: int
    stdout: str
    stderr: str


def release() -> str:
    """Return this Debian's name: the guest is the same, so that what is made for our Python runs there, too."""
    return run("sh", "-c", '. /etc/os-release && echo "$VERSION_CODENAME"').strip()


def unpack_kernel(directory: Path) -> Path:
    """Unpack Debian's kernel package, which is not installed; return where."""
    words = run("apt-cache", "depends", KERNEL).split()
    directory.mkdir()
    subprocess.run(["apt-get", "download", "-qq", words[words.index("Depends:") + 1]], check=True, cwd=directory, stderr=subprocess.DEVNULL)
    (package,) = directory.glob("*.deb")
    run("dpkg-deb", "-x", package, directory)
    package.unlink()
    return directory


def make_root(root: Path, kernel: Path, debian: str, tree: Path) -> None:
    """Make the guest's root: Debian's base, what a node has on top of that, the kernel's modules, and a tree of files from the host."""
    base = Path(os.environ.get("KUBE_NODE_DEB_ROOTS", root.parent), debian)
    run(ROOT / "tests/packages/root.sh", debian, base, "python3")
    run("cp", "-a", base, root)
    chroot = ("chroot", root, "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
    run(*chroot, "apt-get", "update", "-qq")
    run(*chroot, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES)
    run(*chroot, "apt-get", "clean")
    run("cp", "-a", kernel / "lib/modules", root / "lib/")
    (version,) = (kernel / "lib/modules").iterdir()
    run(*chroot, "depmod", version.name)
    run("cp", "-a", f"{tree}/.", root)
    units = root / "etc/systemd/system"
    for name in MASKED:
        (units / name).symlink_to("/dev/null")
    (root / "etc/tmpfiles.d").mkdir(exist_ok=True)
    (root / "etc/tmpfiles.d/tmp.conf").symlink_to("/dev/null")  # which empties /tmp, where the checkout may lie
    (units / "vm-guest.service").write_text(SERVICE)
    (units / "multi-user.target.wants/vm-guest.service").symlink_to("../vm-guest.service")
    (root / "etc/modules-load.d/vm.conf").write_text("\n".join(MODULES) + "\n")
    (root / "etc/hostname").write_text("worker-1\n")
    (root / "etc/machine-id").write_text("")


class Machine:
    """A machine with its disk, its console's log and the port to its guest in one directory."""

    def __init__(self, directory: Path, root: Path, kernel: Path) -> None:
        self.boot_id = ""
        self.console = directory / "console.log"
        self._disk = directory / "disk"
        self._port, self._monitor = directory / "port", directory / "monitor"
        self._kernel = kernel
        self._process: subprocess.Popen[bytes] | None = None
        self._received = b""
        run("mke2fs", "-q", "-t", "ext4", "-d", root, self._disk, DISK)

    def __enter__(self) -> Self:
        (kernel,) = (self._kernel / "boot").glob("vmlinuz-*")
        self._process = subprocess.Popen([
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "qemu64", "-smp", "2", "-m", "2G",
            "-nodefaults", "-no-user-config", "-display", "none", "-serial", f"file:{self.console}",
            "-kernel", str(kernel), "-append", "root=/dev/nvme0n1 rw console=ttyS0 mitigations=off systemd.show_status=0",
            "-drive", f"file={self._disk},if=none,id=disk,format=raw,cache=writeback", "-device", "nvme,drive=disk,serial=disk",
            "-netdev", f"user,id=net,net={GATEWAY}/24,host={GATEWAY},ipv6=off", "-device", "virtio-net-pci,netdev=net,romfile=",
            "-chardev", f"socket,id=port,path={self._port},server=on,wait=off", "-device", "virtio-serial-pci",
            "-device", "virtserialport,chardev=port,name=guest",
            "-qmp", f"unix:{self._monitor},server=on,wait=off",
        ])  # fmt: skip
        wait("qemu's sockets", PATIENCE, self._monitor.exists)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(self._port))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _receive(self, seconds: float, what: str) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\n" not in self._received:
            self._socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                data = b""
            if not data:
                raise CheckFailedError(f"no answer from the guest within {seconds} s: {what}; its console:\n{self.trouble()}")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def wait_for_boot(self) -> float:
        """Wait until the guest has booted, or has booted anew; return how long that took."""
        begin = time.monotonic()
        before = self.boot_id
        while self.boot_id == before:
            self.boot_id = self._receive(PATIENCE, "boot").get("boot", before)
        return time.monotonic() - begin

    def ask(self, command: str, *, stdin: str = "", cwd: str = "/root", seconds: float = PATIENCE) -> Done:
        """Run a command by bash in the guest."""
        self._send(command, stdin, cwd)
        return Done(**self._receive(seconds, command))

    def _send(self, command: str, stdin: str = "", cwd: str = "/root") -> None:
        self._socket.settimeout(PATIENCE)
        self._socket.sendall(json.dumps({"command": command, "stdin": stdin, "cwd": cwd}).encode() + b"\n")

    def run(self, command: str, **how: Any) -> str:
        """Run a command that has to succeed; return what it prints."""
        done = self.ask(command, **how)
        if done.code:
            raise CheckFailedError(f"in the guest: {command}: exit code {done.code}\n{done.stdout}{done.stderr}")
        return done.stdout

    def reboot(self) -> float:
        """Let the guest reboot as an operator does; return how long that took."""
        self._send("systemctl --no-block reboot")  # which may be faster than its answer
        return self.wait_for_boot()

    def reset(self) -> float:
        """Reset the machine as a power failure does; return how long it takes to be back."""
        with socket.socket(socket.AF_UNIX) as monitor, monitor.makefile("rw") as lines:
            monitor.connect(str(self._monitor))
            for command in ("qmp_capabilities", "system_reset"):
                lines.write(json.dumps({"execute": command}) + "\n")
                lines.flush()
            while '"RESET"' not in lines.readline():
                pass
        self._received = b""
        return self.wait_for_boot()

    def trouble(self) -> str:
        return self.console.read_text(errors="replace")[-3000:]
