# SPDX-License-Identifier: Apache-2.0
"""Checks of the API server and of the own Node."""

from __future__ import annotations

import os
from shlex import quote
from typing import TYPE_CHECKING, Any

from kubenode.cni.errors import FORBIDDEN, MACHINE_ID_AMBIGUOUS, NODE_NOT_FOUND, UNAUTHORIZED, CNIError
from kubenode.inspection.doctor.finding import Finding, State, failure, of_error, ok, skipped, warning
from kubenode.nodes import identity, node
from kubenode.plugins.standalone import REFRESH_AFTER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.inspection.doctor.facts import Facts
    from kubenode.kube.client import ApiServer
    from kubenode.nodes.node import Node

ABOUT_NODE = frozenset([NODE_NOT_FOUND, MACHINE_ID_AMBIGUOUS])  # errors that `own-node` and `machine-id` report
NO_ANSWER = "the API server has not answered, see api-server"
REFUSALS = frozenset([FORBIDDEN, UNAUTHORIZED])


def reachable(facts: Facts) -> Iterator[Finding]:
    """See that the API server answers, and takes the kubeconfig's credentials."""
    if facts.why_no_api:
        yield skipped(facts.why_no_api)
    for kubeconfig, answer in facts.asked.items():
        if not isinstance(answer, CNIError) or answer.code in ABOUT_NODE | {FORBIDDEN}:
            yield ok(f"it answers{_by(kubeconfig)}")
        elif answer.code == UNAUTHORIZED or not facts.seen.node:
            yield of_error(answer)
        else:  # the plugins still use the Node view
            yield of_error(answer, State.WARNING)


def rights(facts: Facts) -> Iterator[Finding]:
    """Plugins may get their Node; without a known name they need to list all."""
    if facts.why_no_api:
        yield skipped(facts.why_no_api)
    for kubeconfig, answer in facts.asked.items():
        if isinstance(answer, CNIError) and answer.code not in ABOUT_NODE | {FORBIDDEN}:
            yield skipped(NO_ANSWER)
            continue
        name = facts.identity.name or (str(answer["metadata"]["name"]) if isinstance(answer, dict) else "")
        needed = [("get", name)] if name else [("get", ""), ("list", "")]

        def missing(server: ApiServer, wanted: list[tuple[str, str]] = needed) -> list[str]:
            return [verb for verb, which in wanted if not server.may(verb, "nodes", which)]

        try:
            lacking = facts.ask(kubeconfig, missing)
        except CNIError as error:
            yield of_error(error, State.WARNING)
            continue
        if lacking:
            verbs = ",".join(lacking)
            yield failure(
                f"no right to {verbs} nodes{_by(kubeconfig)}",
                "let a cluster admin grant it: "
                f"kubectl create clusterrole kube-node --verb={verbs} --resource=nodes, and a clusterrolebinding to the kubeconfig's user",
            )
        else:
            yield ok(" and ".join(verb for verb, _ in needed) + " nodes")


def agent_rights(facts: Facts) -> Iterator[Finding]:
    """Check that an agent may get and watch its Node, and say whether it may get pods; without that it releases no leak."""
    found = facts.agent_credentials
    if isinstance(found, str):
        yield skipped(found)
        return
    name = facts.identity.name or (facts.seen.node.name if facts.seen.node else "")
    needed = [("get", "nodes", name), ("watch", "nodes", name), ("get", "pods", "")]

    def missing(server: ApiServer) -> list[tuple[str, str]]:
        lacking = [(verb, what) for verb, what, which in needed if not server.may(verb, what, which)]
        if name and ("get", "pods") in lacking and server.may("list", "pods", of_node=name):  # a kubelet's credentials
            lacking.remove(("get", "pods"))
        return lacking

    try:
        lacking = facts.ask_as(found, missing)
    except CNIError as error:
        yield of_error(error, State.WARNING)
        return
    for verb, resource in lacking:
        if resource == "pods":
            yield ok("get and watch nodes; without get pods leaks are reported, not released: deploy/components/reclaim")
        else:
            advice = f"give it the ClusterRole of deploy/base/rbac.yaml, or add the rule: resources [{resource}], verbs [{verb}]"
            yield failure(f"the agent has no right to {verb} {resource}", advice)
    if not lacking:
        yield ok("get and watch nodes, see whether a pod is gone")


def own_node(facts: Facts) -> Iterator[Finding]:
    """Check that the own Node is found, and say by what."""
    myself = facts.identity
    for kubeconfig, answer in facts.asked.items():
        if isinstance(answer, CNIError):
            yield of_error(answer) if answer.code == NODE_NOT_FOUND else skipped(NO_ANSWER)
            continue
        if problem := identity.other_machine(answer.machine_id, myself):
            advice = "two nodes with one name give the same pod addresses: correct the name, or unset it if this node was renamed"
            yield failure(problem, advice)
            continue
        yield ok(f"Node {answer.name}, by {_how_found(facts, kubeconfig, answer.name)}")
    if facts.why_no_api:
        yield ok(f"Node {facts.seen.node.name}, by {facts.seen.path}") if facts.seen.node else skipped(facts.why_no_api)


def _how_found(facts: Facts, kubeconfig: str, name: str) -> str:
    if facts.identity.name:
        return facts.identity.name_source
    try:
        by_credentials = facts.ask(kubeconfig, lambda server: server.own_name()) == name
    except CNIError:  # then the Node was found without it
        by_credentials = False
    return "the credentials, which belong to it" if by_credentials else f"its machine-id {facts.identity.machine_id}"


def machine_id(facts: Facts) -> Iterator[Finding]:
    """No other visible Node has our machine-id."""
    myself = facts.identity
    if facts.why_no_api:
        yield skipped(facts.why_no_api)
    for kubeconfig, answer in facts.asked.items():
        if isinstance(answer, CNIError):
            yield of_error(answer) if answer.code == MACHINE_ID_AMBIGUOUS else skipped(NO_ANSWER)
            continue
        own = answer.machine_id
        if not own:
            yield skipped(f"Node {answer.name} has no machineID")
            continue

        def same(server: ApiServer, machine: str = own) -> list[str] | None:
            return [_name(one) for one in server.nodes() if identity.machine_id_of(one) == machine] if server.may("list", "nodes") else None

        try:
            found = facts.ask(kubeconfig, same)
        except CNIError as error:
            yield skipped(error.msg) if error.code in REFUSALS else of_error(error, State.WARNING)
            continue
        if found is None:
            yield skipped(f"no right to list nodes; not needed, because {myself.name_source or 'the host name'} names the Node")
        elif len(found) > 1:
            yield warning(
                f"the Nodes {', '.join(sorted(found))} have the same machineID {own}",
                "cloned machines: give each its own (systemd-machine-id-setup) and restart its kubelet; else only a name tells them apart",
            )
        else:
            yield ok(f"no other Node has the machineID {own}")


def pod_cidrs(facts: Facts) -> Iterator[Finding]:
    """Check that the Node has podCIDRs if a network takes its subnets from them."""
    takers = [
        one.name for one in facts.configured if facts.asks(one) and one.ipam.get("type") == "kube-node" and not one.ipam.get("annotation")
    ]
    if not takers:
        yield skipped("no network takes its subnets from them")
    elif not facts.node:
        yield skipped("the Node is not known")
    else:
        try:
            yield ok(", ".join(map(str, node.pod_subnets(facts.node))))
        except CNIError as error:
            yield of_error(error)


def node_view(facts: Facts) -> Iterator[Finding]:
    """Check that the Node view is valid, is updated, and agrees with the API server."""
    seen = facts.seen
    forget = f"rm {quote(os.path.join(facts.locations.run, 'node.json'))}"
    if seen.problem:
        yield Finding(State.FAILURE, seen.problem.msg, f"{seen.problem.details}; or remove it: the next ADD creates it again", forget)
    elif seen.view is None:
        yield skipped("there is none yet: the first ADD creates it")
    elif not facts.fresh and not facts.agent.up:
        yield skipped(facts.why_no_api or NO_ANSWER)
    elif facts.fresh and (differs := _difference(seen.view.node, facts.fresh)):
        if facts.agent.up or seen.view.age() > REFRESH_AFTER:
            yield warning(f"{seen.path} differs from the API server: {differs}", "remove it: the next ADD creates it again", forget)
        else:
            yield ok(f"{seen.path} is {seen.view.age():.0f} s old, and will be updated: {differs}")
    elif facts.agent.up and seen.view.fetched is not None and seen.view.age() > REFRESH_AFTER:
        yield warning(
            f"the agent is up, and {seen.path} is {seen.view.age():.0f} s old",
            "it cannot reach the API server: see its log (journalctl -u kube-node-agent, or kubectl logs)",
        )
    elif facts.identity.name and seen.node and seen.node.name != facts.identity.name and not facts.why_no_api:
        problem = f"{seen.path} has Node {seen.node.name}, and {facts.identity.name_source} says {facts.identity.name}"
        yield warning(problem, "remove it: the next ADD creates it again", forget)
    elif facts.fresh:
        yield ok(f"{seen.path} agrees with the API server")
    else:
        yield ok(
            f"{seen.path} has the Node as the agent saw it {seen.view.age():.0f} s ago"
            if seen.view.fetched
            else f"{seen.path} is written by hand"
        )


def _difference(seen: Node, fresh: Node) -> str:
    if seen.name != fresh.name:
        return f"Node {seen.name} there, {fresh.name} here"
    if seen.pod_cidrs != fresh.pod_cidrs:
        return f"podCIDRs {', '.join(seen.pod_cidrs) or 'none'} there, {', '.join(fresh.pod_cidrs) or 'none'} now"
    return ""


def _by(kubeconfig: str) -> str:
    return f" by {kubeconfig}" if kubeconfig else ""


def _name(manifest: dict[str, Any]) -> str:
    return str((manifest.get("metadata") or {}).get("name"))
