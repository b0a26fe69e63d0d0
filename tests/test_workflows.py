# SPDX-License-Identifier: Apache-2.0
"""The workflows, which no machine of ours runs: what of them can be held against the repository."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from wanting import want

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = {path.name: yaml.load(path.read_text(), yaml.BaseLoader) for path in sorted((ROOT / ".github/workflows").glob("*.y*ml"))}
JOBS = [(workflow, name, job) for workflow, content in WORKFLOWS.items() for name, job in content["jobs"].items()]
STEPS = [(workflow, name, step) for workflow, name, job in JOBS for step in job.get("steps", ())]
RUNS = sorted({step["run"] for _, _, step in STEPS if "run" in step})
# Words of a command that name a file of a checkout: below a directory of it, or the build script.
FILE = re.compile(r"(?<![\w/.$])\.?/?(?:(?:packaging|tests|benchmarks|deploy|docs|\.ci|\.github)/[\w./-]+|build\.sh)")


@pytest.mark.parametrize("command", RUNS)
def test_what_is_run_is_there(command: str) -> None:
    """A file of the repository that a step runs is there, and a command of build.sh is one that it has."""
    assert [word for word in FILE.findall(command) if not (ROOT / word).exists()] == []
    for name in re.findall(r"build\.sh (\w+)", command):
        assert re.search(rf"^\./build\.sh {name}\b", (ROOT / "build.sh").read_text(), re.MULTILINE), name


@pytest.mark.parametrize("command", RUNS)
def test_a_step_is_a_shell_command(command: str) -> None:
    """bash reads each step; nothing that an event brings is put into its text, where it would be run."""
    subprocess.run(["bash", "-n"], input=re.sub(r"\$\{\{.*?\}\}", "x", command), text=True, check=True)
    assert "${{" not in command


def test_scripts_can_be_run() -> None:
    """A file that a step runs by its name is executable, also in a clone."""
    want("git")
    for word in {word.removeprefix("./") for command in RUNS for word in re.findall(r"(?:^|&& )(\./build\.sh|\.ci/\w+)", command)}:
        listed = subprocess.run(["git", "ls-files", "--stage", word], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        assert listed.startswith("100755"), word


@pytest.mark.parametrize(("workflow", "name", "job"), JOBS, ids=[f"{workflow}-{name}" for workflow, name, _ in JOBS])
def test_jobs(workflow: str, name: str, job: dict[str, Any]) -> None:
    """A job needs jobs that there are, asks only for what these give, ends some time, and has no right but those that it names."""
    jobs = WORKFLOWS[workflow]["jobs"]
    needs = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
    assert set(needs) <= jobs.keys() - {name}
    for need, output in re.findall(r"needs\.(\w+)\.outputs\.(\w+)", str(job)):
        assert need in needs
        assert output in jobs[need]["outputs"]
    assert "uses" in job or int(job["timeout-minutes"]) > 0
    assert WORKFLOWS[workflow]["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(("workflow", "name", "job"), JOBS, ids=[f"{workflow}-{name}" for workflow, name, _ in JOBS])
def test_what_is_used_has_a_version(workflow: str, name: str, job: dict[str, Any]) -> None:
    """An action is of a version that dependabot raises, a workflow of ours is there."""
    used = [step["uses"] for step in (job, *job.get("steps", ())) if "uses" in step]
    for word in used:
        assert (ROOT / word).exists() if word.startswith("./") else re.fullmatch(r"[\w-]+/[\w-]+@(v\d[\d.]*|[0-9a-f]{40})", word), word


def test_what_a_pull_request_runs() -> None:
    """A pull request is checked, and tested with and without Debian's programs."""
    ci = WORKFLOWS["ci.yaml"]
    assert "pull_request" in ci["on"]
    run = {step.get("run") for job in ci["jobs"].values() for step in job["steps"]}
    assert run >= {"./build.sh check", "./build.sh test --quick", ".ci/run"}


def test_the_hook_before_a_commit_is_what_ci_runs() -> None:
    """pre-commit and CI run the same command."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == ["./build.sh check"]
    assert "./build.sh check" in RUNS


def test_a_container_to_develop_in_begins_with_the_images_debian() -> None:
    """The container is of the Debian that the image is built on, and is made by commands that there are."""
    described = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert f"FROM {described['image']}-slim" in (ROOT / "Dockerfile").read_text()
    command, *parts = described["postCreateCommand"].split()
    assert (command, parts[0]) == ("./build.sh", "venv")
    assert all((ROOT / f"requirements/{part}.lock").exists() for part in parts[1:])


def test_forms_for_issues() -> None:
    """Each form has a name, and fields whose ids differ; the page that a reporter is sent to is there."""
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yaml"):
        form = yaml.safe_load(path.read_text())
        assert form["name"]
        assert form["description"]
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        assert len(ids) == len(set(ids)) > 0
        assert [page for page in re.findall(r"\b(?:docs/)?[\w/-]+\.md\b", str(form)) if not (ROOT / page).exists()] == []
