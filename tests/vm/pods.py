# SPDX-License-Identifier: Apache-2.0
"""In the guest: pods come and go through the installed relay until SIGTERM; a file then says how it went.

pods.py NETWORK.json RESULT.json
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

from runtime import Net, Runtime

PLUGINS, DATA_DIR = Path("/usr/lib/cni"), Path("/var/lib/cni/networks")
WORKERS = 3


def main() -> None:
    config, result = map(Path, sys.argv[1:])
    netconf = {**json.loads(config.read_text()), "cniVersion": "1.1.0"}  # older ones have no GC
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    network = Net("kube-node", netconf, DATA_DIR / netconf["name"])
    runtime = Runtime(PLUGINS, [network], WORKERS, seed=1)
    runtime.start()
    while not ended.wait(0.5):
        pass
    runtime.stop(240)
    runtime.collect(network)
    result.write_text(json.dumps({"wrong": runtime.wrong, "calls": runtime.calls, "longest": runtime.longest}))


if __name__ == "__main__":
    main()
