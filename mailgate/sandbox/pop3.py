# -*- test-case-name: mailgate.test.sandbox.test_pop3 -*-
"""
The POP3 server of the sandbox (RFC 1939, RFC 2449): twisted.mail's, with corrections for real clients.

Deleted messages are neither counted nor listed. Dots are stuffed at the beginning of every line. Mistakes of a client
get an error reply and do not end the connection. C{CAPA} lists the capabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any, overload

from twisted.internet.defer import Deferred
from twisted.mail.pop3 import POP3, IMailbox, POP3Error
from zope.interface import implementer

from mailgate.sandbox.account import Account

__all__ = ["Maildrop", "SandboxPOP3"]

_MOST_WAITING = 100


@implementer(IMailbox)
class Maildrop:
    """
    The inbox of a user as it was when the session began. L{sync} removes deleted messages. A unique-id is IMAP's
    UIDVALIDITY and UID.

    @param account: the account of the user.
    """

    def __init__(self, account: Account) -> None:
        self._inbox = account.inbox
        self._messages = list(account.inbox.messages)
        self._deleted: set[int] = set()

    @overload
    def listMessages(self, index: None = None) -> list[int]: ...

    @overload
    def listMessages(self, index: int) -> int: ...

    def listMessages(self, index: int | None = None) -> int | list[int]:
        if index is None:
            return [0 if i in self._deleted else len(message.raw) for i, message in enumerate(self._messages)]
        self._demand(index)
        return len(self._messages[index].raw)

    def getMessage(self, index: int) -> BytesIO:
        self._demand(index)
        return BytesIO(self._messages[index].raw)

    def getUidl(self, index: int) -> bytes:
        self._demand(index)
        return b"%d.%d" % (self._inbox.uidValidity, self._messages[index].uid)

    def deleteMessage(self, index: int) -> None:
        self._demand(index)
        self._deleted.add(index)

    def undeleteMessages(self) -> None:
        self._deleted.clear()

    def sync(self) -> None:
        self._inbox.remove([self._messages[index] for index in self._deleted])
        self._deleted.clear()

    def _demand(self, index: int) -> None:
        if not 0 <= index < len(self._messages) or index in self._deleted:
            raise ValueError("no such message")


class SandboxPOP3(POP3):
    """
    One connection. The factory sets C{portal}, C{callLater} and C{schedule}.

    The greeting has no timestamp: twisted.mail's APOP compares text with bytes, and so always fails.
    """

    magic = b"mailgate sandbox ready"
    mbox: Maildrop | None
    transport: Any

    def processCommand(self, command: bytes, *args: bytes) -> Any:
        if self.blocked is not None and len(self.blocked) >= _MOST_WAITING:
            self.transport.loseConnection()
            return None
        try:
            if not command.isalpha() or command.upper() in (b"APOP", b"RPOP", b"AUTH"):
                raise POP3Error
            return super().processCommand(command, *args)
        except (POP3Error, TypeError, ValueError):
            # The reply does not repeat the command, which may be a misplaced password.
            self.failResponse(b"Command unknown, malformed, or not possible now")
            return None

    def do_USER(self, user: bytes) -> None:
        if self.mbox is not None:
            raise POP3Error
        super().do_USER(user)

    def listCapabilities(self) -> list[bytes]:
        return [b"TOP", b"USER", b"UIDL", b"PIPELINING", b"RESP-CODES"]

    def do_STAT(self) -> None:
        sizes = self._remaining()
        self.successResponse(b"%d %d" % (len(sizes), sum(size for _, size in sizes)))

    def do_LIST(self, i: bytes | None = None) -> None:
        self._list(i, lambda index, size: b"%d" % size)

    def do_UIDL(self, i: bytes | None = None) -> None:
        assert self.mbox is not None  # processCommand refuses this command before the login
        maildrop = self.mbox
        self._list(i, lambda index, size: maildrop.getUidl(index))

    def _remaining(self) -> list[tuple[int, int]]:
        assert self.mbox is not None
        return [(index, size) for index, size in enumerate(self.mbox.listMessages()) if size]

    def _list(self, number: bytes | None, tell: Callable[[int, int], bytes]) -> None:
        sizes = self._remaining()
        if number is not None:
            (line,) = [b"%d %b" % (i + 1, tell(i, size)) for i, size in sizes if i + 1 == int(number)]
            self.successResponse(line)
            return
        self.successResponse(b"%d messages" % len(sizes))
        for index, size in sizes:
            self.sendLine(b"%d %b" % (index + 1, tell(index, size)))
        self.sendLine(b".")

    def do_TOP(self, i: bytes, size: bytes) -> Deferred[Any]:
        count = int(size)
        if count < 0:
            raise ValueError(size)
        return self._send(i, lambda content: _top(content, count))

    def do_RETR(self, i: bytes) -> Deferred[Any]:
        return self._send(i, lambda content: content)

    def _send(self, number: bytes, choose: Callable[[bytes], bytes]) -> Deferred[Any]:
        def stuffed(file: BytesIO) -> BytesIO:
            content = choose(file.read())
            # Stuff the whole content at once: twisted.mail would miss a dot at the beginning of a chunk.
            return BytesIO((b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:])

        int(number)
        sent: Deferred[Any] = self._sendMessageContent(number, stuffed, lambda length: b"%d octets" % length)
        return sent

    def transformChunk(self, chunk: bytes) -> bytes:
        return chunk


def _top(content: bytes, count: int) -> bytes:
    header, divider, body = content.partition(b"\r\n\r\n")
    return header + divider + b"".join(body.splitlines(keepends=True)[:count])
