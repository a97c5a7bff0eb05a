# -*- test-case-name: mailgate.test.sandbox.test_certificate -*-
"""
The TLS certificate of the demo. The first run makes it and keeps it, so that clients need to trust it only once.

It is self-signed and a certificate authority (C{CA:TRUE}, RFC 5280, 4.2.1.9), so that C{curl --cacert} accepts it.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone

from attrs import evolve
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailgate.directives import ConfigurationError, GatewaySettings, Problem, ServerSettings
from mailgate.sandbox.settings import SandboxSettings
from mailgate.tls.settings import TLSSettings, usesTLS

__all__ = ["ensureCertificate", "faultsBeside", "stateFolder", "withCertificate"]

_LIFETIME = timedelta(days=365)
_MARGIN = timedelta(days=21)  # the certificate of a demo started today must not expire, nor cause warnings, this week
_ALWAYS = ("localhost", "127.0.0.1", "::1")


def stateFolder(environ: Mapping[str, str]) -> str:
    """
    The folder for files that mailgate keeps between runs: C{$XDG_STATE_HOME/mailgate}, or C{~/.local/state/mailgate}
    (XDG Base Directory Specification, which ignores relative paths).

    @param environ: the environment variables.
    """
    state = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        home = environ.get("HOME") or os.path.expanduser("~")
        state = os.path.join(home, ".local", "state")
    return os.path.join(state, "mailgate")


def ensureCertificate(folder: str, names: Iterable[str], now: datetime | None = None) -> tuple[str, str]:
    """
    Make sure that a folder has a certificate and its key. Existing files are kept unless they are expired, unreadable,
    not a pair, for other names, or with a key that other users may read.

    @param folder: the folder, which is made if needed.
    @param names: host names and addresses that the certificate is valid for, besides C{localhost} and its addresses.
    @param now: the current time; L{None} for the system's clock.
    @return: the paths of the PEM certificate and of its key.
    @raise OSError: C{folder} cannot be written.
    """
    now = now or datetime.now(timezone.utc)
    wanted = tuple(_generalName(name) for name in dict.fromkeys((*_ALWAYS, *names)))
    certificatePath = os.path.join(folder, "certificate.pem")
    keyPath = os.path.join(folder, "key.pem")
    if not _serves(certificatePath, keyPath, wanted, now):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chmod(folder, 0o700)
        certificate, key = _make(wanted, now)
        _write(keyPath, key, 0o600)
        _write(certificatePath, certificate, 0o644)
    return certificatePath, keyPath


def withCertificate(settings: GatewaySettings, folder: str, nameOf: Callable[[ServerSettings], str]) -> GatewaySettings:
    """
    Give the certificate of the sandbox to servers that need one and have none. Without C{[sandbox]} nothing changes.

    @param settings: the configuration.
    @param folder: the folder of the certificate.
    @param nameOf: returns the name of a server that the certificate must be valid for.
    @return: the changed configuration.
    @raise ConfigurationError: the certificate cannot be made, or TLS settings of a server contradict it.
    """
    if settings.find(SandboxSettings) is None:
        return settings
    lacking = {server.name: server for server in settings.servers if _lacks(server)}
    if not lacking:
        return settings
    certificate, key = _pair(lacking.values(), folder, nameOf)
    given = {name: _given(server, certificate, key) for name, server in lacking.items()}
    problems = (problem for server in given.values() for problem in server[TLSSettings].problems(server))
    if found := list(dict.fromkeys(problems)):
        raise ConfigurationError(found)
    return evolve(settings, servers=tuple(given.get(server.name, server) for server in settings.servers))


def faultsBeside(servers: Iterable[ServerSettings]) -> Iterator[Problem]:
    """
    Yield the problems that C{servers} would have with the certificate of the sandbox, if they need it. The check uses a
    temporary certificate, which is not written to disk.
    """
    lacking = [server for server in servers if _lacks(server)]
    if not lacking:
        return
    pair = _make(tuple(map(_generalName, _ALWAYS)), datetime.now(timezone.utc))
    certificate, key = (f"data:{pem.decode('ascii')}" for pem in pair)
    found: dict[Problem, None] = {}
    for server in lacking:
        # Problems that do not depend on the certificate are reported elsewhere.
        if not any(server[TLSSettings].problems(server)):
            tried = _given(server, certificate, key)
            found.update(dict.fromkeys(tried[TLSSettings].problems(tried)))
    yield from found


def _lacks(server: ServerSettings) -> bool:
    return usesTLS(server) and not server[TLSSettings].certificates


def _given(server: ServerSettings, certificate: str, key: str) -> ServerSettings:
    """C{server} with C{certificate} and C{key}."""
    return server.having(evolve(server[TLSSettings], certificates=(certificate,), keys=(key,)))


def _pair(servers: Collection[ServerSettings], folder: str, nameOf: Callable[[ServerSettings], str]) -> tuple[str, str]:
    """The paths of the certificate of C{servers} and of its key."""
    problems = []
    for server in servers:
        try:
            _generalName(nameOf(server))
        except UnicodeError as error:
            problems.append(_unmade(server, error))
    try:
        if not problems:
            return ensureCertificate(folder, map(nameOf, servers))
    except OSError as error:
        problems = [_unmade(server, error) for server in servers]
    raise ConfigurationError(problems)


def _unmade(server: ServerSettings, error: Exception) -> Problem:
    return server.problem("ssl_certificate", f"the sandbox's certificate cannot be made: {error}")


def _generalName(name: str) -> x509.GeneralName:
    """
    C{name} in the form of certificates.

    @raise UnicodeError: C{name} is not a host name.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        # The field contains A-labels; cryptography refuses anything else.
        return x509.DNSName(name.encode("idna").decode("ascii"))


def _serves(certificatePath: str, keyPath: str, wanted: tuple[x509.GeneralName, ...], now: datetime) -> bool:
    try:
        with open(certificatePath, "rb") as stream:
            certificate = x509.load_pem_x509_certificate(stream.read())
        with open(keyPath, "rb") as stream:
            private = not stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077
            key = load_pem_private_key(stream.read(), None)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return False
    return (
        private
        and key.public_key() == certificate.public_key()
        and certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc - _MARGIN
        and set(wanted) <= set(found)
    )


def _make(wanted: tuple[x509.GeneralName, ...], now: datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mailgate sandbox")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks in containers and virtual machines lag
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(wanted), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_keyUsage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _keyUsage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: str, content: bytes, mode: int) -> None:
    """Replace the file C{path} atomically. The file never has a looser mode than C{mode}."""
    temporary = f"{path}.{os.getpid()}.new"
    if os.path.lexists(temporary):
        os.unlink(temporary)  # left by a killed run with the same process id
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
