# SPDX-License-Identifier: Apache-2.0
"""kube-node with short waits of the agent's report, for `AgentProcess(…, wrap=IMPATIENT)`."""

from __future__ import annotations

import sys

from kubenode.agent import nodeaddresses, settling
from kubenode.cli.main import main

settling.SETTLE = 1.5
nodeaddresses.MINUTE = 3.0

if __name__ == "__main__":
    del sys.argv[0]
    sys.exit(main())
