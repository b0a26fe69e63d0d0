# SPDX-License-Identifier: Apache-2.0
"""`kube-node report`: one archive for a bug report, which has what is needed and no secret."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import forked
import pytest
from administrator import allow
from patience import PATIENCE

from kubenode.inspection.bugreport.archive import Archive
from kubenode.inspection.bugreport.secrets import Scrubber

if TYPE_CHECKING:
    from node import SeededNode

TOP = "kube-node-report/"
PEM = "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----"


class Secrets:
    """Makes secrets, each another, and remembers them."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, form: str = "{}") -> str:
        self.made.append(f"Hush{len(self.made):03}Hush")
        return form.format(self.made[-1])

    def encoded(self) -> str:
        text = base64.b64encode(self().encode()).decode()
        self.made.append(text)
        return text


def unpacked(content: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        found = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file
            assert member.mode == 0o600
            found[member.name.removeprefix(TOP)] = file.read().decode()
        return found


@pytest.fixture
def secret() -> Secrets:
    return Secrets()


def seed(node: SeededNode, root: Path, secret: Secrets) -> dict[str, str]:
    """Put secrets wherever something is read; return the environment."""
    kubeconfig = node.directory / "kubeconfig"
    token_file = node.directory / "token"
    token_file.write_text(secret())
    users = [
        {"name": "one", "user": {"token": secret(), "password": secret(), "username": "somebody"}},
        {
            "name": "two",
            "user": {"client-key-data": secret.encoded(), "client-certificate-data": secret.encoded(), "tokenFile": str(token_file)},
        },
        {"name": "three", "user": {"exec": {"command": "aws", "args": ["get-token"], "env": [{"name": "X", "value": secret()}]}}},
        {"name": "four", "user": {"auth-provider": {"name": "oidc", "config": {"refresh": secret()}}}},
    ]
    cluster = {"name": "c", "cluster": {"server": secret("https://user:{}@192.0.2.1"), "certificate-authority-data": secret.encoded()}}
    context = {"name": "ctx", "context": {"cluster": "c", "user": "one"}}
    kubeconfig.write_text(json.dumps({"clusters": [cluster], "users": users, "contexts": [context], "current-context": "ctx"}))

    log = node.directory / "plugin.log"
    known = users[0]["user"]["token"]  # type: ignore[index]
    log.write_text(
        f'{{"msg": "asked with {known}"}}\nAuthorization: Bearer {secret()}xx\n{secret("password={}")} {secret("https://u:{}@host/")}\n'
        f'{secret(PEM)}\n{{"text": "{{\\"apiToken\\": \\"{secret()} and more\\"}}"}}\n--token {secret()}\n'
        f"eyJhbGciOiJSUzI1NiJ9.{secret()}.{secret()}\n{base64.b64encode(os.urandom(64)).decode()}\nthis line stays\n"
    )
    secret.made.append(log.read_text().splitlines()[-2])
    conf = node.conf(kubeconfig=str(kubeconfig), logfile=str(log), annotation="net", nodeFile=str(node.run / "node.json"))
    extra = {
        "password": secret(),
        "nested": [{"authToken": secret()}],
        "args": ["--secret", secret()],
        "etcd": secret("https://a:{}@e:2379"),
    }
    node.configure({**conf, **extra})
    (node.net / "20-broken.conf").write_text(secret('{{"name": "broken", "password": "{}'))
    (node.net / "multus.kubeconfig").write_text(secret("token: {}"))
    node.view(["10.1.0.0/24"], {"net": "10.1.0.0/24", "vault.example.com/unseal": secret(), "other": secret()})
    attachments = node.run / "attachments"
    attachments.mkdir()
    record = {"netns": "/run/netns/x", "podName": "p", "podNamespace": "n", "ipam": {"type": "kube-node", "apiKey": secret()}}
    (attachments / "k8snet:c1:eth0").write_text(json.dumps(record))

    pods = root / "var/log/pods/kube-system_kube-node-x_uid/kube-node"
    pods.mkdir(parents=True)
    (pods / "0.log").write_text(f"2026-01-01T00:00:00Z stderr F {secret('token: {}')}\nthe agent's line\n")
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text("ID=test\n")
    programs = node.directory / "programs"
    programs.mkdir()
    (programs / "journalctl").write_text(f"#!/bin/sh\necho 'journal line {secret('--client-token {}')}'\n")
    (programs / "journalctl").chmod(0o755)
    definitions = node.directory / "nad.yaml"
    config = json.dumps({**node.conf("net1"), "clientSecret": secret()})
    definition = {"kind": "NetworkAttachmentDefinition", "metadata": {"name": "net1"}, "spec": {"config": config}}
    definitions.write_text(json.dumps(definition))
    path = f"{programs}:{os.environ['PATH']}"
    allowed = allow(node.directory / "kube-node.conf", logfile=["/"], kubeconfig=["/"], nodeFile=["/"], resolvConf=["/"])
    return {
        "PATH": path,
        "KUBE_NODE_CONF": str(allowed),
        "MY_SECRET": secret(),
        "VAULT_TOKEN": secret(),
        "UNSUSPECTED": secret(),
        "HOME": str(node.directory),
    }


def test_no_secret(seeded: SeededNode, root: Path, secret: Secrets, tmp_path: Path) -> None:
    """Secrets of kubeconfigs, configurations, annotations, records, logs and the environment are nowhere in it, nor in what is printed."""
    env = seed(seeded, root, secret)
    file = tmp_path / "report.tar.gz"
    where = [f"--cni-config={seeded.net}", f"--host-root={root}", f"--config={seeded.directory}/nad.yaml"]
    done = forked.run(["report", str(file), *where], env)
    assert done.code == 0, done.stderr
    files = unpacked(file.read_bytes())
    assert len(secret.made) > 30
    for text in (*files.values(), done.stdout, done.stderr):
        assert [one for one in secret.made if one in text] == []
    whole = "".join(files.values())
    assert "Hush" not in whole
    for kept in ("this line stays", "the agent's line", "journal line", '"server": "https://[left out]@192.0.2.1"'):
        assert kept in whole


def test_what_is_in_it(seeded: SeededNode, root: Path, secret: Secrets, tmp_path: Path) -> None:
    """It has doctor, status, versions, configurations, records, logs, kernel and runtime, and lists them, and what was left out and why."""
    env = seed(seeded, root, secret)
    file = tmp_path / "report.tar.gz"
    where = [f"--cni-config={seeded.net}", f"--host-root={root}"]
    done = forked.run(["report", str(file), *where, "-o", "json"], env)
    files = unpacked(file.read_bytes())
    contents = json.loads(files.pop("contents.json"))
    assert {"file": str(file), **contents} == json.loads(done.stdout)
    assert sorted(one["file"] for one in contents["taken"]) == sorted(files)
    wanted = {
        "doctor.json", "status.json", "version.json", "configuration/10-k8snet.conflist", "configuration/kubeconfig-0.json",
        "configuration/environment.json", "records/node.json", "records/attachments.json", "logs/journal.log", "logs/container-0.log",
        "logs/plugin-0.log", "machine/kernel.txt", "machine/runtime.json",
    }  # fmt: skip
    assert wanted <= set(files), contents
    left = {one["what"]: one["why"] for one in contents["leftOut"]}
    assert "not JSON" in left[f"{seeded.net}/20-broken.conf"]
    assert left[f"{seeded.net}/multus.kubeconfig"] == "the runtime reads no network from it"
    assert left["2 annotations of the Node"] == "no network of this node reads them"
    assert json.loads(files["doctor.json"])["checks"]
    assert json.loads(files["records/attachments.json"])[0]["podName"] == "p"
    assert os.uname().release in files["machine/kernel.txt"]
    assert "ID=test" in files["machine/kernel.txt"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_to_standard_output(seeded: SeededNode, tmp_path: Path) -> None:
    """With - the archive is standard output, and nothing else; the list goes to standard error."""
    seeded.configure(seeded.conf(nodeFile=str(seeded.run / "node.json")))
    program = str(Path(sys.executable).with_name("kube-node"))
    done = subprocess.run([program, "report", "-", f"--cni-config={seeded.net}"], capture_output=True, check=True)
    assert "doctor.json" in unpacked(done.stdout)
    assert b"doctor.json" in done.stderr


def test_a_file_that_cannot_be_written(seeded: SeededNode, tmp_path: Path) -> None:
    """The error names the file as given, and the way that needs none."""
    del seeded
    done = forked.run(["report", f"{tmp_path}/nowhere/report.tar.gz"])
    assert done.code == 69
    assert f"{tmp_path}/nowhere/report.tar.gz cannot be written: No such file or directory" in done.stderr
    assert "- for standard output" in done.stderr


def test_cut_log(seeded: SeededNode, tmp_path: Path) -> None:
    """Of a long log the last whole lines are taken: a line that is cut may have lost the word that says that it is a secret."""
    log = tmp_path / "long.log"
    log.write_text("password=" + "Hush" * 100_000 + "\nthe last line\n")
    seeded.configure(seeded.conf(nodeFile=str(seeded.run / "node.json"), logfile=str(log)))
    file = tmp_path / "report.tar.gz"
    assert forked.run(["report", str(file), f"--cni-config={seeded.net}"]).code == 0
    assert unpacked(file.read_bytes())["logs/plugin-0.log"] == "the last line\n"


def test_a_pipe_in_place_of_a_log(seeded: SeededNode, tmp_path: Path) -> None:
    """Nobody can make it wait: a log that is a named pipe is left out, and all else is there."""
    log = tmp_path / "pipe.log"
    os.mkfifo(log)
    seeded.configure(seeded.conf(nodeFile=str(seeded.run / "node.json"), logfile=str(log)))
    file = tmp_path / "report.tar.gz"
    program = str(Path(sys.executable).with_name("kube-node"))
    subprocess.run([program, "report", str(file), f"--cni-config={seeded.net}"], check=True, timeout=PATIENCE)
    left = {one["what"]: one["why"] for one in json.loads(unpacked(file.read_bytes())["contents.json"])["leftOut"]}
    assert "not a regular file" in left[str(log)]


def test_a_line_of_nothing_but_names_of_secrets() -> None:
    """The author of a network chooses what a log line names: no such line makes a report wait."""
    script = (
        "from kubenode.inspection.bugreport.secrets import Scrubber; Scrubber(()).text('token' * 4_000); Scrubber(()).text('-' * 20_000)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE)


def test_what_is_nested_deeply() -> None:
    """The author of a network nests what stands in it: it is left out, and the rest is there."""
    archive = Archive(Scrubber(()))
    nested: list[object] = []
    for _ in range(100_000):  # deeper than any json.loads would go; Python 3.13 writes what 3.11 does not
        nested = [nested]
    archive.attempt("nested", lambda: archive.add("nested.json", "nested", nested))
    archive.attempt("flat", lambda: archive.add("flat.json", "flat", []))
    assert ([one.what for one in archive.left_out], [one.file for one in archive.taken]) == (["nested"], ["flat.json"])


@pytest.mark.parametrize(
    "text",
    [
        """{"password": "it's {}"}""",
        '{"password": "a\\"b{}"}',
        '{"msg": "{\\"token\\": \\"it\'s {}\\"}"}',
        "http://user:p@{}@proxy.example:3128",
        '--token "a {}" --next',
    ],
)
def test_quotes_in_a_secret(text: str) -> None:
    """A secret ends at its own quote, and before the last @ of an address, not at the first that it has itself."""
    assert "Hush" not in Scrubber(()).text(text.replace("{}", "Hush"))


@pytest.mark.parametrize(
    "text",
    [
        "container 811e14a216f9c46d2f4e322653a52d92f7ae03e64c5aca6f27afc3402e80d40f",
        "/var/lib/cni/networks/k8snet/10.1.2.3",
        "registry.example/kube-node@sha256:811e14a216f9c46d2f4e322653a52d92f7ae03e64c5aca6f27afc3402e80d40f",
        "pod web/shop-7c5ddbdf54-8hq2m",
        '{"msg": "the token has expired", "code": 11}',
        "fd00::1:2 in kube-node.nordix.org/net1",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Container IDs, digests, paths, names and addresses are what a report is for."""
    assert Scrubber(()).text(text) == text
