# SPDX-License-Identifier: Apache-2.0
"""Address families of a namespace."""

from __future__ import annotations

from kubenode.cni.errors import NO_FAMILY_LEFT, CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


BOTH = frozenset([4, 6])
NO_LABELS: Mapping[int, bool] = {}  # by family


def select(
    available: Iterable[int], namespace: str, limits: Mapping[int, Sequence[str] | None], labels: Mapping[int, bool] = NO_LABELS
) -> frozenset[int]:
    """Return the families (4, 6) of which a pod in this namespace gets an address.

    `limits` has the namespaces of each family, as names or globs; None: all; empty: none. The namespace's own label, in `labels`, comes
    before that. Raises CNIError if no family is left: the runtime would start a pod without any address, which is useless.
    """
    have = frozenset(available)
    chosen = frozenset(family for family in have if labels.get(family, _is_member(namespace, limits.get(family))))
    if not chosen:
        families = " and ".join(f"IPv{family}" for family in sorted(have))
        raise CNIError(
            NO_FAMILY_LEFT,
            f"no address for a pod in namespace {namespace!r}: the subnets are {families}, kept for other namespaces",
            "; ".join(f"ipv{family}-namespaces is [{', '.join(limits.get(family) or ())}]" for family in sorted(have))
            + "".join(f"; the namespace's label says no to IPv{family}" for family, wanted in labels.items() if not wanted)
            + ": add the namespace there, or give the node subnets of the other family",
        )
    return chosen


def _is_member(namespace: str, patterns: Sequence[str] | None) -> bool:
    if patterns is None or namespace in patterns:
        return True
    globs = [pattern for pattern in patterns if not {"*", "?", "["}.isdisjoint(pattern)]
    if not globs:
        return False
    from fnmatch import fnmatchcase  # imports re, which only globs need

    return any(fnmatchcase(namespace, pattern) for pattern in globs)
