# -*- test-case-name: mailgate.test.nginx.test_sections -*-
"""
Sections of gateway.ini as L{mailgate.nginx.mapping} makes them, what is refused in them still shown; and the rule by
which a server is left out because of it.

Where a value is refused another comes in force: that of [mail], an earlier one, or mailgate's default. Which names
that may happen to is listed here. For any other the server is left out.
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
"""Directives whose last use on a level counts."""

_HARMLESS = {
    # Where it is listened, how long, how often and how much: whoever comes in is judged as before.
    *("listen", "timeout", "max_errors", "max_commands", "auth_http_timeout", "resolver_timeout", "proxy_timeout"),
    *("proxy_buffer", "imap_client_buffer", "smtp_client_buffer"),
    # What clients and logs are told.
    *("server_name", "imap_capabilities", "pop3_capabilities", "smtp_capabilities", "error_log", "proxy"),
    # How keys are agreed upon, and sessions resumed; none is where clients are asked for certificates.
    *("ssl_ecdh_curve", "ssl_session_cache", "ssl_session_timeout", "ssl_session_ticket_key"),
    "ssl_certificate_compression",
}
"""Directives in whose place another value may be, from wherever it comes."""

_SOUND = {
    *("ssl_protocols", "ssl_ciphers", "ssl_prefer_server_ciphers", "ssl_dhparam", "ssl_password_file"),
    *("ssl_session_tickets", "resolver", "xclient", "proxy_pass_error_message"),
}
"""Directives in whose place mailgate's default may be, which is no weaker than another; but no value of elsewhere."""

_HARMLESS_COMMANDS = {
    *("options", "groups", "curves", "ecdhparameters", "dhparameters", "signaturealgorithms", "recordpadding"),
    *("numtickets", "serverinfofile", "chaincafile", "chaincapath", "chaincastore"),
    *("requestcafile", "requestcapath", "requestcastore", "clientcafile", "clientcapath", "clientcastore"),
}
"""Commands of C{ssl_conf_command} without which no other client is let in, and nobody else trusted."""


@define
class Entry:
    """
    One option, C{items} one a line. With a C{refusal} it is shown, but not in force. C{origin} is the statement that
    it comes from, or L{None} where nginx.conf says nothing of it.
    """

    name: str
    items: list[str]
    origin: Statement | None = None
    comment: str = ""
    refusal: str = ""

    @property
    def isMissed(self) -> bool:
        """Whether nginx has it, mailgate has not, and that may matter to more than comfort."""
        isKnown = self.origin is None or not self.origin.complaint
        return bool(self.refusal) and isKnown and self.name not in _HARMLESS

    @property
    def isMild(self) -> bool:
        """Whether it is one of those lists that may lack this."""
        commands = {item.partition(" ")[0].lower() for item in self.items}
        return self.name == "ssl_conf_command" and commands <= _HARMLESS_COMMANDS


@define
class Section:
    """A section of gateway.ini. With a C{refusal} it is shown, but not in force."""

    title: str
    level: str
    origin: Statement | None = None
    entries: list[Entry] = field(factory=list)
    refusal: str = ""

    def entry(self, name: str) -> Entry | None:
        """The option C{name}, if it is in force."""
        return next((entry for entry in self.entries if entry.name == name and not entry.refusal), None)

    def named(self, name: str) -> list[Entry]:
        """Those entries of C{name} that count in nginx."""
        found = [entry for entry in self.entries if entry.name == name]
        return found[-1:] if name in REPLACED else found

    def forget(self, name: str) -> None:
        """Take out C{name}, as it is in force, for a later one that counts in its place."""
        self.entries = [entry for entry in self.entries if entry.name != name or entry.refusal]


@cache
def known(level: str) -> Mapping[str, Directive]:
    """The options that mailgate has in sections of C{level}."""
    return knownDirectives(level)


def listening(section: Section) -> Any:
    """The addresses that C{section} is in force with."""
    listen = section.entry("listen")
    return () if listen is None else known("server")["listen"].parse("\n".join(listen.items), "/")


def whyLeftOut(server: Section, mail: Section) -> str:
    """Why C{server} is not to be had as the defaults of C{mail} make it, or nothing."""
    for name in dict.fromkeys(entry.name for entry in (*server.entries, *mail.entries)):
        level = server if server.named(name) else mail
        missed = [entry for entry in level.named(name) if entry.isMissed]
        if not missed or not _concerns(name, server, mail):
            continue
        inPlace = level.entry(name) or mail.entry(name)
        if all(entry.isMild for entry in missed):
            # What is left of the list is nginx's; [mail]'s list is not.
            inPlace = None if level.entry(name) else mail.entry(name)
        elif name not in _SOUND:
            return f"without {name} it could let in, ask or trust others than nginx does"
        if inPlace is not None:
            return f"without {name} another value than nginx's would be in its place"
    return ""


def _concerns(name: str, server: Section, mail: Section) -> bool:
    """Whether C{name} changes anything for C{server}, by its protocol and by how it listens."""
    declared = known("server").get(name)
    group = None if declared is None else declared.group
    protocol = server.entry("protocol")
    owners = [each.name for each in PROTOCOLS.values() if each.settings is group]
    if group is ResolverSettings:
        owners = ["smtp"]
    if owners and protocol is not None:
        return protocol.items[0] in owners
    if group is RealIPSettings:
        return any(address.proxyProtocol for address in listening(server))
    return group is not TLSSettings or name == "starttls" or _speaksTLS(server, mail)


def _speaksTLS(server: Section, mail: Section) -> bool:
    effective = [server.entry(name) or mail.entry(name) for name in ("starttls", "ssl")]
    isOn = any(entry is not None and entry.items[0].lower() != "off" for entry in effective)
    return isOn or any(address.ssl for address in listening(server))
