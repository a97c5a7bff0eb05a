# -*- test-case-name: mailgate.test.watch.test_settings -*-
"""
The directives of the admin side: C{admin}, C{metrics}, and what goes with them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import ClassVar

from attrs import frozen

from mailgate.directives import LONGEST_SOCKET_PATH, Problem, SectionSettings, directive, isHostName, number, path
from mailgate.directives.needs import Need
from mailgate.net.networks import plainAddress
from mailgate.system.pidfile import PIDSettings
from mailgate.system.regularfiles import OVERWRITTEN, isOpenToAll, isSameFile
from mailgate.tls.certificatechecks import dateTrouble, writableWarnings
from mailgate.tls.context import checkTLS
from mailgate.tls.files import TLSError, certificatesIn
from mailgate.tls.settings import TLSSettings
from mailgate.watch.tokens import TokenError, readTokens

__all__ = ["HTTP", "AdminAddress", "AdminSettings"]

HTTP = "http/1.1"
"""The name of the protocol in ALPN."""

_MOST_STORIES = 10_000
"""About as many as the state of a keeper has room for."""

_DEEPEST_CHAIN = 3


@frozen
class AdminAddress:
    """
    Where the admin server listens.

    @ivar path: of a unix socket; L{None} for TCP.
    @ivar host: an IP address, for TCP.
    @ivar port: its port.
    @ivar ssl: whether it uses TLS.
    """

    path: str | None = None
    host: str = ""
    port: int = 0
    ssl: bool = False

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}{' ssl' if self.ssl else ''}"

    @property
    def ip(self) -> IPv4Address | IPv6Address | None:
        """The IP address; L{None} for a unix socket."""
        return None if self.path is not None else plainAddress(self.host)

    @property
    def isLoopback(self) -> bool:
        """Whether only processes of this host can connect over TCP."""
        return self.ip is not None and self.ip.is_loopback


_BESIDE_PID = AdminAddress()
"""The default of C{admin}: a unix socket beside the pid file."""

_TCP = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<four>[0-9.]{7,15})):(?P<port>[0-9]{1,5})")


def _tcp(place: str) -> AdminAddress | None:
    """Parse C{ADDRESS:PORT}; L{None} if it is something else."""
    match = _TCP.fullmatch(place)
    if match is None or not 0 < int(match["port"]) < 65536:
        return None
    try:
        address = ip_address(match["six"] or match["four"])
    except ValueError:
        return None
    return AdminAddress(None, str(address), int(match["port"]))


def _admin(value: str, folder: str) -> AdminAddress | None:
    if value == "off":
        return None
    if value == "on":
        return _BESIDE_PID
    if value.startswith("unix:"):
        if value.endswith(" ssl"):
            raise ValueError("ssl is for TCP only")
        if not value.removeprefix("unix:").strip():
            raise ValueError("a path is missing after unix:")
        return AdminAddress(path(value.removeprefix("unix:"), folder))
    place, *words = value.split() or [""]
    if words not in ([], ["ssl"]):
        raise ValueError(f'"{" ".join(words)[:40]}" is unknown; only ssl may follow the address')
    found = _tcp(place)
    if found is None:
        raise ValueError("must be unix:PATH, ADDRESS:PORT, ADDRESS:PORT ssl, on or off")
    return AdminAddress(None, found.host, found.port, bool(words))


def _metrics(value: str, folder: str) -> AdminAddress | None:
    if value == "off":
        return None
    found = _tcp(value)
    if found is None:
        raise ValueError("must be ADDRESS:PORT, such as 127.0.0.1:9144, or off")
    return found


def _hosts(value: str, folder: str) -> tuple[str, ...]:
    hosts = tuple(value.lower().split())
    if not hosts:
        raise ValueError("a value is missing")
    for host in hosts:
        name, colon, port = host.rpartition(":")
        if not colon or host.endswith("]"):
            name, port = host, "1"
        isAddress = _isVersion(4, name) or (name.startswith("[") and name.endswith("]") and _isVersion(6, name[1:-1]))
        if not (isAddress or isHostName(name)) or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise ValueError(f'"{host[:80]}" must be a host name, or HOST:PORT')
    return hosts


def _isVersion(version: int, text: str) -> bool:
    try:
        return ip_address(text).version == version
    except ValueError:
        return False


def _stories(value: str, folder: str) -> int:
    count = number(value, folder)
    if count > _MOST_STORIES:
        raise ValueError(f"must be at most {_MOST_STORIES}")
    return count


_OVER_TLS = Need('an admin with "ssl"', lambda section: section[AdminSettings].usesTLS)
_OVER_TCP = Need(
    "an admin of the form ADDRESS:PORT",
    lambda section: section[AdminSettings].admin is not None and section[AdminSettings].admin.ip is not None,
)


@frozen
class AdminSettings:
    """The admin side of the gateway."""

    needs: ClassVar[tuple[Need, ...]] = ()

    admin: AdminAddress | None = directive("admin", _admin, _BESIDE_PID, reloadable=False)
    tokenFile: str | None = directive("admin_token_file", path, None, needs=(_OVER_TCP,))
    certificate: str | None = directive("admin_ssl_certificate", path, None, needs=(_OVER_TLS,))
    certificateKey: str | None = directive("admin_ssl_certificate_key", path, None, needs=(_OVER_TLS,))
    clientCertificate: str | None = directive("admin_ssl_client_certificate", path, None, needs=(_OVER_TLS,))
    hosts: tuple[str, ...] = directive("admin_host", _hosts, ())
    metrics: AdminAddress | None = directive("metrics", _metrics, None, reloadable=False)
    explainMemory: int = directive("explain_memory", _stories, 2000)

    @property
    def usesTLS(self) -> bool:
        """Whether the admin server uses TLS."""
        return self.admin is not None and self.admin.ssl

    def adminAt(self, pid: PIDSettings) -> AdminAddress | None:
        """
        Return where the admin server listens; L{None} if nowhere.

        @param pid: where the pid file is. Without one there is no default.
        """
        if self.admin != _BESIDE_PID:
            return self.admin
        return None if pid.path is None else AdminAddress(f"{pid.path}.admin")

    def isWatched(self, pid: PIDSettings) -> bool:
        """
        Return whether connections are watched: the admin server or the port for metrics needs that.

        @param pid: where the pid file is.
        """
        return self.metrics is not None or self.adminAt(pid) is not None

    @property
    def tls(self) -> TLSSettings:
        """The settings of the admin server's TLS. What the directives do not say is as in a server."""
        return TLSSettings(
            certificates=() if self.certificate is None else (self.certificate,),
            keys=() if self.certificateKey is None else (self.certificateKey,),
            # A session that is resumed would not verify the client's certificate again, and would outlive its token.
            sessionTickets=False,
            verifyClient="off" if self.clientCertificate is None else "optional",
            clientCertificate=self.clientCertificate,
            verifyDepth=_DEEPEST_CHAIN,
        )

    @property
    def files(self) -> tuple[str, ...]:
        """The files that TLS reads. A reload is needed when one changes."""
        named = (self.certificate, self.certificateKey, self.clientCertificate)
        return tuple(name for name in named if name is not None) if self.usesTLS else ()

    def problems(self, section: SectionSettings) -> Iterator[Problem]:
        """
        Yield what makes the admin server unsafe or keeps it from starting.

        @param section: the section C{[mailgate]}.
        """
        address = self.adminAt(section[PIDSettings])
        if address is None:
            return
        if address.path is not None:
            yield from _pathProblems(section, address.path)
            return
        if address == self.metrics or (
            self.metrics is not None and str(address).removesuffix(" ssl") == str(self.metrics)
        ):
            yield section.problem("metrics", "must not be the address of admin, which serves /metrics too")
        if not address.ssl and not address.isLoopback:
            message = 'needs "ssl" and admin_ssl_certificate: tokens would be sent in clear text'
            yield section.problem("admin", message, str(address))
        if self.tokenFile is None:
            message = "needs admin_token_file: TCP gives access to every client otherwise"
            yield section.problem("admin", message, str(address))
        else:
            try:
                readTokens(self.tokenFile)
            except TokenError as error:
                yield section.problem("admin_token_file", str(error), self.tokenFile)
        if address.ssl:
            yield from self._tlsProblems(section)

    def _tlsProblems(self, section: SectionSettings) -> Iterator[Problem]:
        for option, value in (
            ("admin_ssl_certificate", self.certificate),
            ("admin_ssl_certificate_key", self.certificateKey),
        ):
            if value is None:
                yield section.problem(option, 'is missing; "ssl" in admin requires it')
                return
        try:
            checkTLS(self.tls, HTTP)
        except TLSError as error:
            message = str(error)
            if "ssl_password_file" in message:
                message = "is encrypted; the admin server needs a key without a pass phrase"
            yield section.problem(f"admin_{error.option}", message, error.value)

    def warnings(self, section: SectionSettings) -> Iterator[Problem]:
        """
        Yield what is valid but doubtful.

        @param section: the section C{[mailgate]}.
        """
        if self.metrics is not None and not _isPrivate(self.metrics):
            message = "every client that reaches this address can read the metrics; use a private address or a firewall"
            yield section.problem("metrics", message, str(self.metrics))
        if self.metrics is not None and find_spec("prometheus_client") is None:
            message = 'needs the Python package prometheus_client, which is missing; install "mailgate[metrics]"'
            yield section.problem("metrics", message, str(self.metrics))
        if not self.usesTLS or self.certificate is None or self.certificateKey is None:
            return
        trouble = next(map(_dateTrouble, certificatesIn(self.certificate)), None)
        if trouble is not None:
            yield section.problem("admin_ssl_certificate", trouble, self.certificate)
        yield from writableWarnings(section, (("admin_ssl_certificate_key", self.certificateKey),))
        if isOpenToAll(self.certificateKey):
            message = f"every user on this host can read it; run: chmod o-r {self.certificateKey}"
            yield section.problem("admin_ssl_certificate_key", message, self.certificateKey)


def _dateTrouble(certificate: object) -> str | None:
    return dateTrouble(certificate, datetime.now(timezone.utc))  # type: ignore[arg-type]


def _pathProblems(section: SectionSettings, found: str) -> Iterator[Problem]:
    option = "admin" if "admin" in section.given else "pid"
    if isSameFile(found, section.file):
        yield section.problem(option, OVERWRITTEN, found)
    elif option == "admin" and len(os.fsencode(found)) > LONGEST_SOCKET_PATH:
        yield section.problem(option, f"the path of the admin socket is longer than {LONGEST_SOCKET_PATH} bytes", found)


def _isPrivate(address: AdminAddress) -> bool:
    found = address.ip
    return found is not None and found.is_private and not found.is_unspecified
