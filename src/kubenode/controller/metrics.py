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


class Metrics:
    """All of the controller's metrics; it is the observer of client, mirrors and reconciler."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter that says little
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("kubenode_controller_build", "Version of the controller.", registry=registry).info({"version": VERSION})
        self._requests = Counter(
            "kubenode_controller_api_requests", "Requests to the API server.", ["verb", "resource", "result"], registry=registry
        )
        self._restarts = Counter("kubenode_controller_watch_restarts", "Watches begun again.", ["resource", "reason"], registry=registry)
        self._allocation = Histogram(
            "kubenode_controller_allocation_duration_seconds", "From a Node's need to its annotation.", buckets=BUCKETS, registry=registry
        )

    def show(self, figures: Mapping[str, Figures], depth: Callable[[], int], leads: Callable[[], bool]) -> None:
        """Show the pools that there are at each scrape, and how much there is to do."""
        Gauge("kubenode_controller_queue_depth", "Nodes and pools to look at.", registry=self.registry).set_function(depth)
        Gauge("kubenode_controller_leader", "Whether this one works.", registry=self.registry).set_function(leads)
        self.registry.register(_Pools(figures))

    def show_log(self, dropped: Callable[[], int]) -> None:
        """Show how many log lines could not be written."""
        self.registry.register(Counted("kubenode_controller_log_lines_dropped", "Log lines that could not be written.", dropped))

    def requested(self, verb: str, resource: str, result: str) -> None:
        self._requests.labels(verb, resource, result).inc()

    def restarted(self, resource: str, reason: str) -> None:
        self._restarts.labels(resource, reason).inc()

    def served(self, seconds: float) -> None:
        self._allocation.observe(seconds)


class _Pools:
    """A scraper comes in a thread of its own, so it sees only numbers that were counted where the ledger is."""

    def __init__(self, figures: Mapping[str, Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ["pool", "family"]
        total = GaugeMetricFamily("kubenode_controller_subnets", "Subnets that a pool has.", labels=labels)
        allocated = GaugeMetricFamily("kubenode_controller_subnets_allocated", "Subnets that nodes have.", labels=labels)
        free = GaugeMetricFamily("kubenode_controller_subnets_free", "Subnets that can be given.", labels=labels)
        waiting = GaugeMetricFamily("kubenode_controller_nodes_waiting", "Nodes for which nothing is left.", labels=["pool"])
        conflicts = GaugeMetricFamily("kubenode_controller_conflicts", "Annotations that are in conflict.", labels=["pool"])
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
            conflicts.add_metric([name], figures.conflicts)
        yield from (total, allocated, free, waiting, conflicts)
