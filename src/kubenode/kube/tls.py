"""TLS towards the API server: a context from a cluster's authority and a client's certificate. Keys never touch a disk here."""

from __future__ import annotations

import os
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kubenode.cni.errors import KUBECONFIG, CNIError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.kube.kubeconfig import Cluster, Pem


def read(pem: Pem) -> bytes:
    """Return the PEM text, from the kubeconfig or from the file."""
    if pem.data is not None:
        return pem.data
    try:
        with open(pem.path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise CNIError(KUBECONFIG, f"{pem.label} {pem.path} cannot be read: {error}", "the kubeconfig names this file") from None


def context(cluster: Cluster, certificate: bytes | None, key: bytes | None, origin: str) -> ssl.SSLContext:
    """Make the context; a certificate that OpenSSL refuses is a CNIError that names `origin`."""
    # Not ssl.create_default_context: from Python 3.13 on it sets VERIFY_X509_STRICT, which kubeadm's older authorities do not pass.
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if cluster.insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif cluster.certificate_authority is None:
        made.load_default_certs()
    else:
        authority = cluster.certificate_authority
        with _as_file(read(authority)) as path:
            try:
                made.load_verify_locations(cafile=path)
            except ssl.SSLError as error:
                where = f"{authority.label} {authority.path}"
                raise CNIError(KUBECONFIG, f"{where} is not a PEM certificate: {_reason(error)}", "give the cluster's CA") from None
    if certificate is not None and key is not None:
        with _as_file(certificate) as certificate_path, _as_file(key) as key_path:
            try:
                # The empty password: without one OpenSSL asks a terminal for an encrypted key's.
                made.load_cert_chain(certificate_path, key_path, password="")
            except ssl.SSLError as error:
                problem = f"the client certificate and key of {origin} cannot be used: {_reason(error)}"
                raise CNIError(KUBECONFIG, problem, "both must be PEM, belong together, and the key must have no password") from None
    return made


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Give bytes a path, which is all that OpenSSL's loaders take, in memory."""
    descriptor = os.memfd_create("kube-node")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
