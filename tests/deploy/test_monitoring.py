# SPDX-License-Identifier: Apache-2.0
"""Alerts and dashboard: they say what they should, and ask only for what the agent tells."""

from __future__ import annotations

import json
import math
import re
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from agentprocess import AgentProcess, write_node
from monitored import Monitored
from patience import PATIENCE, eventually
from prometheus_client import generate_latest
from rendered import LOADER
from wanting import want

from kubenode.controller.metrics import ControllerMetrics
from kubenode.pools.status import Figures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apiserver import RealApiServer

pytestmark = pytest.mark.slow

MONITORING = Path(__file__).resolve().parent.parent.parent / "deploy/monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
RUNBOOKS = MONITORING.parent.parent / "docs/runbooks"
FILES = ("rules", "controller-rules")
RULES = [rule for name in FILES for rule in yaml.load((MONITORING / f"{name}.yaml").read_text(), Loader=LOADER)["groups"][0]["rules"]]
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def promtool(*words: str | Path) -> str:
    want("promtool")
    done = subprocess.run(["promtool", *words], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return what an agent and a controller with a pool tell Prometheus."""
    base = tmp_path_factory.mktemp("agent")
    (base / "run").mkdir()
    node_file = write_node(base / "node.yaml", "10.7.0.0/24")
    with AgentProcess(base / "run", f"--node-file={node_file}") as agent:
        controller = ControllerMetrics()
        controller.show({"p": Figures([], 0, 0, 0)}, lambda: 0, lambda: True)
        controller.show_log(lambda: 0)
        yield agent.get("/metrics")[1] + generate_latest(controller.registry).decode()


def test_each_alert_fires_when_it_should() -> None:
    """promtool's unit tests: one for each alert, with series that set it off and series that do not."""
    files = [MONITORING / f"{name}.test.yaml" for name in FILES]
    assert promtool("test", "rules", *files).count("SUCCESS") == len(files)
    tests = [test for path in files for test in yaml.safe_load(path.read_text())["tests"]]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in RULES}


def test_the_rules_are_valid() -> None:
    """promtool finds nothing wrong, and each alert says how bad it is, what is wrong and what it means."""
    promtool("check", "rules", "--lint-fatal", *(MONITORING / f"{name}.yaml" for name in FILES))
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}


def test_each_alert_has_a_page_and_each_page_an_alert() -> None:
    """An alert leads to its own page, which says what it means, what to look at and what to do; the how-to names each."""
    pages = {page.stem: page.read_text() for page in RUNBOOKS.glob("*.md")}
    assert sorted(pages) == sorted(rule["alert"] for rule in RULES)
    listed = re.findall(r"^\| \[(\w+)\]\(\.\./runbooks/\1\.md\) \|", (RUNBOOKS.parent / "how-to/monitoring.md").read_text(), re.MULTILINE)
    assert listed == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{rule['alert']}.md")
        text = pages[rule["alert"]]
        assert text.startswith(f"# {rule['alert']}\n")
        assert re.findall("^## (.*)", text, re.MULTILINE) == ["What to look at", "What to do"]


def test_no_metric_has_the_prefix_of_kube_state_metrics(told: str) -> None:
    """kube-state-metrics tells of Nodes under kube_node_; none of ours begins so, or could be taken for one."""
    names = re.findall(r"^# TYPE (\S+) ", told, re.MULTILINE)
    assert [name for name in names if not name.startswith(("kubenode_", "process_"))] == []


def test_colours_are_explained() -> None:
    """A panel whose value has a colour says from where on it is which."""
    for panel in DASHBOARD["panels"]:
        for step in panel["fieldConfig"]["defaults"].get("thresholds", {"steps": []})["steps"]:
            assert step["color"].capitalize() + ": " in panel["description"]


def test_the_scrape_configuration_is_valid(tmp_path: Path) -> None:
    """Prometheus would load it, and calls the job what the rules call it."""
    config = yaml.safe_load((MONITORING / "scrape.yaml").read_text())
    names = {job["job_name"] for job in config["scrape_configs"]}
    asked = " ".join([*EXPRESSIONS, *(rule["expr"] for rule in RULES)])
    assert set(re.findall(r'job="([^"]+)"', asked)) == names
    for job in config["scrape_configs"]:
        del job["kubernetes_sd_configs"]  # Debian's Prometheus is built without it
    (tmp_path / "scrape.yaml").write_text(yaml.safe_dump(config))
    promtool("check", "config", "--syntax-only", tmp_path / "scrape.yaml")


def test_the_dashboards_queries_are_valid(tmp_path: Path) -> None:
    """Each query is PromQL, once Grafana has put its variables in."""
    rules = [
        {"record": f"query:{index}", "expr": expression.replace("$instance", ".*").replace("$__rate_interval", "5m")}
        for index, expression in enumerate(EXPRESSIONS)
    ]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(EXPRESSIONS)} rules found" in promtool("check", "rules", path)


def test_only_metrics_that_exist_are_asked_for(told: str) -> None:
    """A metric in a rule or a panel is one that agent or controller has, by its full name."""
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", told, re.MULTILINE))
    names = set(types)
    for name, kind in types.items():
        if kind == "histogram":
            names |= {f"{name}_{suffix}" for suffix in ("bucket", "count", "sum")}
    text = " ".join([*EXPRESSIONS, *(rule["expr"] for rule in RULES)])
    asked = set(re.findall(r"\b(?:kubenode|process)_\w+", text))
    assert asked - names == set()
    assert len(asked) > 8


def shows_something(monitored: Monitored, target: dict[str, Any]) -> bool:
    """Say whether a query has had a finite value."""
    return any(math.isfinite(value) for series in monitored.series(target, 300) for _, value in series.values)


def test_every_query_shows_something(api_server: RealApiServer, tmp_path: Path) -> None:
    """With agents that have had pods, errors, leaks and an API server that was away, each query has values, and each legend its labels."""
    want("prometheus")
    with Monitored(tmp_path, api_server, 1) as monitored:
        (worker,) = monitored.workers
        assert worker.agent.call("CHECK", worker.confs[0], "nobody").code == 1
        monitored.work(16)
        for panel in DASHBOARD["panels"]:
            for target in panel["targets"]:
                # The controller comes to the new Node once it has found the API server again.
                eventually(partial(shows_something, monitored, target), f"{panel['title']}: no value of {target['expr']}", 4 * PATIENCE)


def test_every_metric_of_ours_is_on_the_dashboard(told: str) -> None:
    """Whatever agent and controller count, a person sees."""
    ours = set(re.findall(r"^# TYPE (kubenode_\w+) ", told, re.MULTILINE))
    assert {name for name in ours if not any(name in expression for expression in EXPRESSIONS)} == set()


def test_panels_have_places_of_their_own() -> None:
    """No panel lies on another, none is wider than the page, each has a number of its own and asks the source that is chosen."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place: dict[str, Any] = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
