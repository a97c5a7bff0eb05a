# -*- test-case-name: mailgate.test.backend.test_client -*-
"""
Why a backend cannot be used, in words for the log.
"""

from __future__ import annotations

import re

from mailgate.login import Denial, Trouble

__all__ = ["BackendError", "LoginRefused", "Unauthorizing", "beginsWith", "replyCode"]

_BRACKETED = rb"(?: \[[A-Z][A-Z/-]{0,40}\])?"
_CODE = re.compile(
    rb"(?:[^ ]+ )??((?:OK|NO|BAD|BYE|PREAUTH)\b"
    + _BRACKETED
    + rb"|(?:\+OK|-ERR)\b"
    + _BRACKETED
    + rb"|[2-5][0-9]{2}\b(?:[ -][245]\.[0-9]{1,3}\.[0-9]{1,3}\b)?)"
)


def replyCode(reply: bytes) -> str:
    """
    The code of a backend's reply, for the log: C{NO [UNAVAILABLE]}, C{-ERR [AUTH]}, C{535 5.7.8}.

    Not its text: there are servers that repeat what they did not understand, a password too, and in more forms than
    could be found again.
    """
    code = _CODE.match(reply.strip().rpartition(b"\n")[2])
    return code[1].decode("ascii") if code else "an invalid reply"


def beginsWith(line: bytes, status: bytes) -> bool:
    """Whether C{status} stands at the beginning of a backend's C{line}, and not just at that of a longer word."""
    return line.startswith(status) and line[len(status) : len(status) + 1] in b" \r\n"


class BackendError(Exception):
    """
    A backend cannot be used; C{str} says why, C{reply} is what it said, if that was why. The log quotes that where it
    C{isQuoted}: where no password has been sent that it could repeat.
    """

    retriable = True
    """Whether another backend may do better."""

    def __init__(self, message: str, reply: bytes = b"", *, isQuoted: bool = False) -> None:
        super().__init__(message)
        self.reply = reply
        self.isQuoted = isQuoted


class LoginRefused(BackendError):
    """
    The backend has said no to the login itself, or to the sender of mail without a login. Another backend would say the
    same. C{denial} is what the client is told where nobody else has judged the login.
    """

    retriable = False

    def __init__(self, reply: bytes, denial: Denial) -> None:
        super().__init__(f"refused the login with {replyCode(reply)}", reply)
        self.denial = denial

    @property
    def temporary(self) -> bool:
        """Whether the backend calls it a passing trouble, or speaks of our command."""
        return self.denial.trouble is Trouble.TEMPORARY


class Unauthorizing(BackendError):
    """The backend has no way to log in as another user, which an authorization identity asks for."""

    retriable = False
