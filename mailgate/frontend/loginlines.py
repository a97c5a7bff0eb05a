# -*- test-case-name: mailgate.test.frontend.test_failures mailgate.test.frontend.test_debugging -*-
"""
The log lines about a login before the relay.
"""

from __future__ import annotations

from mailgate.log.connection import JUDGED, LOGIN_BEGUN, LOGIN_FAILED, about
from mailgate.log.journal import Journal, printable
from mailgate.login import Denial, LoginRequest, Route
from mailgate.session import Session

__all__ = ["logBegun", "logDenied", "logJudged"]


def logBegun(session: Session, request: LoginRequest) -> None:
    """
    Log at debug that a login begins.

    @param session: the record of the connection, which is debugged.
    @param request: the login.
    """
    method, user = request.credentials.method.value, printable(session.user)
    session.step(LOGIN_BEGUN, method=method, attempt=request.attempt, user=user)


def logJudged(session: Session, request: LoginRequest, route: Route) -> None:
    """
    Log at debug that the authenticator has accepted a login.

    @param session: the record of the connection, which is debugged.
    @param request: the login.
    @param route: the answer.
    """
    session.step(
        JUDGED,
        method=request.credentials.method.value,
        attempt=request.attempt,
        backends=" ".join(map(str, route.backends)),
        user=printable(route.user),
    )


def logDenied(journal: Journal, session: Session, request: LoginRequest, denial: Denial) -> None:
    """
    Log that a login was refused, or failed for now.

    @param journal: the log.
    @param session: the record of the connection.
    @param request: the login.
    @param denial: the answer.
    """
    if journal.wantsInfo:
        text = denial.answer or denial.text
        journal.info(
            LOGIN_FAILED,
            **about(session),
            trouble=denial.kind.value,
            method=request.credentials.method.value,
            reason=f", reason {denial.reason}" if denial.reason else "",
            user=printable(session.user),
            text=f', text "{printable(text)}"' if text else "",
        )
