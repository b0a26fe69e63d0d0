# SPDX-License-Identifier: Apache-2.0
"""Copy of the pod's service account on the host, for plugins that run without agent, as fresh as the pod's own.

A pod's token ends with the pod, and after an hour. While no agent runs, the Node view serves instead.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from kubenode.base.problem import Problem
from kubenode.installer import payload
from kubenode.kube.offloop import off_loop

if TYPE_CHECKING:
    from kubenode.base.log import Log

LOOK = 20.0  # seconds; the kubelet renews a token when a fifth of its lifetime is left, at least two minutes


async def keep_credentials(directory: str, service_account: str, log: Log, look: float = LOOK) -> NoReturn:
    """Copy token and CA certificate to `directory` after each change."""
    told = ""
    while True:
        try:
            if await off_loop(partial(payload.refresh, directory, service_account)):
                log.info("service account copied", directory=directory)
            told = ""
        except (Problem, OSError) as error:
            if str(error) != told:
                log.error("cannot copy the service account", error=str(error))
            told = str(error)
        await asyncio.sleep(look)
