# -*- test-case-name: mailgate.test.watch.test_gatewayname -*-
"""
The directive C{gateway_name}: how this gateway is called among several.
"""

from __future__ import annotations

import re
import socket

from attrs import frozen

from mailgate.directives import directive

__all__ = ["NameSettings"]

_NAME = re.compile("[A-Za-z0-9-]{1,10}")


def _name(value: str, folder: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be 1 to 10 letters, digits and hyphens, such as g1")
    return value


@frozen
class NameSettings:
    """The name of the gateway. The ids of its sessions begin with it (L{mailgate.sessionids.SessionIds})."""

    name: str | None = directive("gateway_name", _name, None)

    @property
    def shown(self) -> str:
        """How answers to operators call this gateway: its name, else the host name of the system."""
        return self.name or socket.gethostname().lower()
