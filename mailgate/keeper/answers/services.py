# -*- test-case-name: mailgate.test.keeper.answers.test_backends -*-
"""
Answers which authentication services the logins of a process are sent to, and whether they answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mailgate.keeper.view import ANSWERERS, ProcessView

__all__ = ["services"]


def services(view: ProcessView, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """
    Yield a row for each service of the generation that accepts clients: C{url} without its query; C{failing}: whether
    it has failed and not answered since; C{seconds}: since it failed last or began to answer again, L{None} if it has
    never failed; C{asking} and C{waiting}: its questions under way and the logins that wait; C{error}: why it has
    failed last, and when in seconds since 1970, L{None} if it has never failed.

    @param view: the process.
    @param arguments: not used.
    """
    for gateway in view.gateways():
        for service in () if gateway.isDraining else gateway.sharedServices:
            failing, seconds = service.standing
            yield {
                "service": f"{service.url.hostHeader}:{service.url.port}" if service.url.port else service.url.host,
                "url": str(service.url),
                "failing": failing,
                "seconds": seconds,
                "asking": service.queue.taken,
                "waiting": len(service.queue),
                "error": None if service.lastFailure is None else list(service.lastFailure),
            }


ANSWERERS["services"] = services
