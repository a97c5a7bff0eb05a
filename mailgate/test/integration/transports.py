# -*- test-case-name: mailgate.test.integration.test_transports -*-
"""
The transports of the connections of the gateways that tests start, and the differences between both kinds.

C{MAILGATE_USE} in the environment selects them, with the words of the directive C{use}. Without it, the gateway's
default counts.
"""

from __future__ import annotations

import os

from mailgate.lean.reactor import EventSettings

__all__ = ["ANSWERS_AFTER_CLOSE_NOTIFY", "IDLE_SLACK", "USE", "areLean", "withTransports"]

USE = os.environ.get("MAILGATE_USE", "")
"""The value of the directive C{use}, or empty."""

_PROCESS = "[mailgate]\n"


def withTransports(ini: str, use: str = USE) -> str:
    """
    The configuration C{ini}, which does not contain C{use} yet, for gateways of these tests. With several workers it
    stays as it is, because there is one kind of transport for them.
    """
    if not use or "worker_processes" in ini:
        return ini
    before, found, after = ini.partition(_PROCESS)
    if not found:
        before, after = "", ini
    return f"{before}{_PROCESS}use = {use}\n{after}"


def areLean(use: str = USE) -> bool:
    """Whether a gateway with such a configuration uses the transports of L{mailgate.lean.transport}."""
    return (EventSettings(use) if use else EventSettings()).isLean


ANSWERS_AFTER_CLOSE_NOTIFY = areLean()
"""Twisted's transports close when their TLS peer sends close_notify."""

IDLE_SLACK = 1.0 if areLean() else 0.0
"""Seconds by which the end of an idle session may be late: the resolution of L{mailgate.lean.clock}."""
