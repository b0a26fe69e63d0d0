# SPDX-License-Identifier: Apache-2.0
"""TLS to the API server: a context from a cluster's CA and a client certificate. Keys are never written to disk here."""

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

    from kubenode.kube.kubeconfig import KubeconfigCluster, Pem

CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----([^-]*)-----END CERTIFICATE-----")


def read(pem: Pem) -> bytes:
    """Return the PEM text, from the kubeconfig or from its file."""
    if pem.data is not None:
        return pem.data
    try:
        with open(pem.path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise CNIError(KUBECONFIG, f"{pem.label} {pem.path} cannot be read: {error}", "the kubeconfig names this file") from None


def anchors(cluster: KubeconfigCluster) -> list[bytes]:
    """Return the trusted CA certificates as DER; [] if the system's are trusted. Blocks that are not base64 are left out."""
    if cluster.insecure or cluster.certificate_authority is None:
        return []
    found = []
    for block in CERTIFICATE.findall(read(cluster.certificate_authority)):
        try:
            found.append(base64.b64decode(b"".join(block.split()), validate=True))
        except ValueError:
            pass
    return found


def context(
    cluster: KubeconfigCluster, certificate: bytes | None, key: bytes | None, origin: str, anchor: bytes | None = None
) -> ssl.SSLContext:
    """Return a TLS context; with `anchor` only that certificate is trusted. Raises CNIError with `origin` for an invalid certificate."""
    # Not ssl.create_default_context: since Python 3.13 it sets VERIFY_X509_STRICT, which kubeadm's older CAs do not pass.
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if cluster.insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif cluster.certificate_authority is None:
        made.load_default_certs()
    else:
        # Any place in a chain is trusted, as in Go: an intermediate CA, or the server's own certificate.
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _trust(made, cluster.certificate_authority, anchors(cluster) if anchor is None else [anchor])
    if certificate is not None and key is not None:
        with _as_file(certificate) as certificate_path, _as_file(key) as key_path:
            try:
                # The empty password keeps OpenSSL from asking for one on a terminal.
                made.load_cert_chain(certificate_path, key_path, password="")
            except ssl.SSLError as error:
                problem = f"the client certificate and key of {origin} cannot be used: {_reason(error)}"
                raise CNIError(KUBECONFIG, problem, _advice(error)) from None
    return made


def _trust(made: ssl.SSLContext, authority: Pem, certificates: list[bytes]) -> None:
    """Trust these certificates. Invalid ones are skipped if at least one is valid, as in Go."""
    for certificate in certificates:
        try:
            made.load_verify_locations(cadata=certificate)
        except (ssl.SSLError, ValueError):  # ValueError: empty
            pass
    if not made.cert_store_stats()["x509"]:
        problem = f"{authority.label} {authority.path} is not a PEM certificate"
        raise CNIError(KUBECONFIG, problem, "give the cluster's CA: it begins with -----BEGIN CERTIFICATE-----")


def _advice(error: ssl.SSLError) -> str:
    return {
        "EE_KEY_TOO_SMALL": "kubectl takes such a short key, OpenSSL's security level does not: issue one of RSA 2048 or P-256",
        "KEY_VALUES_MISMATCH": "the key belongs to another certificate: give the matching one",
    }.get(error.reason or "", "both must be PEM, belong together, and the key must have no password")


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Yield a path for bytes in memory, as OpenSSL's loaders need a path."""
    descriptor = os.memfd_create("kube-node")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
