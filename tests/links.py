# SPDX-License-Identifier: Apache-2.0
"""Which links between pods and the host this kernel can make."""

from __future__ import annotations

import subprocess


def kernel_makes(link: str) -> bool:
    """Tell whether the kernel has this type of link on top of another: ipvlan is not in each."""
    script = 'ip link add kn0 type veth peer name kn1 && ip link add kn2 link kn0 type "$0"'
    return subprocess.run(["unshare", "--net", "sh", "-c", script, link], check=False, capture_output=True).returncode == 0


# Plugins whose pods sit on an interface of the host. ipvlan's tests run in tests/vm where this kernel has none.
ON_INTERFACES = ("macvlan", "ipvlan") if kernel_makes("ipvlan") else ("macvlan",)
