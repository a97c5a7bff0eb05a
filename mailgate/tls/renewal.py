# -*- test-case-name: mailgate.test.tls.test_renewal -*-
"""
Whether a certificate that is renewed may take the place of the one in force. What renews certificates goes wrong when
nobody looks: without a word from an operator none is taken that clients would refuse.
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
    """What is to be known of a certificate once its file holds another."""

    fingerprint: bytes
    names: tuple[str, ...]


InForce: TypeAlias = Mapping[tuple[str, int], _Certificate]
"""Certificates by the name of their server and their place among those of it."""


def certificatesOf(servers: Iterable[ServerSettings]) -> InForce:
    """The certificates that C{servers} show, as their files are now. Those that cannot be read are left out."""
    return {
        (server.name, place): _Certificate(certificate.fingerprint(hashes.SHA256()), hostNames(certificate))
        for server, place, _, _, certificate in _shown(servers)
    }


def _shown(servers: Iterable[ServerSettings]) -> Iterator[tuple[ServerSettings, int, str, str, x509.Certificate]]:
    """Each with its server, its place, the option that names it, and by which source."""
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
    """The certificates of C{servers} that are not the ones C{before}, each with the one that it replaces."""
    for server, place, option, source, certificate in _shown(servers):
        old = before.get((server.name, place))
        if old is not None and certificate.fingerprint(hashes.SHA256()) != old.fingerprint:
            yield server, option, source, certificate, old


def renewalFaults(before: InForce, servers: Iterable[ServerSettings], now: datetime | None = None) -> Iterator[Problem]:
    """
    Why new certificates of C{servers} must not replace those C{before} by themselves at the time C{now}: they are out
    of date, or not valid yet, or lack a name.
    """
    when = datetime.now(timezone.utc) if now is None else now
    for server, option, source, certificate, old in _changed(before, servers):
        trouble = dateTrouble(certificate, when) or _lack(certificate, old)
        if trouble is not None:
            yield server.problem(option, f"the new certificate {trouble}", shown(source))


def namesLost(before: InForce, servers: Iterable[ServerSettings]) -> Iterator[Problem]:
    """The new certificates of C{servers} that lack a name of those C{before}."""
    for server, option, source, certificate, old in _changed(before, servers):
        trouble = _lack(certificate, old)
        if trouble is not None:
            yield server.problem(option, f"the new certificate {trouble}", shown(source))


def _lack(certificate: x509.Certificate, old: _Certificate) -> str | None:
    names = set(hostNames(certificate))
    lost = [name for name in old.names if name not in names and not isGoodFor(certificate, name)]
    return f"lacks names of the one before: {namesShown(lost)}" if lost else None
