# SPDX-License-Identifier: Apache-2.0
"""API servers for tests, with certificates of their own. The real one: etcd and kube-apiserver from $KUBEBUILDER_ASSETS, RBAC.

A test file, or conftest.py, imports the fixture `api_server`.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import select
import shutil
import socket
import ssl
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest
from authority import Authority, KeyPair
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from wanting import apiserver_minor, asset, want

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

START_TIMEOUT = 60.0
NODE_INFO = (
    "architecture", "bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "kubeletVersion",
    "operatingSystem", "osImage", "systemUUID",
)  # fmt: skip
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted, ResponseComplete, Panic]
rules: [{level: Metadata}]
"""


class Asked(NamedTuple):
    """One request that reached the API server."""

    user: str
    verb: str
    resource: str
    name: str
    agent: str
    uri: str


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealApiServer]:
    """Return a running API server, one for the whole session: let names be unique to a test."""
    want("kube-apiserver")
    server = RealApiServer(Path(cast("str", asset("kube-apiserver"))).parent, tmp_path_factory.mktemp("apiserver"))
    try:
        server.start()
        yield server
    finally:
        server.close()


class ApiServer(ABC):
    """An API server on loopback, and what a test wants of it."""

    def __init__(self, directory: Path, port: int) -> None:
        self.authority = Authority()
        self.directory = directory
        self._port = port
        self.url = f"https://127.0.0.1:{self._port}"
        self._admin = self._context(self.authority.client("admin", "system:masters"))
        self._idle: list[http.client.HTTPSConnection] = []  # a handshake costs more than most requests

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None, content_type: str = "application/json") -> Any:
        """Ask as cluster-admin and return the answer's JSON. Raises RuntimeError where the answer is none of 2xx."""
        connection = self._connection()
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": content_type, "User-Agent": "test"})
            answer = connection.getresponse()
            text = answer.read()
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
        return json.loads(text) if text.startswith(b"{") else text

    def create_node(
        self, name: str, pod_cidrs: Sequence[str] = (), annotations: Mapping[str, str] | None = None, machine_id: str | None = None
    ) -> None:
        spec: dict[str, Any] = {"podCIDR": pod_cidrs[0], "podCIDRs": list(pod_cidrs)} if pod_cidrs else {}
        metadata = {"name": name, "annotations": dict(annotations or {})}
        self.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec})
        if machine_id is not None:
            self.set_machine_id(name, machine_id)

    def delete_node(self, name: str) -> None:
        self.request("DELETE", f"/api/v1/nodes/{name}")

    def set_machine_id(self, node: str, machine_id: str) -> None:
        info = {"machineID": machine_id, **dict.fromkeys(NODE_INFO, "-")}
        self._merge(f"/api/v1/nodes/{node}/status", {"status": {"nodeInfo": info}})

    def annotate(self, node: str, annotations: Mapping[str, str | None]) -> None:
        """Set annotations of a Node; None removes one."""
        self._merge(f"/api/v1/nodes/{node}", {"metadata": {"annotations": dict(annotations)}})

    def grant(self, user: str, *verbs: str, resource: str = "nodes", group: str = "") -> None:
        """Let a user do `verbs` on a resource, by default of the core group, and wait until the server has understood it."""
        name = f"test-{secrets.token_hex(4)}"
        rbac, meta = "/apis/rbac.authorization.k8s.io/v1", {"metadata": {"name": name}}
        rules = [{"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}]
        self.request("POST", f"{rbac}/clusterroles", {**meta, "rules": rules})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
        self.request("POST", f"{rbac}/clusterrolebindings", {**meta, "roleRef": role, "subjects": [subject]})
        review = {"spec": {"user": user, "resourceAttributes": {"verb": verbs[0], "group": group, "resource": resource}}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        self._wait(lambda: bool(self.request("POST", path, review)["status"]["allowed"]), f"{user} gets no rights")

    def service_account(self, name: str) -> str:
        """Create a service account in kube-system; return the name of its user."""
        account = {"metadata": {"name": name}}
        self.request("POST", "/api/v1/namespaces/kube-system/serviceaccounts", account)
        return f"system:serviceaccount:kube-system:{name}"

    def token(self, service_account: str) -> str:
        """Return a new token of a service account in kube-system, good for ten minutes."""
        path = f"/api/v1/namespaces/kube-system/serviceaccounts/{service_account}/token"
        answer = self.request("POST", path, {"spec": {"expirationSeconds": 600}})
        token: str = answer["status"]["token"]
        return token

    def token_on(self, service_account: str, node: str, pod: str) -> str:
        """Return a token like the one of a pod of a service account on a node."""
        mounts = {"automountServiceAccountToken": False}  # no controller makes a secret
        spec = {"serviceAccountName": service_account, "nodeName": node, "containers": [{"name": "main", "image": "none"}], **mounts}
        pods = "/api/v1/namespaces/kube-system/pods"
        uid = self.request("POST", pods, {"metadata": {"name": pod}, "spec": spec})["metadata"]["uid"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}
        path = f"/api/v1/namespaces/kube-system/serviceaccounts/{service_account}/token"
        answer = self.request("POST", path, {"spec": {"expirationSeconds": 600, "boundObjectRef": bound}})
        token: str = answer["status"]["token"]
        return token

    def kubeconfig(self, path: Path, user: Mapping[str, Any] | str, **cluster: Any) -> Path:
        """Write a kubeconfig for a user: the user's entry itself, or a name that gets a client certificate. `cluster`: _ for -."""
        if isinstance(user, str):
            user = self.certificate_user(user)
        said = {"server": self.url, "certificate-authority-data": base64_text(self.authority.certificate)}
        changes = {key.replace("_", "-"): value for key, value in cluster.items()}
        return write_kubeconfig(path, {key: value for key, value in (said | changes).items() if value is not None}, user)

    def certificate_user(self, name: str, *groups: str) -> dict[str, str]:
        """Return a kubeconfig's user entry with a certificate for the name."""
        pair = self.authority.client(name, *groups)
        return {"client-certificate-data": base64_text(pair.certificate), "client-key-data": base64_text(pair.key)}

    @abstractmethod
    def start(self) -> None:
        """Start it, with all that it knew before, and wait until it serves."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it; connections are refused until `start`."""

    def close(self) -> None:
        self.stop()
        while self._idle:
            self._idle.pop().close()

    @abstractmethod
    def asked(self, agent: str = "kube-node/") -> list[Asked]:
        """Return the requests so far of clients whose User-Agent begins with `agent`."""

    def _connection(self) -> http.client.HTTPSConnection:
        """Return one that no other thread uses, and that the server has not ended."""
        while self._idle:
            connection = self._idle.pop()
            if connection.sock:
                poll = select.poll()  # select(2) takes no descriptor over 1,023
                poll.register(connection.sock, select.POLLIN)
                if not poll.poll(0):
                    return connection
            connection.close()
        return http.client.HTTPSConnection("127.0.0.1", self._port, context=self._admin, timeout=30)

    def _merge(self, path: str, patch: Mapping[str, Any]) -> None:
        self.request("PATCH", path, patch, "application/merge-patch+json")

    def _wait(self, condition: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{complaint}; see {self.directory}")
            time.sleep(0.1)

    def _context(self, client: KeyPair) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.authority.certificate.decode())
        path = self.directory / "admin.pem"
        path.write_bytes(client.certificate + client.key)
        context.load_cert_chain(path)
        return context


class RealApiServer(ApiServer):
    """etcd and kube-apiserver."""

    def __init__(self, assets: Path, directory: Path) -> None:
        port, self._etcd_port, etcd_peer_port = free_ports(3)
        super().__init__(directory, port)
        self._assets = assets
        self._write_files()
        etcd_url, peer_url = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{etcd_peer_port}"
        etcd = ["etcd", f"--data-dir={directory / 'etcd'}", f"--listen-client-urls={etcd_url}", f"--advertise-client-urls={etcd_url}"]
        self._etcd = self._run([*etcd, f"--listen-peer-urls={peer_url}"])
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        files = self.directory
        self._process = self._run([
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self._etcd_port}", "--bind-address=127.0.0.1",
            f"--secure-port={self._port}", "--advertise-address=127.0.0.1", "--authorization-mode=Node,RBAC",
            f"--tls-cert-file={files}/server.crt", f"--tls-private-key-file={files}/server.key", f"--client-ca-file={files}/ca.crt",
            f"--service-account-key-file={files}/sa.key", f"--service-account-signing-key-file={files}/sa.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112", *self._gates(),
            f"--audit-policy-file={files}/audit.yaml", f"--audit-log-path={files}/audit.log", "--audit-log-mode=blocking",
        ])  # fmt: skip
        self._wait(self._is_ready, "the API server does not get ready")

    @property
    def minor(self) -> int:
        """Its version's second number."""
        return apiserver_minor()

    def _gates(self) -> list[str]:
        """Without it 1.20 drops the second podCIDR; 1.25 and later refuse to start with it."""
        return ["--feature-gates=IPv6DualStack=true"] if self.minor < 23 else []

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # by SIGTERM it would wait a minute for watches to end, and refuse connections meanwhile
            self._process.wait()
            self._process = None

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        super().close()
        self._etcd.kill()
        self._etcd.wait()

    def asked(self, agent: str = "kube-node/") -> list[Asked]:
        """Say what the audit log says."""
        found = []
        for line in (self.directory / "audit.log").read_bytes().splitlines():
            event = json.loads(line)
            if event.get("userAgent", "").startswith(agent):
                target = event.get("objectRef", {})
                name = (target.get("resource", ""), target.get("name", ""), event["userAgent"], event["requestURI"])
                found.append(Asked(event["user"].get("username", ""), event["verb"], *name))
        return found

    def _is_ready(self) -> bool:
        if not self.runs():
            raise RuntimeError(f"kube-apiserver has ended, see {self.directory}/kube-apiserver.log")
        try:
            self.request("GET", "/readyz")
            self.request("GET", "/api/v1/namespaces/kube-system")  # made by a controller inside, a moment later
        except (OSError, http.client.HTTPException, RuntimeError):
            return False
        return True

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.directory / f"{command[0]}.log").open("ab") as log:
            program = shutil.which(command[0], path=f"{self._assets}:{os.environ['PATH']}")  # Debian has etcd
            return subprocess.Popen([str(program), *command[1:]], stdout=log, stderr=log, cwd=self.directory)

    def _write_files(self) -> None:
        server = self.authority.server("127.0.0.1", "localhost", "kubernetes.test", "10.96.0.1")
        # Tokens are signed by RSA here: 1.20 takes no other key in PKCS#8.
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
        files = {"ca.crt": self.authority.certificate, "server.crt": server.certificate, "server.key": server.key, "sa.key": pem}
        for name, content in {**files, "audit.yaml": AUDIT_POLICY.encode()}.items():
            (self.directory / name).write_bytes(content)


def write_kubeconfig(path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> Path:
    """Write a kubeconfig of one context. JSON is YAML."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": dict(cluster)}],
        "users": [{"name": "test", "user": dict(user)}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def base64_text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports
