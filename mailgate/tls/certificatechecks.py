# -*- test-case-name: mailgate.test.tls.test_certificatechecks -*-
"""
What an operator should know of certificates and keys before clients tell: when they end, which names they are for, what
their chain lacks, and who else may change them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from service_identity import VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.exceptions import CertificateError
from service_identity.hazmat import DNS_ID, DNSPattern, verify_service_identity

from mailgate.directives import Problem, SectionSettings, ServerSettings, isHostName
from mailgate.log.journal import printable
from mailgate.system.regularfiles import writers
from mailgate.tls.files import certificatesIn, loadCRLs, shown

__all__ = [
    "LEAST",
    "SOON",
    "alternativeNames",
    "certificateWarnings",
    "dateTrouble",
    "hostNames",
    "isGoodFor",
    "listWarnings",
    "moment",
    "nameWarnings",
    "namesShown",
    "writableWarnings",
]

SOON = timedelta(days=14)
"""
Before the end of a certificate it is warned of: what renews them by itself does so a month before. Where they last for
less than eight weeks it is when a third or half of their time is left: hence in the last quarter of it.
"""

LEAST = timedelta(days=3)
"""Before the end it is warned of in any case: certificates for six days are renewed sooner, too."""

_MOST_SHOWN = 3
"""Names of a certificate that a message has: some have hundreds."""

_UNREADABLE = (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
"""What cryptography raises for extensions that OpenSSL reads, or does not look at."""
_TIMESTAMPS = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
"""Signed certificate timestamps (RFC 6962): public authorities put them in, and issue nothing by their roots."""


def moment(when: datetime) -> str:
    """C{when} for a message, to the minute."""
    return f"{when.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"


def dateTrouble(certificate: x509.Certificate, now: datetime) -> str | None:
    """Why C{certificate} is not valid at the time C{now}, if it is not: what follows its name."""
    if now > certificate.not_valid_after_utc:
        return f"expired on {moment(certificate.not_valid_after_utc)}"
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {moment(certificate.not_valid_before_utc)}"
    return None


def hostNames(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names and addresses that C{certificate} is for; its common name where it has no others."""
    try:
        return alternativeNames(certificate)
    except (x509.ExtensionNotFound, *_UNREADABLE):
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return tuple(str(each.value) for each in common)


def alternativeNames(certificate: x509.Certificate) -> tuple[str, ...]:
    """
    The names and addresses in C{certificate}'s subjectAltName.

    @raise x509.ExtensionNotFound: it has none.
    """
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return (*found.get_values_for_type(x509.DNSName), *addresses)


def isGoodFor(certificate: x509.Certificate, host: str) -> bool:
    """Whether C{certificate} is for the host name C{host}, wildcards understood as by RFC 9525."""
    try:
        patterns = [each for each in extract_patterns(certificate) if isinstance(each, DNSPattern)]
        verify_service_identity(patterns, [DNS_ID(host.removesuffix("."))], [])
    except (VerificationError, CertificateError, *_UNREADABLE):
        return False
    return True


def namesShown(names: Sequence[str]) -> str:
    """C{names}, or the first of them, for a message. They may be the other side's words."""
    quoted = [f'"{printable(name.encode("utf-8", "backslashreplace"))}"' for name in names[:_MOST_SHOWN]]
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(quoted) + more


def certificateWarnings(server: ServerSettings, option: str, source: str, now: datetime) -> Iterator[Problem]:
    """What C{server}'s clients will mind about the certificate, and its chain, that C{option} names by C{source}."""
    try:
        chain = certificatesIn(source)
    except (OSError, ValueError):
        # OpenSSL reads more than cryptography does; what neither reads is a problem of another kind.
        return
    if not chain:
        return
    named = shown(source)
    for message in (*_dates(chain, now), *_gaps(chain)):
        yield server.problem(option, message, named)


def nameWarnings(server: ServerSettings, option: str, source: str, host: str) -> Iterator[Problem]:
    """That clients who know C{server} by the name C{host} will refuse the certificate that C{option} names."""
    try:
        chain = certificatesIn(source)
    except (OSError, ValueError):
        return
    if chain and isHostName(host) and not isGoodFor(chain[0], host):
        names = hostNames(chain[0])
        instead = f"but for {namesShown(names)}" if names else "nor for any other name"
        reason = f"is not for {namesShown([host])}, as server_name says, {instead}"
        yield server.problem(option, f"{reason}: clients that know the server by that name refuse it", shown(source))


def _dates(chain: list[x509.Certificate], now: datetime) -> Iterator[str]:
    leaf = chain[0]
    trouble = dateTrouble(leaf, now)
    end = leaf.not_valid_after_utc
    if trouble is not None:
        yield f"{trouble}: clients refuse it"
    elif end - now < max(LEAST, min(SOON, (end - leaf.not_valid_before_utc) / 4)):
        yield f"ends on {moment(end)}, in {_days(end - now)}: it has to be renewed"
    for issuer in chain[1:]:
        trouble = dateTrouble(issuer, now)
        if trouble is not None:
            yield f"the certificate of the authority {_subject(issuer)} in the chain {trouble}"


def _days(left: timedelta) -> str:
    days = round(left / timedelta(days=1))
    return "less than a day" if left < timedelta(days=1) else f"{days} day{'s' if days != 1 else ''}"


def _gaps(chain: list[x509.Certificate]) -> Iterator[str]:
    """Where one certificate of the chain has not been issued by the next, as far as can be told."""
    for lower, upper in pairwise(chain):
        if not _hasIssued(upper, lower):
            yield (
                f"the chain is broken: the certificate of {_subject(lower)} is followed by that of {_subject(upper)},"
                " which has not issued it"
            )
            return
    if len(chain) == 1 and chain[0].issuer != chain[0].subject and _isPublic(chain[0]):
        name = namesShown([chain[0].issuer.rfc4514_string()])
        yield f"the chain is missing: the certificate of {name}, which has issued it, has to follow in the file"


def _hasIssued(upper: x509.Certificate, lower: x509.Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (ValueError, InvalidSignature):
        return False
    # A kind of key that cryptography does not know.
    except TypeError:
        return True
    return True


def _isPublic(certificate: x509.Certificate) -> bool:
    try:
        certificate.extensions.get_extension_for_oid(_TIMESTAMPS)
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return False
    return True


def _subject(certificate: x509.Certificate) -> str:
    return namesShown([certificate.subject.rfc4514_string()])


def listWarnings(server: ServerSettings, option: str, filename: str, now: datetime) -> Iterator[Problem]:
    """The lists of revoked certificates in C{filename} that are out of date: OpenSSL refuses all clients by them."""
    for revoked in loadCRLs(option, filename):
        end = revoked.next_update_utc
        if end is not None and end < now:
            name = namesShown([revoked.issuer.rfc4514_string()])
            reason = f"the list of {name} is out of date since {moment(end)}: no client with its certificates gets in"
            yield server.problem(option, reason, filename)


def writableWarnings(
    server: ServerSettings | SectionSettings, named: Iterable[tuple[str, str | None]]
) -> Iterator[Problem]:
    """Files, and the options of C{server} that name them, which others than their owner and root may change."""
    for option, filename in named:
        reason = None if filename is None or filename != shown(filename) else writers(filename)
        if reason is not None:
            yield server.problem(option, reason, filename)
