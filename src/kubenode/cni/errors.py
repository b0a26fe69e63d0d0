# SPDX-License-Identifier: Apache-2.0
"""The one error type that crosses a plugin's boundary, and its codes.

Codes below 100 are the specification's (SPEC.md, "Error"); from 100 on they are ours, one per cause. `docs/reference/errors.md` explains
each one.
"""

from __future__ import annotations

from kubenode.base.problem import Problem

INCOMPATIBLE_VERSION = 1
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
UNDECODABLE = 6
INVALID_NETWORK_CONFIG = 7
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50

INTERNAL = 100
KUBECONFIG = 101
UNAUTHORIZED = 102
FORBIDDEN = 103
NODE_NOT_FOUND = 104
MACHINE_ID_AMBIGUOUS = 105
NODE_INVALID = 106
ANNOTATION_MISSING = 107
ANNOTATION_INVALID = 108
NO_FAMILY_LEFT = 109
RANGE_FULL = 110
DUPLICATE_ALLOCATION = 111
REQUESTED_ADDRESS = 112
DELEGATE_MISSING = 113
DELEGATE_FAILED = 114
CONFIG_FILE = 115
NOT_RESERVED = 116
INSTALLATION = 117
NOT_MOUNTED = 118
AGENT_RUNS = 119
NOT_ALLOWED = 120
SOURCE_TAKEN = 121


class CNIError(Problem):
    """Error answer of a plugin (SPEC.md, "Error").

    `msg` names the wrong thing and its value; `details` says what to do. `reference` is the reference plugins' message where it differs:
    our host-local answers with it.
    """

    def __init__(self, code: int, msg: str, details: str = "", reference: str = "") -> None:
        super().__init__(msg, details)
        self.code = code
        self.reference = reference or msg

    def as_object(self, cni_version: str) -> dict[str, str | int]:
        """Return the error object for a configuration of this version."""
        error: dict[str, str | int] = {"cniVersion": cni_version, "code": self.code, "msg": self.msg}
        if self.details:
            error["details"] = self.details
        return error


class OutOfReachError(CNIError):
    """Error of an agent that sees less of the host than the runtime's plugin, which may succeed locally."""
