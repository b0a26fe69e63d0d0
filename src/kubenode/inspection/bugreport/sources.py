# SPDX-License-Identifier: Apache-2.0
"""The parts of a bug report; each function adds one to the archive."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import stat
import subprocess
from itertools import islice
from typing import TYPE_CHECKING, Any

from kubenode.base import files
from kubenode.base.jsontext import JSONTextError, loads
from kubenode.host import cniconfig
from kubenode.host.attachments import Attachments, everywhere
from kubenode.inspection import cri
from kubenode.inspection.agentprobe import AgentCredentials
from kubenode.inspection.bugreport.secrets import SECRET, of_kubeconfig, shape_of_kubeconfig
from kubenode.inspection.doctor.facts import Facts
from kubenode.kube.loadingrules import LARGEST, SERVICE_ACCOUNT
from kubenode.plugins.node_annotation import CONFIG_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.inspection.bugreport.archive import Archive
    from kubenode.inspection.locations import Locations

UNIT = "kube-node-agent"
LINES = 2000  # of a journal
TAIL = 256 << 10  # bytes of a log
MOST_RECORDS = 1000
MOST_LOGS = 8
PATIENCE = 10.0  # seconds for a command
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # does not wait for a named pipe
VARIABLES = (  # that name paths or servers, and cannot be secret
    "NODE_NAME", "KUBECONFIG", "KUBE_NODE_RUN_DIR", "KUBE_NODE_CONF", "KUBE_NODE_SOCKET", "KUBE_NODE_HOST_ROOT", "NODE_ANNOTATION_CFG",
    "CNI_PATH", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT",
)  # fmt: skip
POD_LOGS = "/var/log/pods/*kube-node-*/*/*.log"


def known_secrets(locations: Locations) -> Iterator[str]:
    """Yield all known secrets of this node: the archive contains none of them."""
    for environ in (locations.environ, _agent(locations).environ):
        yield from (value for name, value in environ.items() if SECRET.search(name) and not value.startswith("/"))
    for path in _kubeconfigs(locations):
        content = _yaml(path)
        yield from of_kubeconfig(content)
        for user in (content.get("users") or ()) if isinstance(content, dict) else ():
            token_file = (
                (user.get("user") or {}).get("tokenFile") if isinstance(user, dict) and isinstance(user.get("user"), dict) else None
            )
            if isinstance(token_file, str):
                yield from _text_of(locations.root.path(token_file))
    yield from _text_of(os.path.join(SERVICE_ACCOUNT, "token"))


def configuration(archive: Archive, locations: Locations) -> None:
    """Add the networks' configurations, the administrator's files, and the structure of kubeconfigs."""
    directory = locations.root.path(locations.config_dir)
    for name in sorted(os.listdir(directory)):
        if name.endswith(cniconfig.SUFFIXES):
            _add_json(archive, f"configuration/{name}", f"{locations.config_dir}/{name}", os.path.join(directory, name))
        else:
            archive.leave(f"{locations.config_dir}/{name}", "the runtime reads no network from it")
    for one in locations.named.configured:
        archive.add(f"configuration/named/{len(archive.taken)}.json", f"{one.name} of {one.path}", one.raw)
    for path in (locations.permitted.path, locations.environ.get("NODE_ANNOTATION_CFG") or CONFIG_PATH):
        if os.path.exists(locations.root.path(path)):
            _add_json(archive, f"configuration/administrator/{os.path.basename(path)}.json", path, locations.root.path(path))
    for number, path in enumerate(_kubeconfigs(locations)):
        if shape := shape_of_kubeconfig(_yaml(path)):
            archive.add(f"configuration/kubeconfig-{number}.json", f"the names in {path}", {"path": path, **shape})
            archive.leave(f"credentials in {path}", "they are secret")
    archive.add("configuration/environment.json", "variables that say where to look", {
        name: locations.environ[name] for name in VARIABLES if name in locations.environ
    })  # fmt: skip
    archive.leave("all other variables of the environment", "they may be secret")


def records(archive: Archive, locations: Locations) -> None:
    """Add the Node view, and the records of attachments."""
    run = locations.run
    if view := locations.view():
        keys = {one.ipam.get("annotation") for one in Facts(locations).configured}
        annotations = {key: text for key, text in view.node.annotations.items() if key in keys}
        manifest = view.node._replace(annotations=annotations).manifest()
        archive.add("records/node.json", f"{run}/node.json, with the annotations that networks read", {**manifest, "fetched": view.fetched})
        if others := len(view.node.annotations) - len(annotations):
            archive.leave(f"{others} annotations of the Node", "no network of this node reads them")
    found = [
        {"network": network, "container": attachment.container_id, "ifname": attachment.ifname, **record.as_object()}
        for network, attachment in islice(everywhere(run), MOST_RECORDS)
        if (record := Attachments(run, network).read(attachment))
    ]
    archive.add("records/attachments.json", f"{run}/attachments", found)
    if len(found) == MOST_RECORDS:
        archive.leave("further records of attachments", f"the first {MOST_RECORDS} are enough")


def logs(archive: Archive, locations: Locations) -> None:
    """Add the recent log lines of the agent, from systemd's journal or its container, and those of log files in configurations."""
    if shutil.which("journalctl"):
        text = _said("journalctl", f"--unit={UNIT}", f"--lines={LINES}", "--no-pager", "--output=short-iso")
        if text.strip() and "-- No entries --" not in text:
            archive.add("logs/journal.log", f"the last {LINES} lines of {UNIT} in the journal", text)
        else:
            archive.leave("the journal", f"it has no lines of {UNIT}")
    else:
        archive.leave("the journal", "there is no journalctl here")
    found = sorted(glob.glob(locations.root.path(POD_LOGS)))
    for number, path in enumerate(found[-MOST_LOGS:]):

        def add_container(path: str = path, number: int = number) -> None:
            archive.add(f"logs/container-{number}.log", path, _tail(os.open(path, READ)))

        archive.attempt(path, add_container)
    if not found:
        archive.leave("logs of the agent's container", f"there are none at {POD_LOGS}")
    named = {str(one.ipam["logfile"]) for one in Facts(locations).configured if isinstance(one.ipam.get("logfile"), str)}
    for number, path in enumerate(sorted(named - {"stderr", "stdout", ""})):

        def add(path: str = path, number: int = number) -> None:
            real = locations.permitted.require("logfile", path)
            archive.add(f"logs/plugin-{number}.log", path, _tail(files.open_exactly(locations.permitted.here(real), READ)))

        archive.attempt(path, add)


def machine(archive: Archive, locations: Locations) -> None:
    """Add the kernel, the distribution and the container runtimes."""
    system, name, release, version, architecture = os.uname()
    os_release = next((text for path in ("/etc/os-release", "/usr/lib/os-release") for text in _text_of(locations.root.path(path))), "")
    archive.add("machine/kernel.txt", "kernel and distribution", f"{system} {release} {version} {architecture}\n{name}\n{os_release}")
    runtimes: dict[str, Any] = {"sockets": cri.find_sockets(locations.root)}
    for program in ("containerd", "crio"):
        if shutil.which(program):
            runtimes[program] = _said(program, "--version").strip()
    archive.add("machine/runtime.json", "container runtimes", runtimes)
    archive.leave("the container runtimes' own configuration", "it contains registries' passwords")


def _kubeconfigs(locations: Locations) -> list[str]:
    """Return the kubeconfigs that plugins or a person name, by their paths for this process."""
    given = [locations.kubeconfig, *(locations.environ.get("KUBECONFIG") or "").split(os.pathsep)]
    facts = Facts(locations)
    named = [locations.root.path(path) for one in facts.configured if (path := facts.kubeconfig_of(one))]
    home = os.path.join(locations.environ.get("HOME") or "/root", ".kube/config")
    agents = _agent(locations)
    given += [agents.kubeconfig, *(agents.environ.get("KUBECONFIG") or "").split(os.pathsep)]
    return [path for path in dict.fromkeys([*given, *named, home]) if path and os.path.isfile(path)]


def _agent(locations: Locations) -> AgentCredentials:
    """Return the agent's credentials for the API server; empty if no agent runs, or it is not visible."""
    found = Facts(locations).agent_credentials
    return AgentCredentials("", {}, "") if isinstance(found, str) else found


def _yaml(path: str) -> Any:
    import yaml

    try:
        return yaml.load(files.read_regular(path)[:LARGEST], Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 -- both are safe
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return None


def _add_json(archive: Archive, file: str, what: str, path: str) -> None:
    """Add a JSON file; leave out any other, as the search for secrets needs JSON."""
    try:
        archive.add(file, what, loads(files.read_regular(path)))
    except (JSONTextError, UnicodeError) as error:
        archive.leave(what, f"not JSON, so secrets in it cannot be found: {error}")
    except OSError as error:
        archive.leave(what, str(error))


def _text_of(path: str) -> Iterator[str]:
    try:
        yield files.read_regular(path).decode(errors="replace")
    except OSError:
        return


def _tail(fd: int) -> str:
    """Return the last whole lines of a regular file: a part of a line may be a secret without its name."""
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        begin = max(0, status.st_size - TAIL)
        file.seek(begin)
        text = file.read(TAIL).decode(errors="replace")
    return text.partition("\n")[2] if begin else text


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout
