# SPDX-License-Identifier: Apache-2.0
"""What a run of the tests is: on how many workers, which tests, in what order, and what the end says of those that were left out."""

from __future__ import annotations

import os
import random
import sys
from itertools import groupby
from typing import TYPE_CHECKING

import effort
import once
import pytest
import wanting

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

NO_SKIP = os.environ.get("KUBE_NODE_NO_SKIP") == "1"
# The files that take longest, which begin the run: at its end all workers then have something short to do.
LONGEST = (
    "differential/test_host_local.py",
    "controller/test_pools_model.py",
    "docs/test_walkthrough.py",
    "controller/test_two.py",
    "plugins/test_parallel.py",
    "store/test_contention.py",
    "plugins/test_delegation.py",
    "plugins/test_untrusted_configuration.py",
    "chaos/test_agent_chaos.py",
    "chaos/test_four_programs.py",
    "chaos/test_api_chaos.py",
    "chaos/test_come_and_go.py",
    "relay/test_build.py",
    "controller/test_life.py",
    "agent/test_ipv4_label.py",
    "agent/test_node_events.py",
    "plugins/test_acceptance.py",
    "plugins/test_versions.py",
    "plugins/test_node_annotation.py",
    "agent/test_watch_faults.py",
    "deploy/test_chart.py",
    "kube/test_faults.py",
    "inspection/test_cluster.py",
)
LONG = {"built", "short_relay", "cni_bin", "podnet", "api_server", "crds", "agent", "controller"}  # fixtures
LONG_DIRECTORIES = ("chaos", "differential", "docs", "fuzz", "netns", "relay")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kube-node")
    group.addoption(
        "--quick", action="store_true", help="what to run after each change: half a minute, without what starts anything big or waits"
    )
    group.addoption(
        "--shuffle", type=int, metavar="SEED", help="files in a random order, and the tests of each, without workers unless -n says"
    )


def pytest_configure(config: pytest.Config) -> None:
    effort.load(quick=config.option.quick)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Failures(config))


class Failures:
    """Name each failure when it happens: the end of the run may be minutes away."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.getplugin("terminalreporter")
        if report.failed and terminal is not None:
            reason = getattr(getattr(report.longrepr, "reprcrash", None), "message", None) or str(report.longrepr)
            terminal.write_line(f"\nFAILED {report.nodeid} ({report.when}): {reason.partition(chr(10))[0]}"[:300])


def pytest_report_header(config: pytest.Config) -> str | None:
    return None if config.option.shuffle is None else f"in a random order: --shuffle={config.option.shuffle}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Do without workers where a person tries a few files, or something that workers cannot do; else one a processor.

    Three for two processors with --quick: half of its time is waiting.
    """
    option = config.option
    few = all(".py" in argument for argument in config.args) or (option.keyword and not option.keyword.startswith("not "))
    if few or config.getoption("lf", default=False) or option.capture == "no" or option.shuffle is not None:
        return 0
    return len(os.sched_getaffinity(0)) * 3 // 2 if option.quick else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even read what --quick leaves out whole."""
    return True if config.option.quick and collection_path.name in LONG_DIRECTORIES else None


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one item of a test that --quick leaves out, and not one for each of its parameters."""
    if metafunc.config.option.quick and (LONG & set(metafunc.fixturenames) or metafunc.definition.get_closest_marker("slow")):
        metafunc.parametrize = lambda *_, **__: None  # type: ignore[method-assign]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.quick:
        left_out = [item for item in items if _is_long(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not _is_long(item)]
    items.sort(key=_turn)
    if config.option.shuffle is not None:
        rng = random.Random(config.option.shuffle)
        files = [list(group) for _, group in groupby(items, lambda item: item.path)]
        rng.shuffle(files)
        for tests in files:
            rng.shuffle(tests)
        items[:] = [item for tests in files for item in tests]


def _turn(item: pytest.Item) -> int:
    file = "/".join(item.path.parts[-2:])
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)


def _is_long(item: pytest.Item) -> bool:
    return "slow" in item.keywords or bool(LONG & set(getattr(item, "fixturenames", ())))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    config = session.config
    if config.option.collectonly or session.testsfailed:
        return
    capture = config.pluginmanager.getplugin("capturemanager")

    def tell(text: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stderr.write(f"\n{text}\n")
            sys.stderr.flush()

    once.make_all(session.items, config._tmp_path_factory, tell)  # type: ignore[attr-defined]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    once.check(item, item.config._tmp_path_factory)  # type: ignore[attr-defined]


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped, too.
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = (
            f"{_reason(report)}\nKUBE_NODE_NO_SKIP=1 makes this a failure: here everything that a test needs has to be present."
        )


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return str(report.longrepr[2] if isinstance(report.longrepr, (tuple, list)) else report.longrepr)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section(f"{len(skipped)} tests were left out, for want of")
        for line in wanting.summary(_reason(report) for report in skipped):
            terminalreporter.line(line)
