# -*- test-case-name: mailgate.test.sandbox.test_imap4 -*-
"""
The IMAP4rev1 server of the sandbox (RFC 3501, RFC 2177, RFC 4315): twisted.mail's, with corrections for real clients.

SELECT returns UIDNEXT, UNSEEN and PERMANENTFLAGS. Sections, partial FETCH and headers come from the original bytes of
the message. Reading a message marks it as seen. APPEND returns EXISTS only for the selected mailbox. Sessions learn of
messages that other sessions expunge. Quoted strings may contain escapes. Mistakes of a client get an error reply, and
are not logged. UIDPLUS saves clients from guessing the UIDs of their messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.mail.imap4 import (
    FileProducer,
    IllegalClientResponse,
    IllegalQueryError,
    IMAP4Server,
    MailboxException,
    MessageSet,
    collapseNestedLists,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.sandbox.mailbox import FolderView, IExpungeListener
from mailgate.sandbox.message import LARGEST_MESSAGE, Message, Part
from mailgate.sandbox.structure import bodyStructure, envelope

__all__ = ["SandboxIMAP4"]

_QUOTED = re.compile(rb'"((?:[^"\\]|\\["\\])*)"(?: |\Z)')
_CHARSETS = (b"US-ASCII", b"UTF-8")


def section(message: Part, numbers: Iterable[int]) -> Part:
    """
    Find a part of a message (RFC 3501, 6.4.5).

    @param message: the message.
    @param numbers: the numbers of nested parts, from 0, outermost first.
    @raise IndexError: there is no such part.
    """
    part = message
    for depth, number in enumerate(numbers):
        if depth and part.parts and not part.isMultipart():
            part = part.parts[0]  # an enclosed message: the number counts its parts
        if part.isMultipart():
            part = part.parts[number]
        elif number:
            raise IndexError(number)
    return part


def sectionBytes(message: Part, wanted: Any) -> bytes:
    """
    The bytes of a body section.

    @param message: the message.
    @param wanted: the section, as twisted.mail has parsed it.
    @return: the bytes; empty if there is no such part.
    """
    try:
        part = section(message, wanted.part)
    except IndexError:
        return b""
    if wanted.part and (wanted.header or wanted.text):
        if part.isMultipart() or not part.parts:
            return b""  # only an enclosed message has HEADER and TEXT
        part = part.parts[0]
    if wanted.header:
        if not wanted.header.fields:
            return part.header
        names = {name.strip(b'"').decode("ascii", "replace").lower() for name in wanted.header.fields}
        return part.headerBytes(bool(wanted.header.negate), names)
    if wanted.mime:
        return part.header
    return part.body if wanted.text or wanted.part else part.raw


def _sectionName(wanted: Any) -> bytes:
    """The name of the section C{wanted} in a response. Field names keep their case: mbsync needs X-TUID in capitals."""
    words = [b"%d" % (number + 1) for number in wanted.part]
    if wanted.header:
        fields = wanted.header.fields
        negated = b".NOT" if wanted.header.negate else b""
        words.append(b"HEADER.FIELDS" + negated + b" (" + b" ".join(fields) + b")" if fields else b"HEADER")
    elif wanted.text or wanted.mime:
        words.append(b"TEXT" if wanted.text else b"MIME")
    start = b"" if wanted.partialBegin is None else b"<%d>" % wanted.partialBegin
    return b"BODY[" + b".".join(words) + b"]" + start


def _uids(messages: Iterable[Message]) -> bytes:
    return b",".join(b"%d" % message.uid for message in messages)


def _moment(text: bytes | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text.decode("ascii").strip())
    except (TypeError, ValueError):
        raise IllegalClientResponse("Malformed date-time") from None
    if moment.tzinfo is None:
        raise IllegalClientResponse("A date-time has a zone")
    return moment


def _astring(server: SandboxIMAP4, line: bytes, final: bool = False) -> Any:
    line = line.strip()
    if not line.startswith(b'"'):
        return IMAP4Server.arg_astring(server, line, final)
    match = _QUOTED.match(line)
    if match is None:
        raise IllegalClientResponse("Malformed quoted string")
    return re.sub(rb"\\(.)", rb"\1", match[1]), line[match.end() :]


def _literal(server: SandboxIMAP4, line: bytes) -> Any:
    match = re.fullmatch(rb"\{([0-9]{1,12})\}", line)
    if match is None or not 0 < int(match[1]) <= LARGEST_MESSAGE:
        raise IllegalClientResponse(f"A message is a literal of 1 to {LARGEST_MESSAGE} bytes")
    return IMAP4Server.arg_literal(server, line)


def _refusing(parse: Callable[[Any, bytes], Any]) -> Callable[[Any, bytes], Any]:
    """
    Wrap a parser so that each failure counts as a mistake of the client: twisted.mail's parsers raise bare exceptions,
    and fail if an argument is missing.
    """

    def refusing(server: SandboxIMAP4, line: bytes) -> Any:
        try:
            return parse(server, line)
        except IllegalClientResponse:
            raise
        except Exception:
            raise IllegalClientResponse("Malformed argument") from None

    return refusing


_MENDED: dict[Any, Any] = {
    IMAP4Server.arg_astring: _astring,
    IMAP4Server.arg_finalastring: partial(_astring, final=True),
    IMAP4Server.arg_literal: _literal,
}
_sequenceSet = _refusing(IMAP4Server.arg_seqset)


@implementer(IExpungeListener)
class SandboxIMAP4(IMAP4Server):
    """One connection. The factory sets C{portal} and C{callLater}; C{scheduler} is that of a cooperator."""

    IDENT = b"mailgate sandbox ready"
    mbox: FolderView | None

    def capabilities(self) -> dict[bytes, list[bytes] | None]:
        return {**super().capabilities(), b"UIDPLUS": None}

    def lookupCommand(self, cmd: bytes) -> Any:
        if not cmd.isalpha():
            return None
        command = super().lookupCommand(cmd)
        if command is None:
            return None
        perform, *parsers = command
        return (perform, *(_refusing(_MENDED.get(parse, parse)) if callable(parse) else parse for parse in parsers))

    def _respond(self, state: bytes, tag: bytes | None, message: bytes | str) -> None:
        # Some of twisted.mail's refusals are text, and some repeat bytes of the client.
        if isinstance(message, str):
            message = message.encode("ascii", "replace")
        if state in (b"NO", b"BAD"):
            message = re.sub(rb"[\x00-\x1f\x7f-\xff]", b"?", message)
        super()._respond(state, tag, message)

    def sendContinuationRequest(self, msg: bytes | None = b"Ready for additional command text") -> None:
        # IDLE passes no message, and twisted.mail then omits the blank that RFC 3501 requires.
        self.sendLine(b"+ " + (b"idling" if msg is None else msg))

    # Selecting.

    def _cbSelectWork(self, mbox: FolderView | None, cmdName: bytes, tag: bytes) -> None:
        if mbox is None:
            self.sendNegativeResponse(tag, b"No such mailbox")
            return
        flags = " ".join(mbox.getFlags()).encode("ascii")
        self.sendUntaggedResponse(b"FLAGS (" + flags + b")")
        self.sendUntaggedResponse(b"%d EXISTS" % mbox.getMessageCount())
        self.sendUntaggedResponse(b"%d RECENT" % mbox.getRecentCount())
        unseen = [n for n, message in enumerate(mbox.messages, 1) if "\\Seen" not in message.flags]
        if unseen:
            self.sendPositiveResponse(None, b"[UNSEEN %d] First unseen" % unseen[0])
        permanent = flags + b" \\*" if mbox.isWriteable() else b""
        self.sendPositiveResponse(None, b"[PERMANENTFLAGS (" + permanent + b")] Kept")
        self.sendPositiveResponse(None, b"[UIDVALIDITY %d] UIDs valid" % mbox.getUIDValidity())
        self.sendPositiveResponse(None, b"[UIDNEXT %d] Predicted next UID" % mbox.getUIDNext())
        mbox.addListener(self)
        self.mbox = mbox
        self.state = "select"
        mode = b"[READ-WRITE] " if mbox.isWriteable() else b"[READ-ONLY] "
        self.sendPositiveResponse(tag, mode + cmdName + b" successful")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.mbox is not None:
            self.mbox.removeListener(self)
            self.mbox = None
        super().connectionLost(reason)

    def _cbStatusGotMailbox(self, mbox: FolderView | None, tag: bytes, mailbox: str, names: list[str]) -> None:
        if mbox is None:
            self.sendNegativeResponse(tag, b"No such mailbox")
            return
        try:
            status = mbox.requestStatus(names)
        except KeyError:
            self.sendBadResponse(tag, b"Unknown status item")
            return
        quoted = collapseNestedLists([mailbox.encode("imap4-utf-7")])
        items = " ".join(f"{name} {value}" for name, value in status.items())
        self.sendUntaggedResponse(b"STATUS " + quoted + b" (" + items.encode("ascii") + b")")
        self.sendPositiveResponse(tag, b"STATUS completed")

    # Changes by other sessions.

    def messagesGone(self) -> None:
        if self.parseState == "idle":
            self._tellExpunged()

    def _tellExpunged(self) -> None:
        for number in self.mbox.takeExpunged() if self.mbox is not None else ():
            self.sendUntaggedResponse(b"%d EXPUNGE" % number)

    def do_NOOP(self, tag: bytes) -> None:
        self._tellExpunged()
        super().do_NOOP(tag)

    def do_IDLE(self, tag: bytes) -> None:
        super().do_IDLE(tag)
        self._tellExpunged()

    select_NOOP: Any = (do_NOOP,)
    select_IDLE: Any = (do_IDLE,)

    # Changing.

    def _cbAppendGotMailbox(
        self, mbox: FolderView | None, tag: bytes, flags: list[bytes] | None, date: bytes | None, message: BytesIO
    ) -> None:
        if mbox is None:
            self.sendNegativeResponse(tag, b"[TRYCREATE] No such mailbox")
            return
        try:
            moment = _moment(date)
        except IllegalClientResponse as refusal:
            self.sendBadResponse(tag, str(refusal).encode("ascii"))
            return
        given = [flag.decode("ascii", "replace") for flag in flags or ()]
        added = mbox.addMessage(message, given, moment)
        validity = mbox.getUIDValidity()
        added.addCallback(
            lambda uid: self.sendPositiveResponse(tag, b"[APPENDUID %d %d] APPEND completed" % (validity, uid))
        )
        added.addErrback(self._refused, tag)

    def _refused(self, failure: Any, tag: bytes) -> None:
        failure.trap(MailboxException)
        self.sendNegativeResponse(tag, b"[OVERQUOTA] " + str(failure.value).encode("ascii"))

    def _cbCopySelectedMailbox(
        self, mbox: FolderView | None, tag: bytes, messages: MessageSet, mailbox: str, uid: bool
    ) -> None:
        if mbox is None or self.mbox is None:
            self.sendNegativeResponse(tag, b"[TRYCREATE] No such mailbox")
            return
        try:
            originals = [message for _, message in self.mbox.fetch(messages, uid)]
            copies = mbox.folder.copy(originals)
        except MailboxException as refusal:
            self.sendNegativeResponse(tag, b"[OVERQUOTA] " + str(refusal).encode("ascii"))
            return
        code = b"[COPYUID %d %b %b] " % (mbox.getUIDValidity(), _uids(originals), _uids(copies)) if copies else b""
        self.sendPositiveResponse(tag, code + b"COPY completed")

    def do_UID(self, tag: bytes, command: bytes, line: bytes) -> None:
        if command.upper() != b"EXPUNGE":
            super().do_UID(tag, command, line)
        elif self.mbox is None or not self.mbox.isWriteable():
            self.sendNegativeResponse(tag, b"The mailbox was opened to be read only")
        else:
            uids, _ = _sequenceSet(self, line)
            for number in self.mbox.expunge(uids):
                self.sendUntaggedResponse(b"%d EXPUNGE" % number)
            self.sendPositiveResponse(tag, b"UID EXPUNGE completed")

    select_UID: Any = (do_UID, *IMAP4Server.select_UID[1:])

    def do_STORE(self, tag: bytes, messages: MessageSet, mode: bytes, flags: list[bytes], uid: int = 0) -> None:
        if self.mbox is None or not self.mbox.isWriteable():
            self.sendNegativeResponse(tag, b"The mailbox was opened to be read only")
        elif not re.fullmatch(rb"[+-]?FLAGS(\.SILENT)?", mode.upper()):
            self.sendBadResponse(tag, b"Unknown data item")
        else:
            super().do_STORE(tag, messages, mode, flags, uid)

    select_STORE: Any = (do_STORE, *IMAP4Server.select_STORE[1:])

    # Reading.

    def do_SEARCH(self, tag: bytes, charset: bytes | None, query: list[Any], uid: int = 0) -> None:
        if charset is not None and charset.upper().strip(b'"') not in _CHARSETS:
            self.sendNegativeResponse(tag, b"[BADCHARSET (" + b" ".join(_CHARSETS) + b")] Unknown charset")
            return
        mbox = self.mbox
        try:
            found = mbox.search(query, bool(uid)) if mbox is not None else []
        except IllegalQueryError as refusal:
            self.sendBadResponse(tag, str(refusal).encode("ascii", "replace"))
            return
        numbers = [mbox.getUID(number) if uid and mbox else number for number in found]
        self.sendUntaggedResponse(b" ".join([b"SEARCH", *(b"%d" % number for number in numbers)]))
        self.sendPositiveResponse(tag, b"SEARCH completed")

    select_SEARCH: Any = (do_SEARCH, *IMAP4Server.select_SEARCH[1:])

    def spewMessage(self, id: int, msg: Message, query: list[Any], uid: int) -> Deferred[Any]:
        reads = any(
            item.type in ("rfc822", "rfc822text")
            or (item.type == "body" and not item.peek and (item.header or item.text or item.mime or item.empty))
            for item in query
        )
        if reads and self.mbox is not None:
            self.mbox.see(msg)
        written: Deferred[Any] = super().spewMessage(id, msg, query, uid)
        return written

    def spew_envelope(self, id: int, msg: Message, _w: Any = None, _f: Any = None) -> None:
        _w(b"ENVELOPE " + collapseNestedLists([envelope(msg)]))

    def spew_bodystructure(self, id: int, msg: Message, _w: Any = None, _f: Any = None) -> None:
        _w(b"BODYSTRUCTURE " + collapseNestedLists([bodyStructure(msg, True)]))

    def spew_rfc822header(self, id: int, msg: Message, _w: Any = None, _f: Any = None) -> None:
        _w(b"RFC822.HEADER {%d}\r\n" % len(msg.header) + msg.header)

    def spew_body(self, part: Any, id: int, msg: Message, _w: Any = None, _f: Any = None) -> Deferred[Any] | None:
        if not (part.header or part.text or part.mime or part.empty):
            _w(b"BODY " + collapseNestedLists([bodyStructure(msg, False)]))
            return None
        content = sectionBytes(msg, part)
        if part.partialBegin is not None:
            content = content[part.partialBegin : part.partialBegin + part.partialLength]
        _w(_sectionName(part) + b" ")
        _f()
        written: Deferred[Any] = FileProducer(BytesIO(content)).beginProducing(self.transport)
        return written
