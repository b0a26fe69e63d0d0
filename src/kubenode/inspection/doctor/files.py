# SPDX-License-Identifier: Apache-2.0
"""Checks of installed things: executables, the agent, kubeconfigs."""

from __future__ import annotations

import os
import stat
from shlex import quote
from typing import TYPE_CHECKING

from kubenode.base.problem import Problem
from kubenode.host import cniconfig, delegate
from kubenode.inspection.doctor.executables import STANDALONE
from kubenode.inspection.doctor.finding import Finding, failure, of_error, ok, skipped, warning
from kubenode.installer import installed
from kubenode.kube.loadingrules import connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.inspection.doctor.executables import Executable
    from kubenode.inspection.doctor.facts import Facts

OTHERS = 0o077  # rights of group and others
INSTALL = "kube-node install"
BUILT_IN = frozenset(["", "embedded", "host-local"])  # delegates that are not needed as an executable


def plugins(facts: Facts) -> Iterator[Finding]:
    """Check that all configured plugins are in a CNI bin directory, and executable."""
    wanted = {str(name): None for one in facts.configured for name in (*one.chain, one.ipam.get("type")) if name}
    where = ", ".join(facts.locations.bin_dirs)
    directories = [facts.locations.root.path(directory) for directory in facts.locations.bin_dirs]
    for name in wanted:
        there = [path for directory in directories if os.path.lexists(path := os.path.join(directory, name))]
        if not there:
            ours = name in cniconfig.OURS
            advice = INSTALL if ours else "copy it there from the reference plugins (Debian: containernetworking-plugins)"
            yield failure(f"there is no plugin {name} in {where}", advice)
        elif not delegate.find(name, directories):
            path = there[0]
            if os.path.exists(path):
                yield failure(f"{path} cannot be executed", "make it executable", f"chmod 755 {quote(path)}")
            else:
                yield failure(f"{path} is a link to {os.readlink(path)}, which does not exist", INSTALL)
    yield ok(f"{', '.join(wanted)} in {where}") if wanted else skipped("no network with our plugins")


def one_version(facts: Facts) -> Iterator[Finding]:
    """Relays and launchers have the same version, as they read each other's files."""
    versions: dict[str, list[str]] = {}
    for one in facts.executables:
        if one.version:
            versions.setdefault(one.version, []).append(one.path)
    if len(versions) > 1:
        told = "; ".join(f"{', '.join(map(os.path.basename, paths))}: {version}" for version, paths in versions.items())
        yield failure(f"executables of several versions in {facts.bin_dir()}: {told}", f"install all of one: {INSTALL}")
    for version in versions:
        yield ok(f"all are {version}")
    for one in facts.executables:
        if not one.version:
            yield skipped(f"{one.path} does not show its version")
    if not facts.executables:
        yield skipped(f"there is no relay and no launcher in {', '.join(facts.locations.bin_dirs)}")


def fallback(facts: Facts) -> Iterator[Finding]:
    """Each relay has its launcher beside it, for times without an agent; or was installed without, and an agent answers."""
    launchers = {one.path: one for one in facts.executables if not one.is_relay}
    relays = [one for one in facts.executables if one.is_relay]
    if not relays:
        yield skipped(f"there is no relay in {', '.join(facts.locations.bin_dirs)}")
    say = warning if facts.agent.up else failure
    alone = []
    for relay in relays:
        launcher = launchers.get(relay.fallback)
        if launcher is None and facts.agent.up and _installed_alone(relay):
            alone.append(os.path.basename(relay.path))
        elif launcher is None:
            advice = f"without it pods start only while the agent runs; {INSTALL}"
            yield say(f"{relay.path} has no {os.path.basename(relay.fallback)} beside it", advice)
        elif not os.access(launcher.path, os.X_OK):
            yield say(f"{launcher.path} cannot be executed", "make it executable", f"chmod 755 {quote(launcher.path)}")
        else:
            yield ok(f"{os.path.basename(relay.path)} has its launcher beside it")
    for launcher in launchers.values():
        if launcher.broken:
            yield say(f"{launcher.path} cannot start: {launcher.broken}", f"install what was built for this node's Python: {INSTALL}")
    if alone:
        yield ok(f"{', '.join(alone)} installed without: the agent does their work")


def _installed_alone(relay: Executable) -> bool:
    names = installed.recorded(os.path.dirname(relay.path))
    return os.path.basename(relay.path) in names and os.path.basename(relay.fallback) not in names


def agent(facts: Facts) -> Iterator[Finding]:
    """Check that an agent answers, if relays are installed."""
    found = facts.agent
    relays = [one for one in facts.executables if one.is_relay and not one.path.endswith(STANDALONE)]
    if found.up:
        yield ok(f"{found.process} answers in {found.milliseconds:.1f} ms on {found.socket}")
    elif found.installed:
        start = "start it: systemctl restart kube-node-agent, or see its DaemonSet; kube-node agent runs it by hand"
        yield warning(f"the agent at {found.socket} is down: {found.problem}", start)
    elif relays:
        yield warning(
            f"relays are installed, and no agent serves {found.socket}",
            "start it: systemctl enable --now kube-node-agent, or its DaemonSet; until then each call starts Python",
        )
    else:
        yield ok("there is none, and none is needed: the plugins run by themselves")


def kubeconfig(facts: Facts) -> Iterator[Finding]:
    """Each kubeconfig of plugins is valid and complete, and only root can read it."""
    if facts.why_no_api:
        yield skipped(facts.why_no_api)
    for path in facts.kubeconfigs:
        here = facts.locations.root.path(path) if path and path != facts.locations.kubeconfig else path
        try:
            found = connection(here or None, facts.locations.environ)
        except Problem as error:
            yield of_error(error)
            continue
        secrets = [here, found.user.token_file, found.user.key.path if found.user.key else None]
        open_ones = [one for one in dict.fromkeys(secrets) if one and _open(one)]
        for one in open_ones:
            yield warning(
                f"{one} has a secret, and not only root can read it (mode {_mode(one):04o})", "let root alone read it", _lock(one)
            )
        if not open_ones:
            yield ok(f"{found.origin}, server {found.cluster.server}")


def _mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def _open(path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return bool(status.st_mode & OTHERS) or status.st_uid not in {0, os.geteuid()}


def _lock(path: str) -> str:
    return f"chown {os.geteuid()} {quote(path)} && chmod 600 {quote(path)}"


def allowed(facts: Facts) -> Iterator[Finding]:
    """Show the directories that a network configuration may name on this host, by the administrator's file."""
    permitted = facts.locations.permitted
    directories = permitted.allowed()
    where = permitted.path if os.path.exists(facts.locations.root.path(permitted.path)) else f"by default: there is no {permitted.path}"
    yield ok("; ".join(f"{key} below {', '.join(below) or 'nothing'}" for key, below in directories.items()) + f" ({where})")


def delegates(facts: Facts) -> Iterator[Finding]:
    """Check that the IPAM plugin that a configuration delegates to is installed."""
    directories = [facts.locations.root.path(directory) for directory in facts.locations.bin_dirs]
    named = [(one, str(one.ipam.get("delegate") or "")) for one in facts.configured]
    if all(name in BUILT_IN - {"host-local"} for _, name in named):
        yield skipped("no network delegates to another plugin")
    for one, name in named:
        if name in BUILT_IN - {"host-local"}:
            continue
        if delegate.find(name, directories):
            yield ok(f"network {one.name} delegates to {name}")
            continue
        advice = f'install it in {facts.bin_dir()}, or say "delegate": "embedded" in {one.path}'
        yield failure(f"network {one.name} delegates to {name}, which is not in {', '.join(facts.locations.bin_dirs)}", advice)
