# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the API server that keeps objects as the real one does: versions, conflicts, watches, status, schemas, rights.

For machines whose API server cannot serve custom resources. What it does is shown to be what the real one does by tests that pass on
both; see servers.py.
"""

from __future__ import annotations

import copy
import json
import re
import secrets
import socket
import ssl
import threading
import uuid
from bisect import bisect_right
from collections import defaultdict
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from apiserver import ApiServer, Asked, free_ports
from jsonschema import Draft4Validator, ValidationError, validators  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Manifest = dict[str, Any]

PATH = re.compile(
    r"(?P<collection>/(?:api|apis/(?P<group>[^/]+))/\w+(?:/namespaces/(?P<namespace>[^/]+))?/(?P<resource>\w+))"
    r"(?:/(?P<name>[^/]+)(?:/(?P<sub>\w+))?)?"
)
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
KEPT = ("uid", "creationTimestamp", "generation")  # of the metadata, whatever somebody writes
MASTERS = "system:masters"


class Refused(Exception):  # noqa: N818 (an answer, not an error)
    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code}


class Target(NamedTuple):
    """What a request is about."""

    collection: str
    group: str
    namespace: str
    resource: str
    name: str
    sub: str


class Change(NamedTuple):
    version: int
    kind: str
    manifest: Manifest


class Objects:
    """The objects, and what has happened to them; nothing in here knows HTTP."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 1
        self.oldest = 1  # before it nobody knows what happened
        self.history: dict[str, list[Change]] = defaultdict(list)
        self._there: dict[str, dict[str, Manifest]] = defaultdict(dict)
        self._rest: dict[str, list[Manifest]] = {}  # of lists that are read in pages

    def forget(self) -> None:
        """Know no longer what has happened, as after a restart: watches from before get 410."""
        with self.changed:
            self.history.clear()
            self.oldest = self.version

    def get(self, target: Target) -> Manifest:
        self._require_served(target)
        try:
            return self._there[target.collection][target.name]
        except KeyError:
            raise Refused(404, "NotFound", f'{target.resource} "{target.name}" not found') from None

    def matching(self, target: Target, query: dict[str, str]) -> list[Manifest]:
        self._require_served(target)
        wanted: list[tuple[tuple[str, ...], str]] = []
        wanted += [(("metadata", "labels", key), value) for key, value in _pairs(query.get("labelSelector", ""))]
        wanted += [(tuple(key.split(".")), value) for key, value in _pairs(query.get("fieldSelector", ""))]
        there = self._there[target.collection]
        return [there[name] for name in sorted(there) if all(_at(there[name], path) == value for path, value in wanted)]

    def page(self, target: Target, query: dict[str, str]) -> tuple[list[Manifest], Manifest]:
        """Return a page's items and its metadata; all pages are of one version."""
        version, more = str(self.version), query.get("continue", "")
        items = self._rest.pop(more) if more else self.matching(target, query)
        if more:
            version = more.partition("-")[0]
        limit = int(query.get("limit", "0")) or len(items)
        token = ""
        if items[limit:]:
            token = f"{version}-{secrets.token_hex(4)}"
            self._rest[token] = items[limit:]
        return items[:limit], {"resourceVersion": version, "continue": token}

    def create(self, target: Target, manifest: Manifest) -> Manifest:
        self._require_served(target)
        name = manifest["metadata"]["name"]
        if name in self._there[target.collection]:
            raise Refused(409, "AlreadyExists", f'{target.resource} "{name}" already exists')
        made = copy.deepcopy(manifest)
        if self._has_status(target):
            made.pop("status", None)
        made["metadata"] |= {"uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": _now()}
        self._validate(target, made)
        return self._store(target, made, "ADDED")

    def update(self, target: Target, wanted: Manifest) -> Manifest:
        """Replace an object, its status alone, or all but its status."""
        old = self.get(target)
        for key in ("resourceVersion", "uid"):
            if wanted["metadata"].get(key, old["metadata"][key]) != old["metadata"][key]:
                raise Refused(409, "Conflict", f'Operation cannot be fulfilled on {target.resource} "{target.name}": its {key} is another')
        if target.sub:
            new = {**old, "status": wanted.get("status")}
        else:
            new = copy.deepcopy(wanted)
            new["metadata"] |= {key: old["metadata"][key] for key in (*KEPT, "resourceVersion")}
            if self._has_status(target):
                new.pop("status", None)
                new |= {"status": old["status"]} if "status" in old else {}
            if new.get("spec") != old.get("spec"):
                new["metadata"]["generation"] += 1
        if new == old:
            return old
        new["metadata"] = dict(new["metadata"])
        self._validate(target, new)
        return self._store(target, new, "MODIFIED")

    def merge(self, target: Target, patch: Manifest) -> Manifest:
        wanted: Manifest = _merged(self.get(target), patch)
        return self.update(target, wanted)

    def delete(self, target: Target, preconditions: Manifest) -> Manifest:
        old = self.get(target)
        for key, value in preconditions.items():
            if value != old["metadata"][key]:
                raise Refused(409, "Conflict", f'Operation cannot be fulfilled on {target.resource} "{target.name}": its {key} is another')
        del self._there[target.collection][target.name]
        return self._note(target, {**old, "metadata": dict(old["metadata"])}, "DELETED")

    def _store(self, target: Target, manifest: Manifest, kind: str) -> Manifest:
        self._there[target.collection][manifest["metadata"]["name"]] = manifest
        return self._note(target, manifest, kind)

    def _note(self, target: Target, manifest: Manifest, kind: str) -> Manifest:
        self.version += 1
        manifest["metadata"]["resourceVersion"] = str(self.version)
        self.history[target.collection].append(Change(self.version, kind, manifest))
        self.changed.notify_all()
        return manifest

    def _definition(self, target: Target) -> Manifest | None:
        return self._there[CRDS].get(f"{target.resource}.{target.group}")

    def _require_served(self, target: Target) -> None:
        if target.group.endswith(".nordix.org") and self._definition(target) is None:
            raise Refused(404, "NotFound", "the server could not find the requested resource")

    def _has_status(self, target: Target) -> bool:
        found = self._definition(target)
        return found is not None and "subresources" in found["spec"]["versions"][0]

    def _validate(self, target: Target, manifest: Manifest) -> None:
        if found := self._definition(target):
            schema = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            for error in SCHEMA(schema).iter_errors(manifest):
                raise Refused(422, "Invalid", f'{target.resource} "{target.name}" is invalid: {_field(error)}: {error.message}')

    # Who may what.

    def allowed(self, user: str, groups: tuple[str, ...], verb: str, target: Target) -> bool:
        if MASTERS in groups or target.resource == "selfsubjectaccessreviews":
            return True
        return any(_permits(rule, verb, target) for rule in self._rules(user, target.namespace))

    def _rules(self, user: str, namespace: str) -> Iterator[Manifest]:
        scopes = ["", f"/namespaces/{namespace}"] if namespace else [""]
        for scope in scopes:
            kind = "rolebindings" if scope else "clusterrolebindings"
            for binding in self._there[f"{RBAC}{scope}/{kind}"].values():
                if user in map(_user_of, binding["subjects"]):
                    role = binding["roleRef"]
                    at = f"{RBAC}/clusterroles" if role["kind"] == "ClusterRole" else f"{RBAC}{scope}/roles"
                    yield from self._there[at][role["name"]]["rules"]


def _target(path: str) -> Target:
    found = PATH.fullmatch(path)
    if found is None:
        raise Refused(404, "NotFound", f"no path {path}")
    return Target(**{key: value or "" for key, value in found.groupdict().items()})


def _user_of(subject: Manifest) -> str:
    if subject["kind"] == "ServiceAccount":
        return f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
    return str(subject["name"])


def _permits(rule: Manifest, verb: str, target: Target) -> bool:
    resource = f"{target.resource}/{target.sub}" if target.sub else target.resource
    named = rule.get("resourceNames")
    return (
        target.group in rule["apiGroups"]
        and resource in rule["resources"]
        and verb in rule["verbs"]
        and (not named or target.name in named)
    )


def _once(_: Any, keys: list[str], items: list[Manifest], __: Manifest) -> Iterator[ValidationError]:
    seen = [tuple(item.get(key) for key in keys) for item in items]
    for index, each in enumerate(seen):
        if each in seen[:index]:
            yield ValidationError(f"Duplicate value: {each}", path=[index])


SCHEMA = validators.extend(Draft4Validator, {"x-kubernetes-list-map-keys": _once})


def _field(error: ValidationError) -> str:
    """Return where an error is, as the real API server writes it."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    missing = [name for name in error.validator_value if name not in error.instance] if error.validator == "required" else []
    return ".".join([path.lstrip("."), *missing[:1]])


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _pairs(selector: str) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (part.partition("=") for part in selector.split(",") if part)]


def _at(manifest: Manifest, path: tuple[str, ...]) -> Any:
    found: Any = manifest
    for key in path:
        found = (found or {}).get(key)
    return found


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class ObjectServer(ApiServer):
    """Objects behind HTTPS, with RBAC."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, free_ports(1)[0])
        self.objects = Objects()
        self.seen: list[Asked] = []
        self.tokens: dict[str, str] = {}
        pair = self.authority.server("127.0.0.1")
        (directory / "server.pem").write_bytes(pair.certificate + pair.key)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(directory / "server.pem")
        self._tls.load_verify_locations(cadata=self.authority.certificate.decode())
        self._tls.verify_mode = ssl.CERT_OPTIONAL
        self._server: _Server | None = None

    def start(self) -> None:
        self.objects.forget()
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.owner = self
        self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.cut()
            self._server.server_close()
            self._server = None

    def asked(self, agent: str = "kube-node/") -> list[Asked]:
        return [asked for asked in self.seen if asked.agent.startswith(agent)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    owner: ObjectServer

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ended = False
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """End every connection, also those of watches."""
        self.ended = True
        with self.owner.objects.changed:
            self.owner.objects.changed.notify_all()
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def handle_error(self, *_: object) -> None:
        """Stay quiet: clients that are killed are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer's content waits for no acknowledgement of its header, which takes 40 ms
    server: _Server

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(size)
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        objects = self.server.owner.objects
        try:
            target = _target(url.path)
            with objects.changed:
                self._permit(target, query)
                if "watch" not in query:
                    answer = self._answer(target, query, json.loads(content) if content else {})
                    self._send(201 if self.command == "POST" else 200, answer)
                    return
            self._watch(target, int(query["resourceVersion"]), float(query["timeoutSeconds"]))
        except Refused as refused:
            self._send(refused.code, refused.status)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 (names of http.server)

    def _permit(self, target: Target, query: dict[str, str]) -> None:
        owner = self.server.owner
        user, groups = self._who()
        reading = "watch" if "watch" in query else "get" if target.name else "list"
        deleting = "delete" if target.name else "deletecollection"
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": deleting}.get(self.command, reading)
        owner.seen.append(Asked(user, verb, target.resource, target.name, self.headers.get("User-Agent", ""), self.path))
        if not owner.objects.allowed(user, groups, verb, target):
            resource = f"{target.resource}/{target.sub}" if target.sub else target.resource
            where = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
            problem = f'User "{user}" cannot {verb} resource "{resource}" in API group "{target.group}" {where}'
            raise Refused(403, "Forbidden", f"{resource} is forbidden: {problem}")

    def _who(self) -> tuple[str, tuple[str, ...]]:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self.server.owner.tokens:
            return self.server.owner.tokens[token], ()
        certificate = self.connection.getpeercert()
        if not certificate:
            raise Refused(401, "Unauthorized", "Unauthorized")
        names = [pair for part in certificate["subject"] for pair in part]
        return dict(names)["commonName"], tuple(value for key, value in names if key == "organizationName")

    def _answer(self, target: Target, query: dict[str, str], body: Manifest) -> Manifest:
        objects = self.server.owner.objects
        answer: Manifest = {"kind": "Status", "status": "Success"}
        match self.command, bool(target.name):
            case "GET", True:
                answer = self._form(objects.get(target))
            case "GET", False:
                items, metadata = objects.page(target, query)
                answer = {"metadata": metadata, "items": [self._form(item) for item in items]}
            case "POST", _:
                answer = self._posted(target, body)
            case "PUT", True:
                answer = objects.update(target, body)
            case "PATCH", True:
                answer = self._form(objects.merge(target, body))
            case "DELETE", True:
                objects.delete(target, body.get("preconditions") or {})
            case "DELETE", False:
                for item in objects.matching(target, query):
                    objects.delete(target._replace(name=item["metadata"]["name"]), {})
            case _:
                raise Refused(405, "MethodNotAllowed", f"{self.command} {self.path}")
        return answer

    def _posted(self, target: Target, body: Manifest) -> Manifest:
        owner = self.server.owner
        if target.sub == "token":
            token = secrets.token_hex(16)
            owner.tokens[token] = f"system:serviceaccount:{target.namespace}:{target.name}"
            return {"status": {"token": token}}
        if target.resource.endswith("subjectaccessreviews"):
            return self._review(body["spec"])
        return owner.objects.create(target, body)

    def _review(self, spec: Manifest) -> Manifest:
        """Say what somebody may."""
        user, groups = (spec["user"], ()) if "user" in spec else self._who()
        asked = spec["resourceAttributes"]
        about = Target("", asked.get("group", ""), asked.get("namespace", ""), asked["resource"], asked.get("name", ""), "")
        return {"kind": "Review", "status": {"allowed": self.server.owner.objects.allowed(user, groups, asked["verb"], about)}}

    def _form(self, manifest: Manifest) -> Manifest:
        if "PartialObjectMetadata" in self.headers.get("Accept", ""):
            return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": manifest["metadata"]}
        return manifest

    def _watch(self, target: Target, version: int, seconds: float) -> None:
        objects = self.server.owner.objects
        with objects.changed:
            expired = version < objects.oldest
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if expired:
            status = Refused(410, "Expired", f"too old resource version: {version} ({objects.oldest})").status
            self._chunk({"type": "ERROR", "object": status})
        end = datetime.now(UTC).timestamp() + seconds
        while not expired and not self.server.ended and (left := end - datetime.now(UTC).timestamp()) > 0:
            with objects.changed:
                history = objects.history[target.collection]
                new = history[bisect_right(history, version, key=lambda change: change.version) :]
                if not new:
                    objects.changed.wait(left)
            for change in new:
                self._chunk({"type": change.kind, "object": self._form(change.manifest)})
                version = change.version
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, event: Manifest) -> None:
        content = json.dumps(event).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))

    def _send(self, code: int, body: Manifest) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
