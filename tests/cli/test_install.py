# SPDX-License-Identifier: Apache-2.0
"""`kube-node install` and `uninstall`: what comes onto a node, stays right there, and goes again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import camelcase
import pytest
from wanting import want

from kubenode.cli.install import command, uninstall
from kubenode.host.attachments import Attachments, Record
from kubenode.installer import held
from kubenode.ipam.store import Attachment
from kubenode.kube import credentials, loadingrules

if TYPE_CHECKING:
    from collections.abc import Mapping

BIN, CREDENTIALS = "opt/cni/bin", "etc/cni/net.d/kube-node.d"
RELAYS = {"kube-node", "node-annotation"}
CONFIG = "etc/cni/net.d"
WATCHED = {"etc", "etc/cni", CONFIG}  # by the runtime, so that they stay
NETWORK = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge", "ipam": {"type": "kube-node"}}]}
FOREIGN = b"#!/bin/sh\necho somebody else\n"


class Host:
    """A host's root directory, and the install command of some build for it."""

    def __init__(self, root: Path, build: Path, account: Path) -> None:
        self.root = root
        self.build = build
        self.account: Path | None = account
        self.bin = root / BIN
        self.environment = {"PATH": os.defpath, "KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443", "NODE_NAME": "n1"}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.build / "kube-node.standalone"), *words, f"--host-root={self.root}"]
        if words[0] == "install" and self.account:
            command += [f"--service-account={self.account}"]
        return subprocess.run(command, env=self.environment, check=False, capture_output=True, text=True, timeout=120)

    def done(self, *words: str) -> dict[str, str]:
        """Run it, and return what was done to each path."""
        done = self.run(*words, "-o", "json")
        assert done.returncode == 0, done.stdout + done.stderr
        camelcase.require(["-o", "json"], done.stdout)
        return {step["path"]: step["what"] for step in json.loads(done.stdout)["steps"]}

    def leave_the_pod(self) -> None:
        """Run from now on as a person does on the node."""
        self.environment = {"PATH": os.defpath}
        self.account = None

    def refusal(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 69
        return done.stderr

    def tree(self) -> dict[str, str]:
        """Return each path of the host, with mode and content; but for the directories that stay."""
        return {
            name: f"{path.stat().st_mode:o} {path.read_bytes()[:80]!r}" if path.is_file() else "directory"
            for path in sorted(self.root.rglob("*"))
            if (name := str(path.relative_to(self.root))) not in WATCHED
        }

    def with_python(self) -> None:
        """Let the host have the interpreter that the launchers name."""
        interpreter = (self.build / "kube-node.standalone").read_text().splitlines()[0].removeprefix("#!").split()[0]
        real = self.root / f"usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        real.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", real)
        link = self.root / interpreter.removeprefix("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        if link != real:
            link.symlink_to(f"/usr/bin/{real.name}")


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """Return a directory as the kubelet mounts a service account."""
    directory = tmp_path / "account"
    directory.mkdir()
    (directory / "token").write_text("token-1")
    (directory / "ca.crt").write_text("authority-1")
    return directory


@pytest.fixture
def host(tmp_path: Path, built: Path, account: Path) -> Host:
    root = tmp_path / "host"
    root.mkdir()
    return Host(root, built, account)


def other_build(build: Path, to: Path, version: str) -> Path:
    """Return a copy of a build that calls itself by another version of the same length."""
    shutil.copytree(build, to, symlinks=True)
    for name in ("kube-node", "node-annotation", "host-local"):
        content = (to / name).read_bytes()
        assert b"1.2.3-test" in content
        (to / name).write_bytes(content.replace(b"1.2.3-test", version.encode()))
    module = to / "kube-node.lib/kubenode/version.py"
    module.write_text(module.read_text().replace("1.2.3-test", version))
    for compiled in module.parent.glob("__pycache__/version.*"):
        compiled.unlink()
    return to


def test_a_host_without_python_gets_the_relays(host: Host) -> None:
    """Relays, a kubeconfig, the Node's name, and a record of them: nothing that needs a Python which is not there."""
    assert set(host.done("install").values()) == {"write"}
    assert {path.name for path in host.bin.iterdir()} == RELAYS | {"kube-node.installed"}
    assert all((host.bin / name).stat().st_mode & 0o7777 == 0o755 for name in RELAYS)
    assert (host.root / "run/kube-node/nodename").read_text() == "n1\n"


def test_a_host_with_the_same_python_gets_the_standalone_plugins_too(host: Host) -> None:
    """Where the interpreter that the launchers name is there, through a link of the host's, a call without agent works."""
    host.with_python()
    host.done("install")
    assert {path.name for path in host.bin.iterdir()} >= {f"{name}.standalone" for name in RELAYS}
    environment = {"PATH": os.defpath, "CNI_COMMAND": "VERSION", "KUBE_NODE_SOCKET": "/nowhere"}
    # The launcher's first line is for the host; here its text runs with an interpreter of ours.
    done = subprocess.run(
        [host.bin / "kube-node"], env=environment, input='{"cniVersion": "1.1.0"}', check=False, capture_output=True, text=True
    )
    assert "1.1.0" in json.loads(done.stdout)["supportedVersions"]


def test_a_python_of_another_version_does_not_count(host: Host) -> None:
    """Compiled dependencies work with one minor version; with another the standalone plugins would only fail."""
    host.with_python()
    interpreter = (host.build / "kube-node.standalone").read_text().splitlines()[0].removeprefix("#!").split()[0].removeprefix("/")
    (host.root / interpreter).unlink()
    (host.root / "usr/bin/python3.2").write_bytes(b"")
    (host.root / "usr/bin/python3.2").chmod(0o755)
    (host.root / interpreter).symlink_to("/usr/bin/python3.2")
    assert not any(path.endswith(".standalone") for path in host.done("install"))


def test_the_kubeconfig_is_what_the_pod_has(host: Host) -> None:
    """It names server, token file and authority by relative paths, all for root only, and a client takes it as it is."""
    host.done("install")
    directory = host.root / CREDENTIALS
    assert directory.stat().st_mode & 0o7777 == 0o700
    assert {path.name: path.stat().st_mode & 0o7777 for path in directory.iterdir()} == dict.fromkeys(
        ["kubeconfig", "token", "ca.crt"], 0o600
    )
    connection = loadingrules.connection(str(directory / "kubeconfig"), {})
    assert connection.cluster.server == "https://[fd00::1]:443"
    assert connection.user.token_file == str(directory / "token")
    assert credentials.identify(connection, {}, 1.0).authorization == "Bearer token-1"


def test_a_second_time_changes_nothing(host: Host) -> None:
    """Installing again finds everything as it is, to the inode."""
    host.with_python()
    host.done("install")
    before = {path: path.stat().st_ino for path in host.root.rglob("*") if path.name != "kube-node.installed"}
    assert set(host.done("install").values()) == {"keep"}
    assert {path: path.stat().st_ino for path in host.root.rglob("*") if path.name != "kube-node.installed"} == before


def test_a_dry_run_touches_nothing(host: Host) -> None:
    """It says the same as the run that follows, and neither it nor a dry uninstall leaves a trace."""
    told = host.done("install", "--dry-run")
    assert host.tree() == {}
    assert host.done("install") == told
    before = host.tree()
    told = host.done("uninstall", "--dry-run")
    assert host.tree() == before
    assert host.done("uninstall") == told


def test_uninstall_leaves_what_was_there_before(host: Host) -> None:
    """After uninstall the host is as before, whoever's files were there, and what the plugins have kept is still there."""
    host.with_python()
    for name in ("bridge", "host-local"):
        host.bin.mkdir(parents=True, exist_ok=True)
        (host.bin / name).write_bytes(FOREIGN)
    (host.root / "etc/cni/net.d").mkdir(parents=True)
    (host.root / "etc/cni/net.d/05-other.conf").write_text("{}")
    before = host.tree()
    host.done("install")
    assert host.tree() != before
    host.done("uninstall")
    assert host.tree() == before
    assert "nothing is installed" in host.run("uninstall").stdout


@pytest.mark.parametrize("path", [f"{BIN}/kube-node", f"{CREDENTIALS}/kubeconfig", f"{BIN}/host-local"])
def test_a_foreign_file_is_not_overwritten(host: Host, path: str) -> None:
    """What stands there and is not ours is named, before anything is changed; --force sets it aside, and uninstall brings it back."""
    plugins = "--plugins=kube-node,node-annotation,host-local"
    (host.root / path).parent.mkdir(parents=True)
    (host.root / path).write_bytes(FOREIGN)
    before = host.tree()
    error = host.refusal("install", plugins)
    assert f"/{path} is not ours" in error
    assert "--force" in error
    assert host.tree() == before

    host.done("install", plugins, "--force")
    assert (host.root / path).read_bytes() != FOREIGN
    assert (host.root / f"{path}.before-kube-node").read_bytes() == FOREIGN
    assert set(host.done("install", plugins).values()) == {"keep"}
    assert host.done("uninstall")[f"/{path}"] == "restore"
    assert host.tree() == before


def test_the_references_host_local_stays_unless_asked(host: Host) -> None:
    """Without --plugins a host-local that is there is not looked at."""
    host.bin.mkdir(parents=True)
    (host.bin / "host-local").write_bytes(FOREIGN)
    assert f"/{BIN}/host-local" not in host.done("install")
    assert (host.bin / "host-local").read_bytes() == FOREIGN


def test_what_was_copied_by_hand_is_taken_over(host: Host, tmp_path: Path) -> None:
    """Relays and launchers of another build that somebody has copied there are ours, and are replaced without --force."""
    host.with_python()
    shutil.copytree(other_build(host.build, tmp_path / "old", "1.2.2-test"), host.bin, symlinks=True)
    done = host.done("install")
    assert {done[f"/{BIN}/{name}"] for name in RELAYS} == {"replace"}


def test_a_file_changed_since_is_somebody_elses(host: Host) -> None:
    """Neither an upgrade nor uninstall undoes what a person has done to our file, unless forced to."""
    host.done("install")
    kubeconfig = host.root / CREDENTIALS / "kubeconfig"
    kubeconfig.write_text("{}")
    assert "was changed since it was installed" in host.refusal("install")
    done = host.run("uninstall")
    assert done.returncode == 1
    assert kubeconfig.read_text() == "{}"
    assert not (host.bin / "kube-node").exists()
    host.done("uninstall", "--force")
    assert host.tree() == {}


def test_what_is_left_alone(host: Host, tmp_path: Path) -> None:
    """With --leave all is done but for what a person has changed, or what is foreign: a warning each, and it stays that person's."""
    conflist = f"--conflist={write_conflist(tmp_path)}"
    host.done("install", conflist, "--plugins=kube-node")
    edited = host.root / CONFIG / "10-net.conflist"
    edited.write_text(json.dumps(NETWORK | {"cniVersion": "0.4.0"}))
    (host.bin / "node-annotation").write_bytes(FOREIGN)
    before = edited.read_text()
    host.build = other_build(host.build, tmp_path / "new", "1.2.4-test")
    host.refusal("install", conflist, "--plugins=kube-node,node-annotation")
    done = host.run("install", conflist, "--plugins=kube-node,node-annotation", "--leave")
    assert done.returncode == 0
    assert edited.read_text() == before
    assert (host.bin / "node-annotation").read_bytes() == FOREIGN
    assert b"1.2.4-test" in (host.bin / "kube-node").read_bytes()
    warnings = [line for line in done.stderr.splitlines() if line.startswith("Warning: ")]
    assert [line.split()[1] for line in warnings] == [f"/{BIN}/node-annotation", f"/{CONFIG}/10-net.conflist"]
    assert "is not ours" in warnings[0]
    assert "was changed since it was installed" in warnings[1]
    assert host.run("uninstall").returncode == 1
    assert {path for path, kind in host.tree().items() if kind != "directory"} == {
        f"{BIN}/node-annotation",
        f"{BIN}/kube-node.installed",
        f"{CONFIG}/10-net.conflist",
    }


def test_what_the_agent_writes_anew_stays_ours(host: Host) -> None:
    """A token that the agent has renewed, or a Node's name, is no foreign file: the next install renews it, uninstall removes it."""
    host.done("install")
    (host.root / CREDENTIALS / "token").write_text("token-2")
    (host.root / "run/kube-node/nodename").write_text("other\n")
    assert host.done("install")[f"/{CREDENTIALS}/token"] == "replace"
    (host.root / CREDENTIALS / "token").write_text("token-3")
    host.done("uninstall")
    assert host.tree() == {}


def test_uninstall_takes_the_boots_away(host: Host) -> None:
    """What says of which boot reservations are goes with us: by default's directory, those of configurations, those of records."""
    host.done("install")
    for name in ("default", "configured", "recorded"):
        directory = host.root / ("var/lib/cni/networks" if name == "default" else f"data/{name}")
        (directory / "net").mkdir(parents=True)
        (directory / "net/10.0.0.2").write_text("c1\r\neth0")
        (directory / ".net.note").write_text("any")
    conf = {"name": "net", "type": "bridge", "ipam": {"type": "kube-node", "dataDir": "/data/configured"}}
    (host.root / "etc/cni/net.d/10-net.conf").write_text(json.dumps(conf))
    Attachments(str(host.root / "run/kube-node"), "net").write(Attachment("c1", "eth0"), Record(data_dir="/data/recorded"))
    done = host.done("uninstall")
    assert done["/data/configured/.net.note"] == "remove"
    assert list(host.root.rglob(".*.note")) == []
    assert len(list(host.root.rglob("10.0.0.2"))) == 3


def test_an_upgrade_leaves_one_library_back(host: Host, tmp_path: Path) -> None:
    """A call that began before the upgrade goes on with its own library; the one before that is removed."""
    host.with_python()
    builds = [host.build, *(other_build(host.build, tmp_path / version, version) for version in ("1.2.4-test", "1.2.5-test"))]
    seen: list[set[str]] = []
    for build in builds:
        host.build = build
        host.done("install")
        seen.append({path.name for path in host.bin.glob("kube-node.lib*")})
    assert [len(names) for names in seen] == [1, 2, 2]
    assert not seen[0] & seen[2]
    host.done("uninstall")
    assert host.tree() == {
        "usr": "directory",
        "usr/bin": "directory",
        **{name: text for name, text in host.tree().items() if "usr/bin/" in name},
    }


def test_upgrades_under_running_calls(host: Host, tmp_path: Path) -> None:
    """While versions change places, each call of a plugin finds a whole one: none fails, and old and new both answer."""
    host.with_python()
    builds = [host.build, other_build(host.build, tmp_path / "new", "1.2.4-test")]
    host.done("install")
    answers: list[tuple[int, str]] = []
    stop = threading.Event()
    environment = {"PATH": os.defpath, "KUBE_NODE_SOCKET": "/nowhere"}

    def call() -> None:
        while not stop.is_set():
            done = subprocess.run([host.bin / "kube-node", "--version"], env=environment, check=False, capture_output=True, text=True)
            answers.append((done.returncode, done.stdout.strip() or done.stderr))

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for turn in range(6):
        host.build = builds[(turn + 1) % 2]
        host.done("install")
    time.sleep(0.5)
    stop.set()
    for caller in callers:
        caller.join()
    assert set(answers) == {(0, "1.2.3-test"), (0, "1.2.4-test")}


@pytest.mark.parametrize("after", [0.0, 0.1, 0.3, 0.5])
def test_killed_in_the_middle(host: Host, after: float) -> None:
    """Whenever install is killed, each name holds a whole file, another install finishes the work, and uninstall takes back each file."""
    host.with_python()
    before = {path for path, kind in host.tree().items() if kind != "directory"}
    command = [str(host.build / "kube-node.standalone"), "install", f"--host-root={host.root}", f"--service-account={host.account}"]
    process = subprocess.Popen(command, env=host.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while not host.bin.exists() and time.monotonic() < end and process.poll() is None:
        time.sleep(0.005)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for name in RELAYS:
        if (host.bin / name).exists():
            assert (host.bin / name).read_bytes() == (host.build / name).read_bytes()
    host.done("install")
    host.done("uninstall")
    assert {path for path, kind in host.tree().items() if kind != "directory"} == before


def write_conflist(directory: Path, name: str = "10-net.conflist", **more: Any) -> Path:
    path = directory / name
    path.write_text(json.dumps(NETWORK | more))
    return path


def test_a_network_configuration_comes_last(host: Host, tmp_path: Path) -> None:
    """The runtime finds a network only when its plugins are there, and loses it first, also where another run brought the rest."""
    conflist = f"--conflist={write_conflist(tmp_path)}"
    assert list(host.done("install", conflist))[-1] == f"/{CONFIG}/10-net.conflist"
    host.done("install")
    assert next(iter(host.done("uninstall"))) == f"/{CONFIG}/10-net.conflist"


def test_a_network_configuration_that_waits_for_the_agent(host: Host, tmp_path: Path) -> None:
    """With --hold the runtime does not see a new network before the agent lets it go; then, and without it, install is as ever."""
    conflist, path = f"--conflist={write_conflist(tmp_path)}", f"/{CONFIG}/10-net.conflist"
    waiting = f"{path}{held.SUFFIX}"
    assert host.done("install", conflist, "--hold", "--dry-run")[path] == "hold"
    for _ in range(2):
        assert host.done("install", conflist, "--hold")[path] == "hold"
        assert not (host.root / path[1:]).exists()
        assert json.loads((host.root / waiting[1:]).read_text()) == NETWORK
    assert host.done("uninstall")[path] == "remove"
    assert host.tree() == {}
    host.done("install", conflist, "--hold")
    assert host.done("install", "--conflist=none")[path] == "remove"
    assert not (host.root / waiting[1:]).exists()
    host.done("install", conflist, "--hold")
    assert held.let_go(str(host.root / waiting[1:]))
    assert host.done("install", conflist, "--hold")[path] == "keep"
    conflist = f"--conflist={write_conflist(tmp_path, cniVersion='0.4.0')}"
    assert host.done("install", conflist, "--hold")[path] == "replace"
    host.done("uninstall")
    host.done("install", conflist, "--hold")
    assert host.done("install", conflist)[path] == "write"
    assert not (host.root / waiting[1:]).exists()
    host.done("uninstall")
    assert host.tree() == {}


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("10-net.conflist", "{", "it is not JSON"),
        ("10-net.conflist", "[]", "it is a JSON array"),
        ("10-net.conflist", '{"name": "a b", "plugins": [{"type": "bridge"}]}', "none of letters, digits"),
        ("10-net.conflist", '{"name": "net", "type": "bridge"}', "it is one plugin"),
        ("10-net.conflist", '{"name": "net", "plugins": []}', "plugins is empty"),
        ("10-net.conflist", '{"name": "net", "plugins": [{}]}', "a plugin has no type"),
        ("10-net.conf", json.dumps(NETWORK), "only a .conflist may"),
        ("10-net.yaml", json.dumps(NETWORK), "its name ends in none of .conf, .conflist, .json"),
    ],
)
def test_a_configuration_that_the_runtime_refuses(host: Host, tmp_path: Path, name: str, text: str, problem: str) -> None:
    """What the runtime would pass over, or stop at, is refused with the reason, before anything is changed."""
    (tmp_path / name).write_text(text)
    assert problem in host.refusal("install", f"--conflist={tmp_path / name}")
    assert host.tree() == {}


def test_what_an_option_brought_stays(host: Host, tmp_path: Path) -> None:
    """An upgrade that is not told them keeps network, node name, credentials, host-local and the standalone plugins: pods go on."""
    (host.bin).mkdir(parents=True)
    (host.bin / "host-local").write_bytes(FOREIGN)
    plugins = "--plugins=kube-node,node-annotation,host-local"
    own = "--credentials=/etc/kubernetes/cni"
    given = [plugins, "--standalone=yes", own, "--api-server=https://192.0.2.1:6443", f"--conflist={write_conflist(tmp_path)}"]
    host.done("install", *given, "--force")
    before = host.tree()
    host.build = other_build(host.build, tmp_path / "new", "1.2.4-test")
    (tmp_path / "10-net.conflist").unlink()
    changed = {path for path, what in host.done("install").items() if what == "replace"}
    assert changed == {f"/{BIN}/{name}{end}" for name in RELAYS | {"host-local"} for end in ("", ".standalone")}
    host.leave_the_pod()
    assert set(host.done("install").values()) == {"keep"}
    after = host.tree()
    assert before.keys() - after.keys() == set()
    for path in (f"{CONFIG}/10-net.conflist", "run/kube-node/nodename", "etc/kubernetes/cni/kubeconfig", "etc/kubernetes/cni/token"):
        assert after[path] == before[path]
    assert (host.root / "etc/kubernetes/cni/kubeconfig").read_text().count("https://192.0.2.1:6443") == 1
    host.done("uninstall")
    assert {path for path, kind in host.tree().items() if kind != "directory"} == {f"{BIN}/host-local"}


def test_an_option_takes_back_what_it_brought(host: Host, tmp_path: Path) -> None:
    """Another file in a network's place, or none; no credentials, also the next time; no node name: each by its option and no other."""
    host.done("install", f"--conflist={write_conflist(tmp_path)}")
    assert host.done("install", f"--conflist={write_conflist(tmp_path, '20-net.conflist')}")[f"/{CONFIG}/10-net.conflist"] == "remove"
    assert host.done("install", "--conflist=none")[f"/{CONFIG}/20-net.conflist"] == "remove"
    assert (host.root / CREDENTIALS / "kubeconfig").exists()
    assert host.done("install", "--credentials=none")[f"/{CREDENTIALS}/token"] == "remove"
    host.done("install")
    assert not (host.root / CREDENTIALS).exists() or not list((host.root / CREDENTIALS).iterdir())
    assert (host.root / "run/kube-node/nodename").exists()
    assert host.done("install", "--node-name=")["/run/kube-node/nodename"] == "remove"
    host.done("uninstall")
    assert host.tree() == {}


def test_a_record_of_an_earlier_version(host: Host, tmp_path: Path) -> None:
    """What was installed before options were remembered stays, too: the network, the node name, host-local."""
    host.done("install", "--plugins=kube-node,node-annotation,host-local", f"--conflist={write_conflist(tmp_path)}")
    path = host.bin / "kube-node.installed"
    record = json.loads(path.read_text())
    del record["options"]
    for entry in record["files"].values():
        entry.pop("option", None)
    path.write_text(json.dumps(record))
    host.leave_the_pod()
    assert set(host.done("install").values()) == {"keep"}
    assert (host.root / CONFIG / "10-net.conflist").exists()
    assert (host.bin / "host-local").exists()
    host.done("uninstall")
    assert host.tree() == {}


def test_the_runtimes_directory_stays(host: Host, tmp_path: Path) -> None:
    """uninstall leaves the directory of configurations, also where install made it: a runtime that watches it would be blind."""
    elsewhere = "--cni-config=/etc/other/net.d"
    host.done("install", f"--conflist={write_conflist(tmp_path)}", elsewhere, "--credentials=/etc/other/net.d/own")
    before = (host.root / "etc/other/net.d").stat().st_ino
    host.done("uninstall")
    assert (host.root / "etc/other/net.d").stat().st_ino == before
    host.done("install")
    before = (host.root / CONFIG).stat().st_ino
    host.done("uninstall")
    assert (host.root / CONFIG).stat().st_ino == before


def test_where_nothing_may_be_started(host: Host) -> None:
    """Plugins on a file system that is mounted noexec would never start: install says so, and changes nothing."""
    want("the right to mount")
    host.bin.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "none", host.bin], check=True)
    try:
        for words in (["install"], ["install", "--dry-run"]):
            assert "noexec" in host.refusal(*words)
        assert not list(host.bin.iterdir())
    finally:
        subprocess.run(["umount", host.bin], check=True)


def test_it_installs_from_where_it_was_installed(host: Host, tmp_path: Path, account: Path) -> None:
    """What was put into one place can be put into another from there."""
    host.with_python()
    host.done("install")
    second = Host(tmp_path / "second", host.bin, account)
    second.root.mkdir()
    second.with_python()
    second.done("install")
    assert {path.name for path in second.bin.iterdir()} == {path.name for path in host.bin.iterdir()}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--plugins=bridge"], "some of kube-node, node-annotation, host-local"),
        (["--from=/nowhere"], "/nowhere"),
        (["--service-account=/nowhere"], "/nowhere/token"),
    ],
)
def test_what_cannot_be_installed(host: Host, words: list[str], problem: str) -> None:
    """A wrong option is named, and nothing is changed."""
    done = host.run("install", *words) if "service" not in words[0] else _with_account(host, words[0])
    assert done.returncode != 0
    assert problem in done.stderr
    assert host.tree() == {}


def test_a_host_root_that_is_not_there(host: Host) -> None:
    """A host root that does not exist is named; it is not made."""
    host.root.rmdir()
    assert f"no host root {host.root}" in host.refusal("install")
    assert not host.root.exists()


def _with_account(host: Host, option: str) -> subprocess.CompletedProcess[str]:
    host.account = Path(option.partition("=")[2])
    return host.run("install")


def test_the_record_says_what_is_ours(host: Host) -> None:
    """A person, or another tool, can read which files were installed, by which version."""
    host.done("install")
    record: Mapping[str, Any] = json.loads((host.bin / "kube-node.installed").read_text())
    assert record["version"] == "1.2.3-test"
    assert set(record["files"]) == {f"/{path}" for path, kind in host.tree().items() if kind != "directory"} - {
        f"/{BIN}/kube-node.installed"
    }


def test_a_damaged_library_is_mended(host: Host) -> None:
    """What a power failure has torn in the library's directory is found by its digest, and whole after the next installation."""
    host.with_python()
    host.done("install")
    (library,) = host.bin.glob("kube-node.lib.*")
    (library / "kubenode/launcher.py").write_bytes(b"")
    assert host.done("install")[f"/{BIN}/{library.name}"] == "replace"
    assert (library / "kubenode/launcher.py").read_bytes()


def test_the_reference_has_every_option() -> None:
    """docs/reference/install.md names each option of both commands, and no other."""
    text = (Path(__file__).resolve().parent.parent.parent / "docs/reference/install.md").read_text()
    options = {option for made in (command, uninstall) for parameter in made.params for option in parameter.opts}
    named = re.findall(r"^\| (`-.*?) \|", text, re.MULTILINE)
    assert {option for cell in named for option in re.findall(r"`(--?[a-z-]+)", cell)} == options
