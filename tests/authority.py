# SPDX-License-Identifier: Apache-2.0
"""A certificate authority for tests: certificates for servers and for clients, as PEM text."""

from __future__ import annotations

import datetime as dt
from ipaddress import ip_address
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
DAY = dt.timedelta(days=1)


class KeyPair(NamedTuple):
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


def _name(common_name: str, organizations: tuple[str, ...]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    return x509.Name([*attributes, *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations)])


def _pem(key: Key) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _subject_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


class Authority:
    """Signs what a test asks for. Keys are P-256: made in a millisecond. Without key ids, as old authorities have none."""

    def __init__(self, name: str = "test authority", issuer: Authority | None = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name, ())
        signer = issuer or self
        signed = signer._builder(self._name, self._key, DAY).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = signed.sign(signer._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def server(self, *names: str, start: dt.timedelta = -2 * DAY, lifetime: dt.timedelta = DAY, key: Key | None = None) -> KeyPair:
        """Return a server's certificate for host names and addresses, valid from now + `start` to now + `lifetime`."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(names[0], ()), key, lifetime, start)
        builder = builder.add_extension(x509.SubjectAlternativeName([_subject_name(name) for name in names]), critical=False)
        return self._signed(builder, key, ExtendedKeyUsageOID.SERVER_AUTH)

    def client(self, common_name: str, *organizations: str, lifetime: dt.timedelta = DAY, key: Key | None = None) -> KeyPair:
        """Return a client's certificate: Kubernetes reads the user from the common name, its groups from the organizations."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        return self._signed(self._builder(_name(common_name, organizations), key, lifetime), key, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _builder(self, subject: x509.Name, key: Key, lifetime: dt.timedelta, start: dt.timedelta = -2 * DAY) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder(subject_name=subject, issuer_name=self._name, public_key=key.public_key())
        return builder.serial_number(x509.random_serial_number()).not_valid_before(now + start).not_valid_after(now + lifetime)

    def _signed(self, builder: x509.CertificateBuilder, key: Key, usage: x509.ObjectIdentifier) -> KeyPair:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return KeyPair(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), _pem(key))
