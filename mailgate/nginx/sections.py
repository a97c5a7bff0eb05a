# -*- test-case-name: mailgate.test.nginx.test_sections -*-
"""
The sections of gateway.ini that L{mailgate.nginx.mapping} makes. What mailgate cannot use stays in them as comments.

Without a refused value another value counts: that of [mail], an earlier one, or mailgate's default. This module lists
the directives for which that is acceptable. If any other directive is refused, the server is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from attrs import define, field

from mailgate.config import knownDirectives
from mailgate.directives import Directive
from mailgate.frontend.realip import RealIPSettings
from mailgate.net.resolver import ResolverSettings
from mailgate.nginx.conf import Statement
from mailgate.registry import PROTOCOLS
from mailgate.tls.settings import TLSSettings

__all__ = ["REPLACED", "Entry", "Section", "known", "listening", "whyLeftOut"]

REPLACED = ("auth_http", "protocol", "ssl_session_cache")
"""Directives of which only the last one on a level counts."""

_HARMLESS = {
    # Addresses, times, limits and sizes: they do not change how logins are judged.
    *("listen", "timeout", "max_errors", "max_commands", "auth_http_timeout", "resolver_timeout", "proxy_timeout"),
    *("proxy_buffer", "imap_client_buffer", "smtp_client_buffer"),
    # Texts for clients and logs.
    *("server_name", "imap_capabilities", "pop3_capabilities", "smtp_capabilities", "error_log", "proxy"),
    # Key exchange and session resumption; none of these concerns client certificates.
    *("ssl_ecdh_curve", "ssl_session_cache", "ssl_session_timeout", "ssl_session_ticket_key"),
    "ssl_certificate_compression",
}
"""Directives for which any other value is acceptable."""

_SOUND = {
    *("ssl_protocols", "ssl_ciphers", "ssl_prefer_server_ciphers", "ssl_dhparam", "ssl_password_file"),
    *("ssl_session_tickets", "resolver", "xclient", "proxy_pass_error_message"),
}
"""
Directives for which mailgate's default is acceptable, because it is not weaker than other values; a value of [mail] is
not.
"""

_HARMLESS_COMMANDS = {
    *("options", "groups", "curves", "ecdhparameters", "dhparameters", "signaturealgorithms", "recordpadding"),
    *("numtickets", "serverinfofile", "chaincafile", "chaincapath", "chaincastore"),
    *("requestcafile", "requestcapath", "requestcastore", "clientcafile", "clientcapath", "clientcastore"),
}
"""Commands of C{ssl_conf_command} that do not decide which clients are accepted, nor which certificates are trusted."""


@define
class Entry:
    """
    One option.

    @ivar name: its name.
    @ivar items: its value, one item per line.
    @ivar origin: its statement in nginx.conf; L{None} for options that the import adds.
    @ivar comment: a comment above it.
    @ivar refusal: why mailgate cannot use it. If not empty, the option becomes a comment.
    """

    name: str
    items: list[str]
    origin: Statement | None = None
    comment: str = ""
    refusal: str = ""

    @property
    def isMissed(self) -> bool:
        """Whether the option is refused, and its absence may change how the server treats clients."""
        isKnown = self.origin is None or not self.origin.complaint
        return bool(self.refusal) and isKnown and self.name not in _HARMLESS

    @property
    def isMild(self) -> bool:
        """Whether it is a list from which this item may be missing."""
        commands = {item.partition(" ")[0].lower() for item in self.items}
        return self.name == "ssl_conf_command" and commands <= _HARMLESS_COMMANDS


@define
class Section:
    """
    A section of gateway.ini.

    @ivar title: the text between [ and ].
    @ivar level: the kind of section: C{mailgate}, C{mail} or C{server}.
    @ivar origin: its block in nginx.conf.
    @ivar entries: its options.
    @ivar refusal: why it is left out. If not empty, the section becomes a comment.
    """

    title: str
    level: str
    origin: Statement | None = None
    entries: list[Entry] = field(factory=list)
    refusal: str = ""

    def entry(self, name: str) -> Entry | None:
        """The option C{name}, unless it is refused."""
        return next((entry for entry in self.entries if entry.name == name and not entry.refusal), None)

    def named(self, name: str) -> list[Entry]:
        """The entries of C{name} that count in nginx."""
        found = [entry for entry in self.entries if entry.name == name]
        return found[-1:] if name in REPLACED else found

    def forget(self, name: str) -> None:
        """Remove the option C{name}, because a later one replaces it. Refused ones stay."""
        self.entries = [entry for entry in self.entries if entry.name != name or entry.refusal]


@cache
def known(level: str) -> Mapping[str, Directive]:
    """The directives by name that mailgate has in sections of C{level}."""
    return knownDirectives(level)


def listening(section: Section) -> Any:
    """The addresses of C{section} that are not refused."""
    listen = section.entry("listen")
    return () if listen is None else known("server")["listen"].parse("\n".join(listen.items), "/")


def whyLeftOut(server: Section, mail: Section) -> str:
    """
    Why a server must be left out because of refused options; empty if it can stay.

    @param server: the server.
    @param mail: the section with its defaults.
    """
    for name in dict.fromkeys(entry.name for entry in (*server.entries, *mail.entries)):
        level = server if server.named(name) else mail
        missed = [entry for entry in level.named(name) if entry.isMissed]
        if not missed or not _concerns(name, server, mail):
            continue
        inPlace = level.entry(name) or mail.entry(name)
        if all(entry.isMild for entry in missed):
            # The rest of the server's own list is right; the list of [mail] is not.
            inPlace = None if level.entry(name) else mail.entry(name)
        elif name not in _SOUND:
            return f"without {name} it could accept clients, or query or trust hosts, that nginx does not"
        if inPlace is not None:
            return f"without {name} it would use a value that differs from nginx's"
    return ""


def _concerns(name: str, server: Section, mail: Section) -> bool:
    """Whether the directive C{name} has an effect for C{server}, given its protocol and its addresses."""
    declared = known("server").get(name)
    group = None if declared is None else declared.group
    protocol = server.entry("protocol")
    owners = [each.name for each in PROTOCOLS.values() if each.settings is group]
    if group is ResolverSettings:
        owners = [each.name for each in PROTOCOLS.values() if each.wantsClientName]
    if owners and protocol is not None:
        return protocol.items[0] in owners
    if group is RealIPSettings:
        return any(address.proxyProtocol for address in listening(server))
    return group is not TLSSettings or name == "starttls" or _speaksTLS(server, mail)


def _speaksTLS(server: Section, mail: Section) -> bool:
    effective = [server.entry(name) or mail.entry(name) for name in ("starttls", "ssl")]
    isOn = any(entry is not None and entry.items[0].lower() != "off" for entry in effective)
    return isOn or any(address.ssl for address in listening(server))
