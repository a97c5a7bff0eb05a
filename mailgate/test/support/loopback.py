"""
What the machine's loopback interface can do.
"""

from __future__ import annotations

import socket

__all__ = ["speaksIPv6"]


def speaksIPv6() -> bool:
    """Whether this host has a loopback by IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
