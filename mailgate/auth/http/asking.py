# -*- test-case-name: mailgate.test.auth.http.test_authenticator -*-
"""
What L{mailgate.auth.http.authenticator} knows of a login that is being judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mailgate.auth.http.headers import PreparedHeaders
from mailgate.login import LoginRequest

__all__ = ["Asking"]


class Asking:
    """
    A login that is being judged.

    @param request: the login.
    @param client: names its client in the queue.
    @ivar request: the login.
    @ivar client: names its client in the queue.
    @ivar plain: the headers of the request, without C{traceparent}.
    @ivar asked: the headers of the request to the current service.
    @ivar services: the services that have not been asked yet.
    @ivar patience: the seconds left for an answer.
    @ivar isStorable: whether no service has answered C{WAIT}.
    @ivar reason: why a service could not be asked; may be empty.
    @ivar failures: for each failed service whether its outage was known before, and the fields of a line.
    @ivar since: when the current service was asked, in seconds; set only if that is logged.
    """

    __slots__ = (
        *("asked", "client", "failures", "isStorable", "patience", "plain", "reason", "request", "services", "since"),
    )

    asked: PreparedHeaders
    plain: PreparedHeaders
    services: Iterator[Any]
    patience: float

    def __init__(self, request: LoginRequest, client: str) -> None:
        self.request = request
        self.client = client
        self.isStorable = True
        self.reason = ""
        self.failures: list[tuple[bool, dict[str, Any]]] | None = None
        self.since = 0.0
