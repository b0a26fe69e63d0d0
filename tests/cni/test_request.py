# SPDX-License-Identifier: Apache-2.0
"""The environment of a call (SPEC.md, "Parameters")."""

from __future__ import annotations

import pytest

from kubenode.cni import request
from kubenode.cni.errors import CNIError

COMPLETE = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c",
    "CNI_NETNS": "/n",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;A=b=c",
    "CNI_PATH": "/a::/b",
}


def test_a_complete_request() -> None:
    """Every variable is read once; CNI_PATH and CNI_ARGS in their parts."""
    asked = request.parse(COMPLETE)
    assert tuple(asked) == ("ADD", "c", "/n", "eth0", asked.pod_args, "", ("/a", "/b"))
    assert asked.pod_args == {"IgnoreUnknown": "1", "K8S_POD_NAMESPACE": "ns", "A": "b=c"}


@pytest.mark.parametrize(
    ("command", "required"),
    [
        ("ADD", {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}),
        ("CHECK", {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}),
        ("DEL", {"CNI_CONTAINERID", "CNI_IFNAME"}),
        ("GC", set()),
        ("STATUS", set()),
        ("VERSION", set()),
    ],
)
def test_what_a_command_requires(command: str, required: set[str]) -> None:
    """Of each command the specification's variables are required, alone and together, and no other."""
    for name in set(COMPLETE) - {"CNI_COMMAND"}:
        environ = {**COMPLETE, "CNI_COMMAND": command, name: ""}
        if name in required:
            with pytest.raises(CNIError, match=rf"required env variables \[{name}\] missing"):
                request.parse(environ)
        else:
            assert request.parse(environ).command == command
    if required:
        with pytest.raises(CNIError) as error:
            request.parse({"CNI_COMMAND": command})
        assert error.value.code == 4
        assert all(name in error.value.msg for name in required)


@pytest.mark.parametrize(
    ("text", "good"),
    [("a", True), ("A0_.-", True), ("", False), (".a", False), ("-a", False), ("a/b", False), ("ä", False), ("a b", False)],
)
def test_names(text: str, good: bool) -> None:  # noqa: FBT001
    """Container IDs and network names are file names, and are of the specification's characters."""
    assert request.is_name(text) is good


@pytest.mark.parametrize("ifname", [".", "..", "a/b", "a:b", "a b", "a\tb", "a" * 16, "ä" * 8, "\ud800", "a\udced\udca0\udc80"])
def test_bad_interface_names(ifname: str) -> None:
    """What the kernel does not take is an error of code 4 which names the variable."""
    with pytest.raises(CNIError, match="CNI_IFNAME") as error:
        request.parse({**COMPLETE, "CNI_IFNAME": ifname})
    assert error.value.code == 4


@pytest.mark.parametrize("ifname", ["eth0", "\x01", "\u200b", "\ue000", "\ufffd"])
def test_an_interface_name_is_one_in_a_file_too(ifname: str) -> None:
    """Whatever a request may be for can be the owner of a file: else its address would be given to the next."""
    assert request.is_ifname(request.parse({**COMPLETE, "CNI_COMMAND": "DEL", "CNI_IFNAME": ifname}).ifname)


@pytest.mark.parametrize("args", ["x", "a=1;b", "=1"])
def test_bad_args(args: str) -> None:
    """A pair without key or equals sign is an error that shows it."""
    with pytest.raises(CNIError, match="CNI_ARGS: invalid pair") as error:
        _ = request.parse({**COMPLETE, "CNI_ARGS": args}).pod_args
    assert error.value.code == 4


@pytest.mark.parametrize(
    ("parent", "trace"),
    [
        (f"00-{'a1' * 16}-{'b' * 16}-01", "a1" * 16),
        (f"cc-{'a1' * 16}-{'b' * 16}-01-more", "a1" * 16),  # of a later version the beginning is the same
        ("", None),
        ("00", None),
        (f"ff-{'a1' * 16}-{'b' * 16}-01", None),
        (f"00-{'0' * 32}-{'b' * 16}-01", None),
        (f"00-{'A1' * 16}-{'b' * 16}-01", None),
        (f"00-{'a1' * 15}-{'b' * 16}-01", None),
        ("00-\x1b[2J-b-01", None),
    ],
)
def test_trace_id(parent: str, trace: str | None) -> None:
    """The trace of a traceparent is 32 hexadecimal digits, not all of them zero; anything else is no trace, and no error."""
    assert request.trace_id(parent) == trace
    assert request.labels({"TRACEPARENT": parent})["traceID"] == trace
