# SPDX-License-Identifier: Apache-2.0
"""Housekeeping of the agent, at the start and then every minute, independent of calls: reboots, leaks, foreign changes, new networks."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from kubenode.agent.networks import Key
from kubenode.agent.reclaim import Attached
from kubenode.cni.errors import CNIError
from kubenode.cni.request import is_name
from kubenode.host.attachments import Attachments, Record, everywhere
from kubenode.ipam import allocator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.agent.host import Stores
    from kubenode.agent.networks import Networks
    from kubenode.agent.reclaim import Reclaimer
    from kubenode.base.log import Log
    from kubenode.base.workers import Round

EVERY = 60.0  # seconds


class Housekeeping:
    """Passes over all networks; errors are logged, and the next pass tries again."""

    def __init__(
        self,
        networks: Networks,
        stores: Stores,
        ask: Round,
        reclaimer: Reclaimer | None,
        run_dir: str,
        config_dir: str,
        log: Log,
        every: float = EVERY,
    ) -> None:
        self._networks = networks
        self._stores = stores
        self._ask = ask
        self._reclaimer = reclaimer
        self._run_dir = run_dir
        self._config_dir = config_dir
        self._log = log
        self._every = every

    def start(self) -> None:
        """Work until the process ends. A daemon thread, as the end must not wait for a slow API server or disk."""
        threading.Thread(target=self._work, daemon=True, name="housekeeping").start()

    def _work(self) -> None:
        while True:
            try:
                self.tidy()
            except Exception as error:  # noqa: BLE001 -- calls must still be served; the next pass tries again
                self._log.error("internal error in housekeeping", error=repr(error))
            time.sleep(self._every)

    def tidy(self) -> None:
        """Make one pass."""
        configured = self._networks.read_config(self._config_dir)
        # Without networks known only from configuration: another plugin may have reserved addresses there in this boot, before us.
        places = {Key(network, data_dir) for data_dir, network in self._stores.known()}
        # Read once for both uses, one by one: there may be tens of thousands.
        records = self._records(places)
        if self._reclaimer:
            self._reclaimer.look(records)
        else:
            for _ in records:
                pass
        self._ask.gather({place: partial(self._look_after, place) for place in sorted(places) if is_name(place.network)})
        if self._reclaimer:
            self._reclaimer.judge()
        self._forget({place.network for place in places} | {key.network for key in configured})

    def _records(self, places: set[Key]) -> Iterator[Attached]:
        """Yield the record of each attachment, and note where its addresses are reserved."""
        try:
            for network, attachment in everywhere(self._run_dir):
                record = Attachments(self._run_dir, network).read(attachment) or Record()
                places.add(Key(network, record.data_dir))
                yield Attached(network, attachment, record)
        except OSError as error:
            self._log.error("cannot read the attachment records", error=str(error))

    def _look_after(self, place: Key) -> None:
        """Release reservations of an earlier boot, and check the index. Runs on the network's thread."""
        try:
            store = self._stores.again(place.data_dir, place.network)
            if store is None:
                return
            told = {"network": place.network, "dataDir": place.data_dir}
            with store.lock():
                dead = allocator.release_from_earlier_boot(store)
                rested = allocator.release_rested(store)
                is_as_indexed = store.is_as_indexed()
                if is_as_indexed and next(iter(store.index()), None) is None:
                    self._stores.drop(place.data_dir, place.network)
            if dead:
                self._log.warning("reservations of an earlier boot released", **told, ips=[entry.name for entry in dead])
            if rested:
                self._log.info("addresses have rested long enough: released", **told, ips=[entry.name for entry in rested])
            if not is_as_indexed:
                self._log.warning("reservations changed without the lock", **told)
        except (CNIError, OSError) as error:
            if isinstance(error, FileNotFoundError) and self._stores.again(place.data_dir, place.network) is None:
                return  # somebody has removed it meanwhile
            self._log.error("housekeeping of a data directory failed", network=place.network, dataDir=place.data_dir, error=str(error))

    def _forget(self, used: set[str]) -> None:
        """Forget networks without a directory, except those with a name in `used`: an annotation may have a data directory of its own."""
        doubtful = [key for key in self._networks.known() if key.network not in used]
        there = self._ask.gather({key: partial(self._may_be_there, key) for key in doubtful}, "forget")
        self._networks.forget([key for key in doubtful if not there.get(key, True)])

    def _may_be_there(self, key: Key) -> bool:
        try:
            return self._stores.looked_at(key.data_dir, key.network).is_there()
        except (CNIError, OSError):
            return True
