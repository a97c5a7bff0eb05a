# -*- test-case-name: mailgate.test.sandbox.test_smtp -*-
"""
The SMTP server of the sandbox (RFC 5321, RFC 1870, RFC 6152): twisted.mail's, which delivers only to users of the
sandbox. Clients may log in, but need not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, execute, succeed
from twisted.mail.imap4 import IllegalClientResponse
from twisted.mail.smtp import (
    COMMAND,
    ESMTP,
    Address,
    IMessage,
    IMessageDelivery,
    SMTPBadRcpt,
    SMTPServerError,
    User,
    rfc822date,
)
from zope.interface import implementer

from mailgate.sandbox.account import Account, Accounts
from mailgate.sandbox.mailbox import OverQuota
from mailgate.sandbox.message import LARGEST_MESSAGE

__all__ = ["Delivery", "IncomingMessage", "SandboxESMTP"]

_TOO_LARGE = 552, "5.3.4 Message too big"
_FULL = 452, "4.2.2 Mailbox full"
_MOST_RECIPIENTS = 100


@implementer(IMessage)
class IncomingMessage:
    """
    A message that arrives line by line for one recipient. Its limit is C{LARGEST_MESSAGE} bytes.

    @param account: the account of the recipient.
    @param sender: the sender of the envelope.
    """

    def __init__(self, account: Account, sender: bytes) -> None:
        self._account = account
        self._lines = [b"Return-Path: <" + _safe(sender) + b">"]
        self._size = 0

    def lineReceived(self, line: bytes) -> None:
        self._size += len(line) + 2
        if self._size > LARGEST_MESSAGE:
            self._lines.clear()
            raise SMTPServerError(*_TOO_LARGE)
        self._lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        lines, self._lines = self._lines, []
        return execute(self._account.deliver, b"\r\n".join([*lines, b""]))

    def connectionLost(self) -> None:
        self._lines.clear()


@implementer(IMessageDelivery)
class Delivery:
    """
    Accepts mail from any sender for users of the sandbox.

    @param accounts: the accounts of the sandbox.
    """

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def validateFrom(self, helo: tuple[bytes | None, bytes], origin: Address) -> Deferred[Address]:
        return succeed(origin)

    def validateTo(self, user: User) -> Callable[[], IncomingMessage]:
        local, domain = user.dest.local, user.dest.domain
        if domain.lower() != self._accounts.domain.encode("ascii"):
            raise SMTPBadRcpt(user, 550, "5.7.1 Relaying denied")
        name = self._accounts.resolve(local)
        if name is None:
            raise SMTPBadRcpt(user, 550, "5.1.1 No such user")
        account = self._accounts[name]
        try:
            account.quota.charge([0])
        except OverQuota:
            raise SMTPServerError(*_FULL) from None
        account.quota.release([0])
        sender = bytes(user.orig)
        return lambda: IncomingMessage(account, sender)

    def receivedHeader(self, helo: tuple[bytes | None, bytes], origin: Address, recipients: list[User]) -> bytes:
        said, peer = helo
        recipient = _safe(bytes(recipients[0])) if recipients else b""
        return (
            b"Received: from " + (_safe(said or b"") or b"unknown") + b" ([" + _safe(peer) + b"])\r\n"
            b"\tby " + self._accounts.domain.encode("ascii") + b" (mailgate sandbox) with ESMTP\r\n"
            b"\tfor <" + recipient + b">; " + bytes(rfc822date())
        )


def _safe(raw: bytes) -> bytes:
    """C{raw} without characters that could end a header line, or close a comment or an address in it."""
    return re.sub(rb"[^!-'*-;=?-~]", b"", raw)[:320]


class SandboxESMTP(ESMTP):
    """One connection. The factory sets C{portal}, C{delivery} and C{callLater}."""

    # Without --crlf, curl uploads a message as one long line.
    MAX_LENGTH = 1024 * 1024
    noisy = False
    timeout = 300
    transport: Any

    def greeting(self) -> bytes:
        return bytes(super().greeting().partition(b" ")[0]) + b" ESMTP mailgate sandbox"

    def extensions(self) -> dict[bytes, list[bytes] | None]:
        found: dict[bytes, list[bytes] | None] = super().extensions()
        return {**found, b"SIZE": [b"%d" % LARGEST_MESSAGE], b"8BITMIME": None, b"PIPELINING": None}

    def lookupMethod(self, command: bytes) -> Any:
        return super().lookupMethod(command) if command.isalpha() else None

    def lineLengthExceeded(self, line: bytes) -> None:
        # twisted.mail would continue, and read the rest of a message as commands.
        self.sendCode(500, b"5.5.2 Line too long")
        self.transport.loseConnection()

    def do_NOOP(self, rest: bytes) -> None:
        """
        Reply to NOOP (RFC 5321, 4.1.1.9), which twisted.mail does not know.

        @param rest: ignored.
        """
        self.sendCode(250, b"OK")

    def do_MAIL(self, rest: bytes) -> None:
        size = re.search(rb" SIZE=([0-9]{1,20})(?: |\Z)", rest, re.IGNORECASE)
        if size is not None and int(size[1]) > LARGEST_MESSAGE:
            self.sendCode(_TOO_LARGE[0], _TOO_LARGE[1].encode("ascii"))
        else:
            super().do_MAIL(rest)

    def do_RCPT(self, rest: bytes) -> None:
        if len(self._to) >= _MOST_RECIPIENTS:
            self.sendCode(452, b"4.5.3 Too many recipients")
        else:
            super().do_RCPT(rest)

    def dataLineReceived(self, line: bytes) -> None:
        super().dataLineReceived(line)
        if self.datafailed is not None and isinstance(self.datafailed.resp, str):
            # twisted.mail needs bytes here, but elsewhere text in the same exception.
            self.datafailed.resp = self.datafailed.resp.encode("ascii")

    state_DATA = dataLineReceived

    def _messageHandled(self, resultList: list[tuple[bool, Any]]) -> None:
        failures = [result for success, result in resultList if not success]
        if failures and all(failure.check(OverQuota) for failure in failures):
            # There is one reply for all recipients. A duplicate message is better than a lost one.
            self.sendCode(_FULL[0], _FULL[1].encode("ascii"))
        else:
            super()._messageHandled(resultList)

    # Logging in.

    def ext_AUTH(self, rest: bytes) -> None:
        if rest:
            super().ext_AUTH(rest)
        else:
            self.sendCode(501, b"5.5.4 A mechanism is missing")

    def state_AUTH(self, response: bytes | None) -> None:
        try:
            super().state_AUTH(b"" if response == b"=" else response)
        except (IllegalClientResponse, ValueError):
            self.mode = COMMAND
            self.challenger = None
            self.sendCode(501, b"5.5.2 Malformed response")
