# -*- test-case-name: mailgate.test.keeper.answers.test_backends -*-
"""
Answers which servers a process has, with their addresses, connections and certificates, and how the process is.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping
from typing import Any

from mailgate.frontend.factory import ProxyServerFactory
from mailgate.keeper.view import ANSWERERS, ProcessView
from mailgate.session import Phase

__all__ = ["process", "servers"]


def servers(view: ProcessView, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """
    Yield a row for each server of each generation: C{current}: whether the generation accepts clients; C{name},
    C{protocol}, C{listen}: its addresses; C{connections}; C{certificates}: pairs of a name, and the seconds since 1970
    when the certificate expires.

    @param view: the process.
    @param arguments: not used.
    """
    for gateway in view.gateways():
        byName: dict[str, list[ProxyServerFactory]] = {}
        for factory in gateway.factories:
            byName.setdefault(factory.settings.name, []).append(factory)
        for name, factories in byName.items():
            first = factories[0]
            yield {
                "current": not gateway.isDraining,
                "name": name,
                "protocol": first.settings.protocol,
                "listen": [f"{each.address}{' ssl' if each.address.ssl else ''}" for each in factories],
                "connections": sum(len(each.connections) for each in factories),
                "certificates": [list(each) for each in getattr(first.tls, "certificates", ())],
            }


def process(view: ProcessView, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """
    Yield one row about the process: C{worker}: its name; C{pid}; C{accepts}: whether it accepts clients;
    C{generations}; C{sessions}: its connections; C{relayed}: those of them in the relay; C{cpu}: seconds of processor
    time; C{memory}: private bytes, null if the system does not say it; C{cpu_share}: of one processor, in the last
    seconds; C{lag}: the longest delay of a timer in the last seconds. These two are null at the start.

    @param view: the process.
    @param arguments: not used.
    """
    gateways = view.gateways()
    connections = [connection for gateway in gateways for connection in gateway.connections]
    lag = view.watcher.lag
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield {
        "worker": view.member,
        "pid": os.getpid(),
        "accepts": any(not gateway.isDraining for gateway in gateways),
        "generations": len(gateways),
        "sessions": len(connections),
        "relayed": sum(connection.session.phase is Phase.RELAY for connection in connections),
        "cpu": round(used.ru_utime + used.ru_stime, 3),
        "memory": _memory(),
        "cpu_share": None if (share := lag.share) is None else round(share, 3),
        "lag": None if (worst := lag.worst) is None else round(worst, 4),
    }


def _memory() -> int | None:
    """The memory in bytes that this process does not share (proc(5), statm)."""
    try:
        # Not as text: the user of a worker may be unable to import the codec.
        with open("/proc/self/statm", "rb") as opened:
            words = opened.read().split()
    except OSError:
        return None
    return (int(words[1]) - int(words[2])) * resource.getpagesize()


ANSWERERS["servers"] = servers
ANSWERERS["process"] = process
