# SPDX-License-Identifier: Apache-2.0
"""kube-node with shorter waits: `AgentProcess(…, wrap=IMPATIENT)` for those of its report, `wrap=HURRIED` for a call's deadline.

`ControllerProcess(…, wrap=IMPATIENT)` for those of blocks that come and go.
"""

from __future__ import annotations

import sys

from kubenode.agent import connection, nodeaddresses, server, settling
from kubenode.cli.main import main
from kubenode.pools import growth, plan

if __name__ == "__main__":
    if sys.argv[1] == "report":
        settling.SETTLE = 1.5
        nodeaddresses.MINUTE = 3.0
    elif sys.argv[1] == "growth":
        growth.HOLD = 5.0
        vars(plan)["RETURNED_AFTER"] = 3.0
    else:
        vars(connection)["DEADLINE"] = vars(server)["DEADLINE"] = 4.0
    del sys.argv[:2]
    sys.exit(main())
