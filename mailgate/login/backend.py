# -*- test-case-name: mailgate.test.test_login -*-
"""
Backends: single servers, and names of groups of them.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from attrs import frozen

__all__ = ["Backend", "BackendGroup", "BackendTLS", "Destination"]


class BackendTLS(Enum):
    """How the gateway protects its connection to a backend, as the fields C{ssl} and C{starttls} of an account file."""

    OFF = "off"
    IMPLICIT = "ssl"
    STARTTLS = "starttls"


@frozen(cache_hash=True)
class Backend:
    """
    A mail server behind the gateway. C{str} of it is C{host:port}, C{[address]:port} for IPv6, or C{unix:/path}.

    @ivar host: an address without brackets, a host name, or C{unix:/path}.
    @ivar port: its port; 0 for a unix socket.
    @ivar tls: whether and how the connection to it uses TLS; L{None} for C{proxy_ssl}.
    @ivar verify: whether its certificate must be valid for its name. C{proxy_ssl_verify = off} overrides it. Without
        TLS it has no effect.
    @ivar name: the name that its certificate must be valid for; empty for C{proxy_ssl_name} or else C{host}.
    """

    host: str
    port: int
    tls: BackendTLS | None = None
    verify: bool = True
    name: str = ""

    def __str__(self) -> str:
        if self.host.startswith("unix:"):
            return self.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@frozen
class BackendGroup:
    """
    Backends that C{gateway.ini} chooses among.

    @ivar text: the name of an C{[upstream NAME]} section, or a text with variables (C{$pool}) that stands for such a
        name, or for C{host:port}.
    @ivar isName: whether C{text} is the name of a section in any case, so that no variable in it is replaced, and it
        is no address.
    """

    text: str
    isName: bool = False

    def __str__(self) -> str:
        return self.text


Destination: TypeAlias = Backend | BackendGroup
"""Where an account lives: a server, or a group of servers."""
