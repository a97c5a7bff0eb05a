# -*- test-case-name: mailgate.test.sandbox.test_settings -*-
"""
The settings of C{[sandbox]}: the users of the demo, and the addresses of its servers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import ClassVar

from attrs import field, frozen

from mailgate.directives import GatewaySettings, ListenAddress, Problem, directive, lines, text
from mailgate.system.processors import WorkerSettings

__all__ = ["SandboxSettings", "SandboxUser"]

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")


@frozen
class SandboxUser:
    """
    A user of the sandbox.

    @ivar name: the name, in lower case. It is the local part of the mail address.
    @ivar password: the password.
    """

    name: str
    password: str = field(repr=False)


def _users(value: str, folder: str) -> tuple[SandboxUser, ...]:
    # The messages contain only the number of the line: the line contains a password.
    found: dict[str, SandboxUser] = {}
    for number, line in enumerate(lines(value, folder), 1):
        name, _, password = line.partition(" ")
        name, password = name.lower(), password.strip()
        if not _NAME.fullmatch(name) or not password or not password.isprintable():
            raise ValueError(f"line {number} must be a name and a password, such as alice wonderland")
        if name in found:
            raise ValueError(f"line {number} repeats the user {name}")
        found[name] = SandboxUser(name, password)
    return tuple(found.values())


def _domain(value: str, folder: str) -> str:
    name = text(value, folder).lower()
    if not _DOMAIN.fullmatch(name):
        raise ValueError("must be a domain, such as example.com")
    return name


def _loopback(value: str, folder: str) -> ListenAddress:
    written = text(value, folder)
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})", written)
    try:
        if match is None or int(match[3]) > 65535:
            raise ValueError
        address = ipaddress.ip_address(match[1] or match[2])
    except ValueError:
        raise ValueError("must be a loopback address and a port, such as 127.0.0.1:10143") from None
    if not address.is_loopback:
        raise ValueError("must be a loopback address: the servers of the sandbox do not protect themselves")
    return ListenAddress(str(address), int(match[3]), text=written)


_IMAP, _POP3, _SMTP, _SIEVE, _AUTH_HTTP = (
    ListenAddress("127.0.0.1", port) for port in (10143, 10110, 10025, 14190, 10080)
)


@frozen
class SandboxSettings:
    """C{[sandbox]}. The mail addresses of its users are in C{domain}. Port 0 means any free port."""

    supplies: ClassVar[frozenset[str]] = frozenset({"ssl_certificate"})

    users: tuple[SandboxUser, ...] = directive(
        "users",
        _users,
        (SandboxUser("alice", "wonderland"), SandboxUser("bob", "builder")),
        secret=True,
        reloadable=False,
    )
    domain: str = directive("domain", _domain, "example.com", reloadable=False)
    imap: ListenAddress = directive("imap", _loopback, _IMAP, reloadable=False)
    pop3: ListenAddress = directive("pop3", _loopback, _POP3, reloadable=False)
    smtp: ListenAddress = directive("smtp", _loopback, _SMTP, reloadable=False)
    sieve: ListenAddress = directive("sieve", _loopback, _SIEVE, reloadable=False)
    authHttp: ListenAddress = directive("auth_http", _loopback, _AUTH_HTTP, reloadable=False)

    @classmethod
    def conflicts(cls, settings: GatewaySettings) -> Iterator[Problem]:
        """
        Yield a problem for several worker processes, and for TLS settings that contradict the demo's certificate.

        @param settings: the whole configuration.
        """
        if settings.find(cls) is None:
            return
        # Most gateways have no demo: spare them this import.
        from mailgate.sandbox.certificate import faultsBeside

        yield from faultsBeside(settings.servers)
        workers = settings[WorkerSettings].count
        if workers != 1:
            reason = "must be 1 with [sandbox], whose mailboxes are in the memory of one process"
            yield Problem(settings.file, reason, "mailgate", "worker_processes", str(workers))

    def summary(self) -> Iterator[str]:
        """Yield a line for C{mailgate check}: how many users the sandbox has, and their mail domain."""
        yield f"sandbox: {len(self.users)} user(s) in {self.domain}"
