"""
The abilities of the loopback interface.
"""

from __future__ import annotations

import socket

__all__ = ["speaksIPv6"]


def speaksIPv6() -> bool:
    """Return whether this host has an IPv6 loopback."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
