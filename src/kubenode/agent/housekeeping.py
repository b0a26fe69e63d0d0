"""What the agent does at the start and then every minute, apart from any call: reboot, leaks, foreign changes, new networks."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from kubenode.cni.errors import CNIError
from kubenode.host.attachments import Attachments, everywhere
from kubenode.host.datadir import DEFAULT_DATA_DIR
from kubenode.ipam import allocator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.agent.networks import Networks
    from kubenode.agent.reach import Stores
    from kubenode.agent.reclaim import Reclaimer
    from kubenode.host.log import Log

EVERY = 60.0  # seconds


class Housekeeping:
    """One pass does all of it; what fails is logged and tried again with the next."""

    def __init__(
        self, networks: Networks, stores: Stores, reclaimer: Reclaimer | None, run_dir: str, config_dir: str, log: Log, every: float = EVERY
    ) -> None:
        self._networks = networks
        self._stores = stores
        self._reclaimer = reclaimer
        self._run_dir = run_dir
        self._config_dir = config_dir
        self._log = log
        self._every = every

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.to_thread(self.tidy)
            await asyncio.sleep(self._every)

    def tidy(self) -> None:
        """Make one pass. May wait for locks."""
        self._networks.read_config(self._config_dir)
        for data_dir, network in sorted(set(self._reserving())):
            try:
                self._look_at(data_dir, network)
            except (CNIError, OSError) as error:
                self._log.error("a data directory cannot be looked after", dataDir=data_dir, network=network, error=str(error))
        if self._reclaimer:
            try:
                self._reclaimer.look()
            except (CNIError, OSError) as error:
                self._log.error("leaks cannot be looked for", error=str(error))

    def _reserving(self) -> Iterator[tuple[str, str]]:
        """Yield each data directory and network that may have reservations, as far as anything here tells."""
        yield from ((key.data_dir or DEFAULT_DATA_DIR, key.network) for key in self._networks.known())
        yield from self._stores.known()
        for network, attachment in everywhere(self._run_dir):
            yield str(Attachments(self._run_dir, network).read(attachment).get("dataDir") or DEFAULT_DATA_DIR), network

    def _look_at(self, data_dir: str, network: str) -> None:
        store = self._stores.get(data_dir, network)
        if not os.path.isdir(store.directory):
            return
        if dead := allocator.release_dead(store):
            self._log.warning("reservations of an earlier boot released", network=network, ips=[entry.name for entry in dead])
        with store.lock():
            if not store.is_as_indexed():
                self._log.warning("somebody has changed reservations without the lock", network=network, dataDir=data_dir)
