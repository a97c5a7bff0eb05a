# -*- test-case-name: mailgate.test.keeper.admin.test_channel -*-
"""
One request to the admin server, and how its answer is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web import http

from mailgate.keeper.admin.asked import Asked
from mailgate.keeper.admin.replies import SECURITY, Reply

if TYPE_CHECKING:
    from mailgate.keeper.admin.channel import AdminChannel

__all__ = ["AdminRequest", "fieldsOf"]


class AdminRequest(http.Request):
    """One request. The factory of the channel answers it."""

    channel: Any

    def parseCookies(self) -> None:
        """Ignore cookies: nothing here uses them."""

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        # The method of twisted.web also parses forms in the body.
        assert self.content is not None
        self.content.seek(0)
        self.method, self.uri, self.clientproto, self.path = command, path, version, path
        self.process()

    def process(self) -> None:
        """Ask the factory, and send its answer."""
        channel: AdminChannel = self.channel
        assert self.content is not None
        asked = Asked(self.method, self.uri, self.requestHeaders, self.content.read(), channel.peer())
        # The client may leave meanwhile.
        answered = channel.factory.answer(asked)
        self.notifyFinish().addErrback(lambda _: answered.cancel())
        answered.addCallbacks(self._answered, self._failed)

    def _failed(self, failure: Failure) -> None:
        failure.trap(CancelledError)

    def _answered(self, reply: Reply) -> None:
        if self._disconnected:
            return
        channel: AdminChannel = self.channel
        if reply.delay:
            channel.isPenalized = True
            waiting = channel.clock.callLater(reply.delay, self.send, reply)
            self.notifyFinish().addErrback(lambda _: waiting.cancel())
        else:
            self.send(reply)

    def send(self, reply: Reply) -> None:
        """
        Send an answer, and end the request.

        @param reply: the answer.
        """
        self.setResponseCode(reply.status)
        for name, value in fieldsOf(reply):
            self.responseHeaders.addRawHeader(name, value)
        if reply.closes:
            self.channel.persistent = 0
            self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        if reply.stream is not None and self.method != b"HEAD":
            self._begin(reply.stream)
            return
        self.write(reply.body)
        self.finish()

    def _begin(self, stream: Callable[[Any], Any]) -> None:
        """Send an answer that goes on."""
        channel: AdminChannel = self.channel
        _bufferless(channel.transport)
        self.write(b"")
        viewer = stream(self)
        # It may have ended already.
        if not (self._disconnected or self.finished):
            channel.factory.streaming(channel, viewer.end)
            self.notifyFinish().addBoth(lambda _: viewer.left())

    def end(self) -> None:
        """End an answer that goes on, and close the connection."""
        if not (self._disconnected or self.finished):
            self.unregisterProducer()
            self.finish()

    def drop(self) -> None:
        """Close the connection now."""
        if not self._disconnected:
            self.channel.abort()


def _bufferless(transport: Any) -> None:
    """Let the transport pause its producer as soon as the system does not take all that is sent."""
    while (inner := getattr(transport, "transport", None)) is not None:
        transport = inner
    if hasattr(transport, "bufferSize"):
        transport.bufferSize = 0


def fieldsOf(reply: Reply) -> list[tuple[bytes, bytes]]:
    """
    Return the header fields of an answer.

    @param reply: the answer.
    """
    own = {name for name, _ in reply.headers}
    # Of an answer without content it would be the length that the content has (RFC 9110, section 8.6).
    hasNone = reply.stream is not None or reply.status == http.NOT_MODIFIED
    length = [] if hasNone else [(b"Content-Length", b"%d" % len(reply.body))]
    return [
        (b"Date", http.datetimeToString()),
        (b"Content-Type", reply.kind),
        *length,
        *(each for each in SECURITY if each[0] not in own),
        *reply.headers,
    ]
