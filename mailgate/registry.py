# -*- test-case-name: mailgate.test.test_registry -*-
"""
Lists the protocols, the kinds of authenticator, and the sections of the configuration with their settings classes. A
new one of these is one new file and one new line here.
"""

from __future__ import annotations

from collections.abc import Iterable

from mailgate.auth import passthrough
from mailgate.auth.http import authenticator as http
from mailgate.auth.passwdfile import authenticator as passwdfile
from mailgate.backend.retry import RetrySettings
from mailgate.backend.settings import ProxySettings
from mailgate.directives import ListenAddress, SectionKind
from mailgate.frontend.debugging import DebugSettings
from mailgate.frontend.draining import DrainSettings
from mailgate.frontend.protocol import MailProtocol
from mailgate.frontend.realip import RealIPSettings
from mailgate.frontend.settings import DialogueSettings
from mailgate.interfaces import AuthenticatorKind
from mailgate.lean.connectionlimit import ConnectionSettings
from mailgate.lean.reactor import EventSettings
from mailgate.limits.settings import LimitSettings
from mailgate.log.settings import LogSettings, ServerLogSettings
from mailgate.net.listen import ListenSettings
from mailgate.net.resolver import ResolverSettings
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.smtp import SMTP
from mailgate.relay.settings import RelaySettings
from mailgate.rules.settings import GeoSettings, MapSettings
from mailgate.sandbox.settings import SandboxSettings
from mailgate.scram.settings import ScramSettings
from mailgate.store.settings import StoreSettings
from mailgate.system.pidfile import PIDSettings
from mailgate.system.privileges import ProcessSettings
from mailgate.system.processors import WorkerSettings
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.tls.settings import TLSSettings
from mailgate.upstream.settings import UpstreamSettings
from mailgate.watch.gatewayname import NameSettings
from mailgate.watch.settings import AdminSettings

__all__ = ["AUTHENTICATORS", "PROCESS_SETTINGS", "PROTOCOLS", "SECTIONS", "SERVER", "SERVER_SETTINGS", "protocolAt"]

PROTOCOLS: dict[str, MailProtocol] = {protocol.name: protocol for protocol in (IMAP4, POP3, SMTP, SIEVE)}
"""Protocols by their name in the directive C{protocol}."""

AUTHENTICATORS: tuple[AuthenticatorKind, ...] = (http.KIND, passwdfile.KIND, passthrough.KIND)
"""Kinds of authenticator. A server has the first one whose directive it sets."""

SERVER_SETTINGS: tuple[type, ...] = (
    ServerLogSettings,
    DialogueSettings,
    ProxySettings,
    RetrySettings,
    RelaySettings,
    TLSSettings,
    BackendTLSSettings,
    ResolverSettings,
    RealIPSettings,
    LimitSettings,
    ScramSettings,
    *dict.fromkeys(kind.settings for kind in AUTHENTICATORS if kind.settings is not ProxySettings),
    *(protocol.settings for protocol in PROTOCOLS.values()),
)
"""The settings classes that [mail] and [server …] are read into."""

PROCESS_SETTINGS: tuple[type, ...] = (
    LogSettings,
    DebugSettings,
    EventSettings,
    ProcessSettings,
    PIDSettings,
    DrainSettings,
    WorkerSettings,
    ConnectionSettings,
    AdminSettings,
    NameSettings,
    StoreSettings,
)
"""The settings classes that [mailgate] is read into."""

SERVER = SectionKind("server", True, (ListenSettings, *SERVER_SETTINGS), inherits="mail")

SECTIONS: tuple[SectionKind, ...] = (
    SectionKind("mailgate", False, PROCESS_SETTINGS),
    SectionKind("mail", False, (ListenSettings, *SERVER_SETTINGS)),
    SERVER,
    SectionKind("upstream", True, (UpstreamSettings, BackendTLSSettings, RetrySettings)),
    SectionKind("geo", True, (GeoSettings,)),
    SectionKind("map", True, (MapSettings,)),
    SectionKind("sandbox", False, (SandboxSettings,), isDemo=True),
)
"""All kinds of sections."""


def protocolAt(addresses: Iterable[ListenAddress]) -> str | None:
    """The name of the protocol of the first well-known port of C{addresses}; L{None} if none is well-known."""
    for address in addresses:
        for protocol in PROTOCOLS.values():
            if address.port in protocol.ports:
                return protocol.name
    return None
