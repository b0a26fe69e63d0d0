# SPDX-License-Identifier: Apache-2.0
"""Metrics of the agent, for Prometheus."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily

from kubenode.base.exposition import Counted
from kubenode.base.jsontext import JSONTextError, loads
from kubenode.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kubenode.agent.networks import Key
    from kubenode.ipam.allocator import Usage

    Used = Callable[[], Iterable[tuple[Key, list[Usage]]]]

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 12.0)  # seconds, up to a call's deadline
COMMANDS = frozenset(["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"])


class AgentMetrics:
    """Metrics of the agent; also the observer of server, watch and reclaimer."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter, of little use
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("kubenode_build", "Version of the agent.", registry=registry).info({"version": VERSION})
        labels = ["plugin", "command"]
        self._calls = Histogram(
            "kubenode_call_duration_seconds", "Time of a plugin's call in the agent.", labels, buckets=BUCKETS, registry=registry
        )
        self._errors = Counter("kubenode_call_errors", "Failed calls, by CNI error code.", [*labels, "code"], registry=registry)
        self._requests = Counter("kubenode_api_requests", "Requests to the API server.", ["verb", "result"], registry=registry)
        self._restarts = Counter("kubenode_watch_restarts", "Watches of the Node restarted.", ["reason"], registry=registry)
        self._reclaimed = Counter("kubenode_leaks_reclaimed", "Leaked addresses released.", ["network"], registry=registry)
        self._forbidden = Gauge(
            "kubenode_reclaim_forbidden", "Whether the right to get pods is missing: then no leak is released.", registry=registry
        )
        self._suspects = Gauge("kubenode_leaks_suspected", "Attachments without network namespace.", ["network"], registry=registry)

    def may_ask(self, *, allowed: bool) -> None:
        """Export whether we have the right to get pods."""
        self._forbidden.set(not allowed)

    def show_node(self, seen: Callable[[], float]) -> None:
        """Export the age of the known Node; `seen` returns the time when it was last confirmed, 0 for never."""
        age = Gauge("kubenode_node_view_age_seconds", "Time since the Node was last confirmed.", registry=self.registry)
        age.set_function(lambda: time.time() - seen() if seen() else float("inf"))

    def show_ready(self, unready: Callable[[], str]) -> None:
        """Export whether pods can get addresses; `unready` returns the reason why not."""
        ready = Gauge("kubenode_ready", "Whether pods can get addresses, as in /readyz.", registry=self.registry)
        ready.set_function(lambda: float(not unready()))

    def show_log(self, dropped: Callable[[], int]) -> None:
        """Export the number of log lines that could not be written."""
        self.registry.register(Counted("kubenode_log_lines_dropped", "Log lines that could not be written.", dropped))

    def show_usage(self, used: Used) -> None:
        """Export the usage of each network, read at each scrape."""
        self.registry.register(_Addresses(used))

    def called(self, plugin: str, command: str, status: int, stdout: bytes, seconds: float) -> None:
        """Observe an answered call."""
        command = command if command in COMMANDS else "other"
        self._calls.labels(plugin, command).observe(seconds)
        if status == 1:
            self._errors.labels(plugin, command, _code(stdout)).inc()

    def requested(self, verb: str, result: str) -> None:
        """Count a request to the API server."""
        self._requests.labels(verb, result).inc()

    def restarted(self, reason: str) -> None:
        """Count a restarted watch."""
        self._restarts.labels(reason).inc()

    def reclaimed(self, network: str, count: int) -> None:
        """Count reclaimed addresses."""
        self._reclaimed.labels(network).inc(count)

    def suspected(self, counts: dict[str, int]) -> None:
        """Export the current number of suspected attachments of each network."""
        self._suspects.clear()
        for network, count in counts.items():
            self._suspects.labels(network).set(count)


class _Addresses:
    def __init__(self, used: Used) -> None:
        self._used = used

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ["network", "data_dir", "family"]
        total = GaugeMetricFamily("kubenode_addresses", "Addresses in the network's subnets on this node.", labels=labels)
        used = GaugeMetricFamily("kubenode_addresses_used", "Reserved addresses.", labels=labels)
        for key, usages in self._used():
            for family in sorted({usage.range_set.version for usage in usages}):
                values = [key.network, key.data_dir, f"ipv{family}"]
                total.add_metric(values, sum(usage.total for usage in usages if usage.range_set.version == family))
                used.add_metric(values, sum(usage.used for usage in usages if usage.range_set.version == family))
        yield total
        yield used


def _code(stdout: bytes) -> str:
    try:
        return str(loads(stdout)["code"])
    except (JSONTextError, TypeError, KeyError):
        return "unknown"
