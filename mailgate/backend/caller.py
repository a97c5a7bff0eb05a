# -*- test-case-name: mailgate.test.backend.test_client -*-
"""
One server of the gateway, as what speaks to backends: what is the same for all its conversations.
"""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from mailgate.backend.settings import ProxySettings
from mailgate.directives import ServerSettings

__all__ = ["Caller"]


@frozen
class Caller:
    """
    A server that speaks to backends.

    @ivar settings: the server's directives.
    @ivar serverName: the gateway's host name (C{server_name}).
    @ivar reactor: the reactor, whose threads compute what takes long; L{None} to compute it at once.
    @ivar proxy: the C{proxy_…} directives among C{settings}.
    @ivar hasHeader: whether each connection begins with a PROXY header (C{proxy_protocol}).
    @ivar tellsByCommand: as of L{ProxySettings}.
    """

    settings: ServerSettings
    serverName: str
    reactor: Any = None
    proxy: ProxySettings = field(init=False, repr=False)
    hasHeader: bool = field(init=False, repr=False)
    tellsByCommand: bool = field(init=False, repr=False)

    @proxy.default
    def _proxy(self) -> ProxySettings:
        return self.settings[ProxySettings]

    # Each login needs them.

    @hasHeader.default
    def _hasHeader(self) -> bool:
        return self.proxy.proxyProtocol != "off"

    @tellsByCommand.default
    def _tellsByCommand(self) -> bool:
        return self.proxy.tellsByCommand
