# SPDX-License-Identifier: Apache-2.0
"""Who holds which address: one attachment with its addresses, suspects first, then the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from seen import Seen, address

from kubenode.host.attachments import Record
from kubenode.inspection.holders import NEIGHBOURS, Holder, HolderFilter, holder_of, holders
from kubenode.ipam.store import Attachment

if TYPE_CHECKING:
    from pathlib import Path

    from kubenode.inspection.records import Records


def found(seen: Seen, namespace: str = "", most: int = 0) -> tuple[list[str], int]:
    """Return the containers of the holders that are shown, and how many addresses are not."""
    shown, left = holders(seen.network(), cast("Records", seen.records), HolderFilter(namespace, most))
    return [one.attachment.container_id if one.attachment else "" for one in shown], left


@pytest.fixture
def seen(tmp_path: Path) -> Seen:
    return Seen(tmp_path, "10.0.0.0/24", "fd00::/64")


def test_addresses_of_one_attachment(seen: Seen) -> None:
    """The addresses of an attachment are one holder, in their order; it holds them since the first, and its record comes with it."""
    seen.hold("c1", "fd00::2", since=60, pod_name="shop", pod_namespace="web")
    seen.hold("c1", "10.0.0.2", since=50, pod_name="shop", pod_namespace="web")
    seen.hold("c1", "10.0.0.3", ifname="net1")
    (second, first), left = holders(seen.network(), cast("Records", seen.records), HolderFilter())
    assert left == 0
    assert [str(one) for one in first.addresses] == ["10.0.0.2", "fd00::2"]
    assert (first.since, first.record.pod, first.suspected) == (50.0, "web/shop", False)
    assert (second.attachment, second.record) == (Attachment("c1", "net1"), Record())


def test_a_file_of_nobody(seen: Seen) -> None:
    """Each file without a readable owner is a holder of its own."""
    seen.hold("", "10.0.0.2", "10.0.0.3", since=5)
    assert found(seen) == (["", ""], 0)


def test_the_newest_come_first(seen: Seen) -> None:
    """The newest come first, as many as are wanted; the number of addresses left out is right, though their files are not read."""
    count = NEIGHBOURS + 20
    for number in range(count):
        seen.hold(f"c{number}", f"10.0.0.{number + 2}", since=1000 + number)
    assert found(seen, most=3) == ([f"c{count - 1}", f"c{count - 2}", f"c{count - 3}"], count - 3)
    assert found(seen, most=count) == ([f"c{number}" for number in reversed(range(count))], 0)
    assert found(seen)[1] == 0


def test_suspects_are_never_left_out(seen: Seen) -> None:
    """Who may have leaked is shown above all others, however old."""
    for number in range(NEIGHBOURS + 20):
        seen.hold(f"c{number}", f"10.0.0.{number + 2}", since=1000 + number, gone=number in {0, 5})
    shown, left = found(seen, most=2)
    assert shown == ["c5", "c0", f"c{NEIGHBOURS + 19}", f"c{NEIGHBOURS + 18}"]
    assert left == NEIGHBOURS + 20 - 4


def test_of_a_namespace(seen: Seen) -> None:
    """Only pods of the namespace count, those left out, too; a record without a namespace is of default, and no record of none."""
    for number in range(4):
        seen.hold(f"web{number}", f"10.0.0.{number + 2}", f"fd00::{number + 2}", since=100 + number, pod_name="p", pod_namespace="web")
    seen.hold("none", "10.0.0.90", pod_name="p")
    seen.hold("unknown", "10.0.0.91")
    assert found(seen, "web", most=1) == (["web3"], 6)
    assert found(seen, "default") == (["none"], 0)
    assert found(seen, "other") == ([], 0)


def test_whose_an_address_is(seen: Seen) -> None:
    """One address leads to its holder, alone; one that nobody has to None."""
    seen.hold("c1", "10.0.0.2", "fd00::2", gone=True)

    def of(text: str) -> Holder | None:
        return holder_of(seen.network(), cast("Records", seen.records), address(text))

    one = of("10.0.0.2")
    assert one is not None
    assert (one.attachment, one.addresses, one.suspected) == (("c1", "eth0"), (address("10.0.0.2"),), True)
    assert of("10.0.0.9") is None
