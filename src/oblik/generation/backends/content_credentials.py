"""C2PA content credentials: a signed statement in the picture that an AI made it.

In: a labelled PNG. Out: the same pixels and chunks, and one chunk ``caBX`` with the manifest. The key is
made when the first picture is signed, and never leaves ``folder``; its certificate is issued by an authority
of its own, because the format refuses a leaf that signs itself. So whoever reads the picture can see that
nothing was changed since, and that all pictures of one key come from one place; a reader's list of trusted
signers does not hold it. Nothing names a person, nothing is asked over a network (no time stamp, no OCSP).

C2PA 2.2, "Digital source type", "X.509 certificates" (claim signing: emailProtection).
"""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from oblik import __version__
from oblik.labels import Source
from oblik.paths import atomic_write

KEY, CHAIN = "key.pem", "certificates.pem"
YEARS = 10
SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}


class ContentCredentials:
    """Signs with the key in ``folder``, which is made when it is missing."""

    def __init__(self, folder: Path) -> None:
        if not (folder / KEY).is_file() or not (folder / CHAIN).is_file():
            make_key(folder, datetime.now(timezone.utc))
        info = c2pa.C2paSignerInfo(
            alg=b"es256", sign_cert=(folder / CHAIN).read_bytes(), private_key=(folder / KEY).read_bytes(),
            ta_url=None,
        )  # fmt: skip
        self._signer = c2pa.Signer.from_info(info)

    def __call__(self, png: bytes, source: Source) -> bytes:
        manifest = {
            "claim_generator_info": [{"name": "Oblik", "version": __version__}],
            "title": source.words,
            "format": "image/png",
            "assertions": [
                {
                    "label": "c2pa.actions.v2",
                    "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": source.uri}]},
                }
            ],
        }
        signed = io.BytesIO()
        with c2pa.Builder(manifest, c2pa.Context(c2pa.Settings.from_dict(SETTINGS))) as builder:
            builder.sign(self._signer, "image/png", io.BytesIO(png), signed)
        return signed.getvalue()


def make_key(folder: Path, now: datetime) -> None:
    """A key and the two certificates that stand for it, readable by their owner only."""
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("local authority", authority, authority, now, authority=True)
    leaf = _certificate("local pictures", key, authority, now, authority=False)
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    atomic_write(folder / CHAIN, leaf.public_bytes(pem) + root.public_bytes(pem))
    atomic_write(folder / KEY, secret)


def _certificate(name: str, key: Any, issuer: Any, now: datetime, *, authority: bool) -> x509.Certificate:
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    usage |= {"digital_signature": not authority, "key_cert_sign": authority, "crl_sign": authority}
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
    made = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named("local authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer_key, critical=False)
        .add_extension(x509.KeyUsage(**usage), critical=True)
    )
    if not authority:
        email = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        made = made.add_extension(email, critical=False)
    return made.sign(issuer, hashes.SHA256())


def _named(name: str) -> x509.Name:
    parts = {NameOID.ORGANIZATION_NAME: "Oblik", NameOID.COMMON_NAME: name}
    return x509.Name([x509.NameAttribute(key, value) for key, value in parts.items()])
