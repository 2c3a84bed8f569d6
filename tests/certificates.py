"""Certificates for the servers that tests start, made by openssl. They are valid for two days."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address
from pathlib import Path


def make_certificate(certificate: Path, *names: str, authority: Path | None = None) -> Path:
    """Make NAME.crt for these host names and addresses, and NAME.key beside it; return the certificate's path.

    It is signed by itself, so that clients can trust it and nothing else; or by an authority, another certificate made
    here, which then follows it in the file.
    """
    kind = ["-addext", "basicConstraints=critical,CA:false"] if authority else []
    signer = ["-CA", str(authority), "-CAkey", str(authority.with_suffix(".key"))] if authority else []
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={names[0]}", *kind,
         *signer, "-addext", f"subjectAltName={','.join(map(_alternative, names))}", "-out", certificate,
         "-keyout", certificate.with_suffix(".key")],
        check=True, capture_output=True,
    )  # fmt: skip
    if authority:
        certificate.write_text(certificate.read_text() + authority.read_text())
    return certificate


def _alternative(name: str) -> str:
    try:
        return f"IP:{ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"
