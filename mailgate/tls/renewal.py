# -*- test-case-name: mailgate.test.tls.test_renewal -*-
"""
Checks whether a renewed certificate may replace the current one. Automatic renewal can go wrong unnoticed: without a
reload by the operator, no certificate is taken over that clients would refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import TypeAlias

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from mailgate.directives import Problem, ServerSettings
from mailgate.tls.certificatechecks import dateTrouble, hostNames, isGoodFor, namesShown
from mailgate.tls.files import certificatesIn, shown
from mailgate.tls.settings import TLSSettings, usesTLS

__all__ = ["InForce", "certificatesOf", "namesLost", "renewalFaults"]


@frozen
class _Certificate:
    """What to remember of a certificate after its file has changed."""

    fingerprint: bytes
    names: tuple[str, ...]


InForce: TypeAlias = Mapping[tuple[str, int], _Certificate]
"""The current certificates, by the name of their server and their place among its certificates."""


def certificatesOf(servers: Iterable[ServerSettings]) -> InForce:
    """The certificates of C{servers}, as their files are now, except for those that cannot be read."""
    return {
        (server.name, place): _Certificate(certificate.fingerprint(hashes.SHA256()), hostNames(certificate))
        for server, place, _, _, certificate in _shown(servers)
    }


def _shown(servers: Iterable[ServerSettings]) -> Iterator[tuple[ServerSettings, int, str, str, x509.Certificate]]:
    """Yield each certificate with its server, its place, the option that names it, and its source."""
    for server in servers:
        if not usesTLS(server):
            continue
        for place, (option, source) in enumerate(server[TLSSettings].shownCertificates()):
            try:
                certificates = certificatesIn(source)
            except (OSError, ValueError):
                continue
            if certificates:
                yield server, place, option, source, certificates[0]


def _changed(
    before: InForce, servers: Iterable[ServerSettings]
) -> Iterator[tuple[ServerSettings, str, str, x509.Certificate, _Certificate]]:
    """Yield each new certificate of C{servers} with the old one from C{before} that it replaces."""
    for server, place, option, source, certificate in _shown(servers):
        old = before.get((server.name, place))
        if old is not None and certificate.fingerprint(hashes.SHA256()) != old.fingerprint:
            yield server, option, source, certificate, old


def renewalFaults(before: InForce, servers: Iterable[ServerSettings], now: datetime | None = None) -> Iterator[Problem]:
    """
    Yield why new certificates must not replace the current ones automatically: they have expired, are not yet valid, or
    lack a name.

    @param before: the current certificates.
    @param servers: the servers, whose files may have changed.
    @param now: the current time, with a time zone; L{None} is for the system's clock.
    """
    when = datetime.now(timezone.utc) if now is None else now
    for server, option, source, certificate, old in _changed(before, servers):
        trouble = dateTrouble(certificate, when) or _lack(certificate, old)
        if trouble is not None:
            yield server.problem(option, f"the new certificate {trouble}", shown(source))


def namesLost(before: InForce, servers: Iterable[ServerSettings]) -> Iterator[Problem]:
    """Yield a warning for each new certificate of C{servers} that lacks a name of the one in C{before}."""
    for server, option, source, certificate, old in _changed(before, servers):
        trouble = _lack(certificate, old)
        if trouble is not None:
            yield server.problem(option, f"the new certificate {trouble}", shown(source))


def _lack(certificate: x509.Certificate, old: _Certificate) -> str | None:
    names = set(hostNames(certificate))
    lost = [name for name in old.names if name not in names and not isGoodFor(certificate, name)]
    return f"lacks names of the previous certificate: {namesShown(lost)}" if lost else None
