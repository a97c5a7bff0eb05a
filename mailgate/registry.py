# -*- test-case-name: mailgate.test.test_registry -*-
"""
What mailgate speaks and whom it asks: a new protocol, or a new kind of authenticator, is one file and one line here.
"""

from __future__ import annotations

from mailgate.authenticators import http, passthrough, passwdfile
from mailgate.client import ProxySettings
from mailgate.connectionlimit import ConnectionSettings
from mailgate.dialogue import DialogueSettings, MailProtocol
from mailgate.draining import DrainSettings
from mailgate.interfaces import AuthenticatorKind
from mailgate.journal import LogSettings, ServerLogSettings
from mailgate.leanreactor import EventSettings
from mailgate.limits import LimitSettings
from mailgate.pidfile import PIDSettings
from mailgate.privileges import ProcessSettings
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.realip import RealIPSettings
from mailgate.resolver import ResolverSettings
from mailgate.sandbox.settings import SandboxSettings
from mailgate.tls import BackendTLSSettings, TLSSettings
from mailgate.workers import WorkerSettings

__all__ = ["AUTHENTICATORS", "PROCESS_SETTINGS", "PROTOCOLS", "SANDBOX_SETTINGS", "SERVER_SETTINGS"]

PROTOCOLS: dict[str, MailProtocol] = {protocol.name: protocol for protocol in (IMAP4, POP3, SMTP)}
"""Protocols by the word that the directive C{protocol} takes."""

AUTHENTICATORS: tuple[AuthenticatorKind, ...] = (http.KIND, passwdfile.KIND, passthrough.KIND)
"""Kinds of authenticator: a server has the first whose directive it gives."""

SERVER_SETTINGS: tuple[type, ...] = (
    ServerLogSettings,
    DialogueSettings,
    ProxySettings,
    TLSSettings,
    BackendTLSSettings,
    ResolverSettings,
    RealIPSettings,
    LimitSettings,
    *dict.fromkeys(kind.settings for kind in AUTHENTICATORS if kind.settings is not ProxySettings),
    *(protocol.settings for protocol in PROTOCOLS.values()),
)
"""The settings classes that [mail] and [server …] are read into."""

PROCESS_SETTINGS: tuple[type, ...] = (
    LogSettings,
    EventSettings,
    ProcessSettings,
    PIDSettings,
    DrainSettings,
    WorkerSettings,
    ConnectionSettings,
)
"""Those that [mailgate] is read into."""

SANDBOX_SETTINGS = SandboxSettings
"""That of [sandbox]."""
