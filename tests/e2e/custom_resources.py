"""Print whether the API server in $KUBEBUILDER_ASSETS outlives its first custom resource, yes or no.

One that was compiled by a Go which its libraries do not work with ends with SIGSEGV there.
"""

from __future__ import annotations

import os
import sys
import tempfile
from http.client import HTTPException
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from apiserver import RealApiServer
from controllerprocess import until
from corner import Corner, install_crds


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        server = RealApiServer(Path(os.environ["KUBEBUILDER_ASSETS"]), Path(directory))
        try:
            server.start()
            install_crds(server)
            try:
                Corner(server).pool("first", [{"cidr": "192.0.2.0/24", "nodePrefix": 28}])
            except (OSError, HTTPException):
                until(lambda: not server.runs())  # a crash takes a moment to be written down
                print("no")
            else:
                print("yes")
        finally:
            server.close()


if __name__ == "__main__":
    main()
