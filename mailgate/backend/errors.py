# -*- test-case-name: mailgate.test.backend.test_client -*-
"""
Errors of backends, with messages for the log.
"""

from __future__ import annotations

import builtins
import re
from typing import Literal, TypeAlias

from twisted.internet.defer import TimeoutError
from twisted.internet.error import ConnectError, TCPTimedOutError
from twisted.internet.error import TimeoutError as ConnectTimeout

from mailgate.log.journal import printable
from mailgate.login import Denial, Trouble
from mailgate.net.connectionerrors import inWords

__all__ = [
    "FAILURES",
    "BackendError",
    "Cause",
    "LoginRefused",
    "Unauthorizing",
    "beginsWith",
    "causeOf",
    "ofSecret",
    "reasonOf",
    "replyCode",
]

Cause: TypeAlias = Literal["error", "timeout", "tls", "invalid_response", "temporary", ""]
"""
The kind of a failure, as a word of C{proxy_next_upstream}: the connection failed, a deadline passed, TLS failed, the
backend sent something that is no valid reply, it refused the login for now. Empty: no other backend is tried.
"""

_LONG_SECRET = 4096
"""Bytes of a password or token that all servers accept. Dovecot accepts about 6,000, which are 8,192 in base64."""

_BRACKETED = (
    rb"(?: \[[A-Z][A-Z/-]{0,40}\]"
    rb"| \((?:AUTH-TOO-WEAK|ENCRYPT-NEEDED|LIMIT(?:/CONNECTIONS)?|TRANSITION-NEEDED|TRYLATER(?:/NORETRY)?)\))?"
)
"""Response codes: those of ManageSieve (RFC 5804, section 1.3) are in parentheses."""
_CODE = re.compile(
    rb"(?:[^ ]+ )??((?:OK|NO|BAD|BYE|PREAUTH)\b"
    + _BRACKETED
    + rb"|(?:\+OK|-ERR)\b"
    + _BRACKETED
    + rb"|[2-5][0-9]{2}\b(?:[ -][245]\.[0-9]{1,3}\.[0-9]{1,3}\b)?)"
)


def replyCode(reply: bytes) -> str:
    """
    Return the code of a backend's reply for the log: C{NO [UNAVAILABLE]}, C{-ERR [AUTH]}, C{535 5.7.8}.

    The text is left out: some servers repeat a command that they do not understand, and with it a password, in forms
    that cannot all be recognized.

    @param reply: the reply, perhaps of several lines. The last one counts.
    """
    code = _CODE.match(reply.strip().rpartition(b"\n")[2])
    return code[1].decode("ascii") if code else "an invalid reply"


def beginsWith(line: bytes, status: bytes) -> bool:
    """Return whether a backend's C{line} begins with the whole word C{status}."""
    return line.startswith(status) and line[len(status) : len(status) + 1] in b" \r\n"


class BackendError(Exception):
    """
    A backend cannot be used. The message is a phrase for the log that begins with a verb.

    @ivar reply: the backend's reply that caused the error, or empty.
    @ivar isQuoted: whether the log may quote C{reply}: only if the backend has received no password that it could
        repeat.
    @ivar counts: whether it counts as a failure of the backend (C{max_fails}). An error that a client can cause, an
        answer of a server that is full, or a matter of configuration must not put a working server to rest.
    @ivar cause: its kind, which decides whether another backend is tried.
    """

    def __init__(
        self,
        message: str,
        reply: bytes = b"",
        *,
        isQuoted: bool = False,
        counts: bool = True,
        cause: Cause = "invalid_response",
    ) -> None:
        """
        @param message: the phrase for the log.
        @param reply: the backend's reply, or empty.
        @param isQuoted: whether the log may quote C{reply}.
        @param counts: whether it counts as a failure of the backend.
        @param cause: its kind.
        """
        super().__init__(message)
        self.reply = reply
        self.isQuoted = isQuoted
        self.counts = counts
        self.cause: Cause = cause


class LoginRefused(BackendError):
    """
    The backend has refused the login itself or, without a login, the sender. Other backends are tried only if the
    refusal is temporary and not about the account (L{mailgate.backend.reply.isPassing}).

    @ivar denial: the refusal for the client if no authenticator has judged the login.
    """

    def __init__(self, reply: bytes, denial: Denial) -> None:
        """
        @param reply: the backend's reply.
        @param denial: its meaning for the client.
        """
        super().__init__(f"refused the login with {replyCode(reply)}", reply, counts=False, cause="")
        self.denial = denial

    @property
    def temporary(self) -> bool:
        """Whether the login failed for another reason than its credentials, so that a later attempt may work."""
        return self.denial.trouble is Trouble.TEMPORARY


class Unauthorizing(BackendError):
    """
    The backend does not support authorization identities: a login as another user is not possible. It does not count
    as a failure of the backend, because the client chooses to send such an identity.
    """

    def __init__(self, message: str, reply: bytes = b"") -> None:
        """
        @param message: the phrase for the log.
        @param reply: the backend's reply, or empty.
        """
        super().__init__(message, reply, counts=False, cause="")


def ofSecret(error: Exception, secret: bytes | None) -> Exception:
    """
    Return the error of a login that sent a password or token. Some servers close the connection when a message is too
    long for them. The client chooses its length, so that is no failure of the backend.

    @param error: the error as the conversation raised it.
    @param secret: the password or token; L{None} if there is none.
    """
    isClosed = isinstance(error, BackendError) and error.cause == "error" and not error.reply
    length = 0 if secret is None else len(secret)
    if not isClosed or length <= _LONG_SECRET:
        return error
    message = f"{error} after a password or token of {length} bytes, which may be too long for it"
    return BackendError(message, counts=False, cause="")


def causeOf(error: Exception) -> Cause:
    """
    Return the kind of a failure.

    @param error: a L{BackendError}, or the error of a connection.
    """
    if isinstance(error, BackendError):
        return error.cause
    # The last one is Python's own, for ETIMEDOUT.
    isLate = isinstance(error, (TimeoutError, ConnectTimeout, TCPTimedOutError, builtins.TimeoutError))
    return "timeout" if isLate else "error"


FAILURES = (BackendError, ConnectError, TimeoutError, OSError)
"""What a conversation with a backend raises if it fails: the backend, the connection or a deadline is the cause."""


def reasonOf(error: Exception, late: str) -> str:
    """
    Return why a conversation failed: a phrase for the log that begins with a verb, with the backend as its subject.

    @param error: one of L{FAILURES}.
    @param late: the phrase for a deadline that has passed.
    """
    if isinstance(error, BackendError):
        return str(error)
    if isinstance(error, TimeoutError | ConnectTimeout):
        return late
    return inWords(error) or f"failed: {printable(str(error).encode('utf-8', 'backslashreplace'))}"
