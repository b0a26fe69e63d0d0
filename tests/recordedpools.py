# SPDX-License-Identifier: Apache-2.0
"""The state that a version's controller leaves in a cluster: the same pools and nodes, in the hands of any source tree's controller.

`python tests/recordedpools.py SRC OUTPUT` makes tests/upgrade's objects out of a checkout of the version that names them, on an API
server of its own. Words stand in place of UIDs and times.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apiserver import RealApiServer
from controllerprocess import until
from corner import APIS, Corner, install_crds
from recording import Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from apiserver import ApiServer

State = dict[str, dict[str, Any]]
OTHER_KEY = "test.example.com/upgrade-other"
RELEASED, GONE = "@RELEASED@", "@GONE@"


class Cluster(Corner):
    """Pools and nodes, whose names are the same in each version."""

    def __init__(self, server: ApiServer) -> None:
        super().__init__(server)
        self.id, self.key = "upgrade", "test.example.com/upgrade"

    @contextmanager
    def controller(self, source: Path, directory: Path) -> Iterator[None]:
        """Run the controller of a source tree, which is alone."""
        admin = self.server.kubeconfig(directory / "admin", self.server.certificate_user("upgrade-admin", "system:masters"))
        command = [*Version(source, directory).command, "controller", f"--kubeconfig={admin}", "--lease=none", "--listen=none"]
        with (directory / "log").open("ab") as log, subprocess.Popen(command, stderr=log) as process:
            try:
                yield
            finally:
                process.kill()

    def has(self, node: str) -> bool:
        """Say whether a node has subnets of both pools."""
        annotations: dict[str, str] = self.server.request("GET", f"/api/v1/nodes/{node}")["metadata"].get("annotations", {})
        return {self.key, OTHER_KEY} <= annotations.keys()

    def leave(self) -> None:
        """Let nodes come, be annotated by hand, and go; a controller works."""
        self.pool(
            "net", [{"cidr": "172.29.0.0/22", "nodePrefix": 25, "exclude": ["172.29.0.0/25"]}, {"cidr": "fd00:29::/48", "nodePrefix": 64}]
        )
        self.pool("other", [{"cidr": "172.29.8.0/21", "nodePrefix": 24}], annotation=OTHER_KEY)
        for name, text in (("a", None), ("by-hand", "172.29.1.0/25"), ("gone", None), ("moved", None)):
            node = self.node(name, annotation=text)
            until(partial(self.has, node))
        self.node("conflict", annotation="192.168.7.0/24")
        self.server.request("DELETE", "/api/v1/nodes/gone-upgrade")
        self.annotate("moved-upgrade", "172.29.3.0/25")
        # Released: three of the node that is gone, two of the one that has another by hand.
        until(lambda: sum("releasedAt" in claim for claim in self.claims().values()) == 5 and self.has("conflict-upgrade"))

    def taken(self) -> State:
        """Return pools, NodeSubnets and annotations by name, without what the API server adds."""
        nodes = self.server.request("GET", f"/api/v1/nodes?labelSelector=test={self.id}")["items"]
        uids = {node["metadata"]["uid"]: f"@UID {node['metadata']['name']}@" for node in nodes}
        found: State = {"nodes": {node["metadata"]["name"]: node["metadata"]["annotations"] for node in nodes}}
        for kind in ("subnetpools", "nodesubnets"):
            items = self.server.request("GET", f"{APIS}/{kind}")["items"]
            found[kind] = {
                item["metadata"]["name"]: {
                    "labels": item["metadata"].get("labels", {}),
                    **{key: item[key] for key in ("spec", "status") if key in item},
                }
                for item in items
                if item["spec"].get("pool", item["metadata"]["name"]).endswith(self.id)
            }
        for claim in found["nodesubnets"].values():
            claim["spec"]["nodeUID"] = uids.get(claim["spec"]["nodeUID"], GONE)
            if "releasedAt" in claim["spec"]:
                claim["spec"]["releasedAt"] = RELEASED
        return found

    def put_back(self, state: State) -> str:
        """Create all that was taken; what was released was so ten minutes ago. Return that time."""
        uids = {}
        for name, texts in state["nodes"].items():
            metadata = {"name": name, "labels": {"test": self.id}, "annotations": texts}
            uids[f"@UID {name}@"] = self.server.request("POST", "/api/v1/nodes", {"metadata": metadata})["metadata"]["uid"]
        released = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 600))
        text = json.dumps({kind: state[kind] for kind in ("nodesubnets", "subnetpools")}).replace(RELEASED, released)
        objects = json.loads(re.sub("@UID [^@]*@", lambda word: uids[word[0]], text))
        for resource, kind in (("nodesubnets", "NodeSubnet"), ("subnetpools", "SubnetPool")):
            for name, item in objects[resource].items():
                manifest = {
                    "apiVersion": "kube-node.nordix.org/v1alpha1",
                    "kind": kind,
                    "metadata": {"name": name, "labels": item["labels"]},
                }
                self.server.request("POST", f"{APIS}/{resource}", {**manifest, "spec": item["spec"]})
        for name, item in objects["subnetpools"].items():
            self.pools.add(name)
            self.merge(f"{APIS}/subnetpools/{name}/status", {"status": item["status"]})
        return released


def given(state: State) -> Mapping[str, Any]:
    """Return the part of a state that says who has which subnet; a pool's status only tells of it."""
    return {"nodes": state["nodes"], "nodesubnets": state["nodesubnets"]}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="recording.") as scratch:
        api_server = RealApiServer(Path(os.environ["KUBEBUILDER_ASSETS"]), Path(scratch))
        try:
            api_server.start()
            install_crds(api_server)
            cluster = Cluster(api_server)
            with cluster.controller(Path(sys.argv[1]), Path(scratch)):
                cluster.leave()
            Path(sys.argv[2]).write_text(json.dumps(cluster.taken(), indent=1, sort_keys=True) + "\n")
        finally:
            api_server.close()
