# SPDX-License-Identifier: Apache-2.0
"""Metrics of the controller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily

from kubenode.base.exposition import Counted
from kubenode.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kubenode.pools.status import Figures

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds


class ControllerMetrics:
    """Metrics of the controller; also the observer of client, reflectors and reconciler."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter, of little use
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("kubenode_controller_build", "Version of the controller.", registry=registry).info({"version": VERSION})
        self._requests = Counter(
            "kubenode_controller_api_requests", "Requests to the API server.", ["verb", "resource", "result"], registry=registry
        )
        self._restarts = Counter("kubenode_controller_watch_restarts", "Watches restarted.", ["resource", "reason"], registry=registry)
        self._allocation = Histogram(
            "kubenode_controller_allocation_duration_seconds", "From a Node's need to its annotation.", buckets=BUCKETS, registry=registry
        )

    def show(self, figures: Mapping[str, Figures], depth: Callable[[], int], leads: Callable[[], bool]) -> None:
        """Export the pools and the length of the queue, read at each scrape."""
        queued = "Nodes and pools in the queue, and those that wait after a failure."
        Gauge("kubenode_controller_queue_depth", queued, registry=self.registry).set_function(depth)
        Gauge("kubenode_controller_leader", "Whether this controller is the leader.", registry=self.registry).set_function(leads)
        self.registry.register(_Pools(figures))

    def show_log(self, dropped: Callable[[], int]) -> None:
        """Export the number of log lines that could not be written."""
        self.registry.register(Counted("kubenode_controller_log_lines_dropped", "Log lines that could not be written.", dropped))

    def requested(self, verb: str, resource: str, result: str) -> None:
        """Count a request to the API server."""
        self._requests.labels(verb, resource, result).inc()

    def restarted(self, resource: str, reason: str) -> None:
        """Count a restarted watch."""
        self._restarts.labels(resource, reason).inc()

    def served(self, seconds: float) -> None:
        """Observe the time from a Node's first need of subnets to its annotation."""
        self._allocation.observe(seconds)


class _Pools:
    """Collector of the pools. Scrapes run in another thread, so it reads only numbers that the reconciler computed."""

    def __init__(self, figures: Mapping[str, Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ["pool", "family"]
        total = GaugeMetricFamily("kubenode_controller_subnets", "Subnets of the pool.", labels=labels)
        allocated = GaugeMetricFamily("kubenode_controller_subnets_allocated", "Subnets allocated to nodes.", labels=labels)
        free = GaugeMetricFamily("kubenode_controller_subnets_free", "Free subnets.", labels=labels)
        waiting = GaugeMetricFamily("kubenode_controller_nodes_waiting", "Nodes for which no subnet is free.", labels=["pool"])
        at_most = GaugeMetricFamily(
            "kubenode_controller_nodes_at_max_blocks", "Nodes with maxBlocks subnets that need more.", labels=["pool"]
        )
        conflicts = GaugeMetricFamily("kubenode_controller_conflicts", "Annotations in conflict.", labels=["pool"])
        for name, figures in sorted(dict(self._figures).items()):
            for family in sorted({usage.block.cidr.version for usage in figures.usages}):
                mine = [usage for usage in figures.usages if usage.block.cidr.version == family]
                for metric, value in (
                    (total, sum(usage.total for usage in mine)),
                    (allocated, sum(usage.allocated for usage in mine)),
                    (free, sum(usage.free for usage in mine)),
                ):
                    metric.add_metric([name, f"ipv{family}"], value)
            waiting.add_metric([name], figures.waiting)
            at_most.add_metric([name], figures.at_most)
            conflicts.add_metric([name], figures.conflicts)
        yield from (total, allocated, free, waiting, at_most, conflicts)
