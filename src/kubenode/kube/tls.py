"""TLS towards the API server: a context from a cluster's authority and a client's certificate. Keys never touch a disk here."""

from __future__ import annotations

import base64
import os
import re
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kubenode.cni.errors import KUBECONFIG, CNIError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.kube.kubeconfig import Cluster, Pem

CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----([^-]*)-----END CERTIFICATE-----")


def read(pem: Pem) -> bytes:
    """Return the PEM text, from the kubeconfig or from the file."""
    if pem.data is not None:
        return pem.data
    try:
        with open(pem.path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise CNIError(KUBECONFIG, f"{pem.label} {pem.path} cannot be read: {error}", "the kubeconfig names this file") from None


def anchors(cluster: Cluster) -> list[bytes]:
    """Return the certificates that vouch for the API server, DER; none where those are the system's. Blocks that are no base64 are left
    out.
    """
    if cluster.insecure or cluster.certificate_authority is None:
        return []
    found = []
    for block in CERTIFICATE.findall(read(cluster.certificate_authority)):
        try:
            found.append(base64.b64decode(b"".join(block.split()), validate=True))
        except ValueError:
            pass
    return found


def context(cluster: Cluster, certificate: bytes | None, key: bytes | None, origin: str, anchor: bytes | None = None) -> ssl.SSLContext:
    """Make the context; a certificate that OpenSSL refuses is a CNIError that names `origin`. With `anchor` no other one is trusted."""
    # Not ssl.create_default_context: from Python 3.13 on it sets VERIFY_X509_STRICT, which kubeadm's older authorities do not pass.
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if cluster.insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif cluster.certificate_authority is None:
        made.load_default_certs()
    else:
        # Whatever their place in a chain, as Go does: an intermediate authority, a server's own certificate.
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _trust(made, cluster.certificate_authority, anchors(cluster) if anchor is None else [anchor])
    if certificate is not None and key is not None:
        with _as_file(certificate) as certificate_path, _as_file(key) as key_path:
            try:
                # The empty password: without one OpenSSL asks a terminal for an encrypted key's.
                made.load_cert_chain(certificate_path, key_path, password="")
            except ssl.SSLError as error:
                problem = f"the client certificate and key of {origin} cannot be used: {_reason(error)}"
                raise CNIError(KUBECONFIG, problem, _advice(error)) from None
    return made


def _trust(made: ssl.SSLContext, authority: Pem, certificates: list[bytes]) -> None:
    """Trust these. As Go, leave out what cannot be read, as long as there is another."""
    for certificate in certificates:
        try:
            made.load_verify_locations(cadata=certificate)
        except (ssl.SSLError, ValueError):  # ValueError: it is empty
            pass
    if not made.cert_store_stats()["x509"]:
        problem = f"{authority.label} {authority.path} is not a PEM certificate"
        raise CNIError(KUBECONFIG, problem, "give the cluster's CA: it begins with -----BEGIN CERTIFICATE-----")


def _advice(error: ssl.SSLError) -> str:
    return {
        "EE_KEY_TOO_SMALL": "kubectl takes such a short key, OpenSSL's security level does not: issue one of RSA 2048 or P-256",
        "KEY_VALUES_MISMATCH": "the key is another certificate's: give the one that belongs to it",
    }.get(error.reason or "", "both must be PEM, belong together, and the key must have no password")


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
