"""The stream of a watch, cut into lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2

from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kubenode.kube.signon import SignOn

LARGEST = 16 << 20  # bytes of one event; etcd holds 1.5 MiB an object


class GarbledError(CNIError):
    """The API server, or something between, sent what is not what was asked for."""


def garbled(sign_on: SignOn, wanted: str, found: object) -> GarbledError:
    problem = f"API server {sign_on.server} sent something other than {wanted}: {found}"
    return GarbledError(TRY_AGAIN_LATER, problem, "does something between answer in its place?")


async def lines(response: httpx2.Response, sign_on: SignOn) -> AsyncGenerator[bytes, None]:
    """Yield each line once it is whole, and close the response. Raises CNIError, also where the stream ends within one."""
    pending = bytearray()
    try:
        async for chunk in response.aiter_raw():
            searched = len(pending)
            pending += chunk
            while (end := pending.find(b"\n", searched)) >= 0:
                line, searched = bytes(pending[:end]), 0
                del pending[: end + 1]
                yield line
            if len(pending) > LARGEST:
                raise garbled(sign_on, "an event of a watch", f"more than {LARGEST} bytes")
    except httpx2.RequestError as error:
        raise sign_on.no_answer(error) from error
    finally:
        await response.aclose()
    if pending:
        problem = f"the watch at API server {sign_on.server} ended in the middle of an event"
        raise CNIError(TRY_AGAIN_LATER, problem, "does something between end long connections?")
