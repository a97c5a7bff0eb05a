# -*- test-case-name: mailgate.test.tls.test_certificatechecks -*-
"""
Checks of certificates, chains, revocation lists and key files at the start, so that the operator learns of problems
before the clients do: validity dates, host names, gaps in the chain, and files that other users can change.
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
How long before its end a certificate causes a warning. ACME clients renew a 90-day certificate 30 days before its end,
and one with a shorter lifetime when a third or half of that is left. So a certificate that lives for less than eight
weeks causes a warning only in the last quarter of its lifetime.
"""

LEAST = timedelta(days=3)
"""Every certificate causes a warning this long before its end. Certificates for six days are renewed earlier, too."""

_MOST_SHOWN = 3
"""The number of names that a message quotes. Some certificates have hundreds."""

_UNREADABLE = (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
"""What cryptography raises for extensions that OpenSSL parses or ignores."""
_TIMESTAMPS = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
"""
Signed certificate timestamps (RFC 6962). Public authorities add them, and always issue from an intermediate
certificate.
"""


def moment(when: datetime) -> str:
    """
    @return: C{when} in UTC, to the minute, as text for a message.
    @param when: a time with a time zone.
    """
    return f"{when.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"


def dateTrouble(certificate: x509.Certificate, now: datetime) -> str | None:
    """
    @return: why C{certificate} is not valid at the time C{now}, as a predicate such as "has expired (…)"; L{None} if it
        is valid.
    """
    if now > certificate.not_valid_after_utc:
        return f"has expired (valid until {moment(certificate.not_valid_after_utc)})"
    if now < certificate.not_valid_before_utc:
        return f"is not yet valid (valid from {moment(certificate.not_valid_before_utc)})"
    return None


def hostNames(certificate: x509.Certificate) -> tuple[str, ...]:
    """
    The DNS names and IP addresses in C{certificate}'s subjectAltName; its common name if there is no subjectAltName, or
    one that cannot be parsed.
    """
    try:
        return alternativeNames(certificate)
    except (x509.ExtensionNotFound, *_UNREADABLE):
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return tuple(str(each.value) for each in common)


def _hasOnlyCommonName(certificate: x509.Certificate) -> bool:
    try:
        alternativeNames(certificate)
    except x509.ExtensionNotFound:
        return True
    except _UNREADABLE:
        pass
    return False


def alternativeNames(certificate: x509.Certificate) -> tuple[str, ...]:
    """
    The DNS names and IP addresses in C{certificate}'s subjectAltName.

    @raise x509.ExtensionNotFound: the certificate has no subjectAltName.
    """
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return (*found.get_values_for_type(x509.DNSName), *addresses)


def isGoodFor(certificate: x509.Certificate, host: str) -> bool:
    """Whether C{certificate} is valid for the host name C{host}, wildcards included (RFC 9525)."""
    try:
        patterns = [each for each in extract_patterns(certificate) if isinstance(each, DNSPattern)]
        verify_service_identity(patterns, [DNS_ID(host.removesuffix("."))], [])
    except (VerificationError, CertificateError, *_UNREADABLE):
        return False
    return True


def namesShown(names: Sequence[str]) -> str:
    """
    C{names} quoted for a message, at most three of them. Control characters are escaped, because the names may come
    from the network.
    """
    quoted = [f'"{printable(name.encode("utf-8", "backslashreplace"))}"' for name in names[:_MOST_SHOWN]]
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(quoted) + more


def certificateWarnings(server: ServerSettings, option: str, source: str, now: datetime) -> Iterator[Problem]:
    """
    Yield warnings about the dates of a server certificate and about its chain.

    @param server: all settings of the server.
    @param option: the directive that names the certificate.
    @param source: the certificate: a file name or C{data:}.
    @param now: the current time, with a time zone.
    """
    try:
        chain = certificatesIn(source)
    except (OSError, ValueError):
        # OpenSSL parses more than cryptography does. A file that neither parses is reported elsewhere, as an error.
        return
    if not chain:
        return
    named = shown(source)
    for message in (*_dates(chain, now), *_gaps(chain)):
        yield server.problem(option, message, named)


def nameWarnings(server: ServerSettings, option: str, source: str, host: str) -> Iterator[Problem]:
    """
    Yield a warning if a server certificate is not valid for the name by which clients know the server.

    @param server: all settings of the server.
    @param option: the directive that names the certificate.
    @param source: the certificate: a file name or C{data:}.
    @param host: the value of C{server_name}.
    """
    try:
        chain = certificatesIn(source)
    except (OSError, ValueError):
        return
    if chain and isHostName(host) and not isGoodFor(chain[0], host):
        names = hostNames(chain[0])
        instead = "it contains no host name"
        if names:
            instead = f"it is valid for {namesShown(names)}"
            if _hasOnlyCommonName(chain[0]):
                instead = f"it has no subjectAltName, and clients ignore its common name {namesShown(names)}"
        wanted = namesShown([host])
        reason = f"is not valid for {wanted}, the server_name: {instead}; clients that connect by this name refuse it"
        yield server.problem(option, reason, shown(source))


def _dates(chain: list[x509.Certificate], now: datetime) -> Iterator[str]:
    leaf = chain[0]
    trouble = dateTrouble(leaf, now)
    end = leaf.not_valid_after_utc
    if trouble is not None:
        yield f"{trouble}; clients refuse it"
    elif end - now < max(LEAST, min(SOON, (end - leaf.not_valid_before_utc) / 4)):
        yield f"expires on {moment(end)}, in {_days(end - now)}; renew it"
    for issuer in chain[1:]:
        trouble = dateTrouble(issuer, now)
        if trouble is not None:
            yield f"the CA certificate {_subject(issuer)} in the chain {trouble}"


def _days(left: timedelta) -> str:
    days = round(left / timedelta(days=1))
    return "less than a day" if left < timedelta(days=1) else f"{days} day{'s' if days != 1 else ''}"


def _gaps(chain: list[x509.Certificate]) -> Iterator[str]:
    """
    Yield a warning where a certificate of the chain is not issued by the next, or the issuer of a public one is
    missing.
    """
    for lower, upper in pairwise(chain):
        if not _hasIssued(upper, lower):
            yield (
                f"the certificate chain is broken: {_subject(lower)} is followed by {_subject(upper)},"
                " which did not issue it; each certificate must be followed by its issuer's"
            )
            return
    if len(chain) == 1 and chain[0].issuer != chain[0].subject and _isPublic(chain[0]):
        name = namesShown([chain[0].issuer.rfc4514_string()])
        yield f"the certificate chain is incomplete: append the certificate of the issuer, {name}, to the file"


def _hasIssued(upper: x509.Certificate, lower: x509.Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (ValueError, InvalidSignature):
        return False
    # A type of key that cryptography does not support.
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
    """
    Yield a warning for each expired revocation list (CRL): OpenSSL refuses all certificates of its issuer.

    @param server: all settings of the server.
    @param option: the directive that names the file.
    @param filename: the file, in PEM format.
    @param now: the current time, with a time zone.
    """
    for revoked in loadCRLs(option, filename):
        end = revoked.next_update_utc
        if end is not None and end < now:
            name = namesShown([revoked.issuer.rfc4514_string()])
            reason = (
                f"the CRL of {name} has expired (valid until {moment(end)}); clients with its certificates are refused"
            )
            yield server.problem(option, reason, filename)


def writableWarnings(
    server: ServerSettings | SectionSettings, named: Iterable[tuple[str, str | None]]
) -> Iterator[Problem]:
    """
    Yield a warning for each certificate or key file that users other than its owner and root can change.

    @param server: all settings of the server.
    @param named: pairs of a directive and its file, which may be L{None} or C{data:}.
    """
    for option, filename in named:
        reason = None if filename is None or filename != shown(filename) else writers(filename)
        if reason is not None:
            yield server.problem(option, reason, filename)
