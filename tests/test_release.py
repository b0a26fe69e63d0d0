# SPDX-License-Identifier: Apache-2.0
"""The steps of a release, each as .github/workflows/release.yaml runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import release
import yaml
from deb import debian_version
from rendered import DEPLOY, ROOT, documents, pod_of, run
from wanting import want

from kubenode.version import VERSION

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = "registry.example.com/org/kube-node"
DIGEST = f"{IMAGE}@sha256:{'0123456789abcdef' * 4}"
CHANGELOG = """\
# Changelog

## Unreleased

- not yet

## 1.2.3 - 2026-01-02

### Fixed

- a thing

## 1.2.2 - 2026-01-01

- another
"""


@pytest.fixture
def changelog(tmp_path: Path) -> Path:
    path = tmp_path / "CHANGELOG.md"
    path.write_text(CHANGELOG)
    return path


def test_a_tag_names_the_version(changelog: Path) -> None:
    """The tag of a release is the version of the code, with a v, and the changelog knows it."""
    assert release.check("v1.2.3", "1.2.3", changelog) == "1.2.3"


@pytest.mark.parametrize(
    ("tag", "version", "told"),
    [
        ("v1.2.4", "1.2.3", "version.py has 1.2.3"),
        ("1.2.3", "1.2.3", "the tag is 1.2.3"),
        ("v1.2.3.dev0", "1.2.3.dev0", "no version of a release"),
        ("v1.2.4", "1.2.4", "no section ## 1.2.4"),
        ("v1.2.1", "1.2.1", "no section ## 1.2.1"),
    ],
)
def test_another_tag_is_refused(tag: str, version: str, told: str, changelog: Path) -> None:
    """A tag of another version, of one that is not to be released, or of one that the changelog does not have, makes no release."""
    with pytest.raises(release.ReleaseError, match=told):
        release.check(tag, version, changelog)


def test_notes_are_the_changelogs(changelog: Path) -> None:
    """The notes of a release are its section, and nothing of the next."""
    assert release.notes("1.2.3", changelog) == "### Fixed\n\n- a thing\n"


@pytest.mark.parametrize("heading", ["## 1.2.3", "## 1.2.3 - soon"])
def test_a_release_has_a_date(heading: str, changelog: Path) -> None:
    changelog.write_text(CHANGELOG.replace("## 1.2.3 - 2026-01-02", heading))
    with pytest.raises(release.ReleaseError, match="has no date"):
        release.notes("1.2.3", changelog)


def test_sums_are_what_sha256sum_checks(tmp_path: Path) -> None:
    """The list of sums is one that sha256sum takes, without itself, the same each time."""
    for name in ("b.deb", "a.whl"):
        (tmp_path / name).write_text(name)
    first = release.checksums(tmp_path).read_text()
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == "a.whl: OK\nb.deb: OK\n"
    assert release.checksums(tmp_path).read_text() == first


def test_the_chart_installs_the_image_of_its_release(tmp_path: Path) -> None:
    """The packaged chart has the release's version, and installs its image by digest with no value set."""
    want("helm")
    helm = os.environ.get("HELM", "helm")
    package = release.chart("1.2.3rc1", DIGEST, tmp_path)
    described = yaml.safe_load(run(helm, "show", "chart", package))
    assert (described["version"], described["appVersion"]) == ("1.2.3-rc.1", "1.2.3rc1")
    assert pod_of(run(helm, "template", "kube-node", package))["containers"][0]["image"] == DIGEST
    by_tag = release.chart("1.2.3", IMAGE, tmp_path)
    assert pod_of(run(helm, "template", "kube-node", by_tag))["containers"][0]["image"] == f"{IMAGE}:1.2.3"


def test_the_manifests_name_the_image(tmp_path: Path) -> None:
    """What kubectl applies is what is in the repository, but for the image."""
    (made,) = release.manifests("1.2.3", DIGEST, tmp_path)
    assert made.read_text().replace(DIGEST, "kube-node:latest") == (DEPLOY / made.name).read_text()
    (pod,) = [document for key, document in documents(made.read_text()).items() if key.startswith("DaemonSet/")]
    spec = pod["spec"]["template"]["spec"]
    assert {one["image"] for one in (*spec["initContainers"], *spec["containers"])} == {DIGEST}


def test_debian_sorts_candidates_before_the_release() -> None:
    """A release candidate and a development version are older than the release, for dpkg."""
    for before in ("1.2.3rc1", "1.2.3.dev0"):
        run("dpkg", "--compare-versions", debian_version(before), "lt", debian_version("1.2.3"))


def test_the_script_says_what_is_wrong() -> None:
    """A refused tag is an exit code and a sentence."""
    done = subprocess.run([sys.executable, ROOT / "packaging/release.py", "check", "v0.0.0"], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"release: the tag is v0.0.0, and src/kubenode/version.py has {VERSION}")
