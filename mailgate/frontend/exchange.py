# -*- test-case-name: mailgate.test.frontend.test_exchange -*-
"""
One SASL exchange (RFC 4422) with a client, the same for every protocol. Challenges and responses are in base64 here.
The protocols frame them on the wire; L{mailgate.frontend.mechanisms} interprets the decoded bytes.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Container

from mailgate.frontend.mechanisms import (
    MECHANISMS,
    Cancelled,
    InvalidResponse,
    InvalidToken,
    Mechanism,
    NotBase64,
    decodeBase64,
)
from mailgate.login import Credentials, Denial, Method

__all__ = ["Exchange", "Step", "beginning", "complaining", "explaining"]

Step = bytes | Credentials | Denial | InvalidResponse
"""
The next step: a challenge in base64. At the end: the client's credentials; the refusal whose explanation the client has
acknowledged; or the error in the client's response.
"""

OFF = "off"
"""The C{oauth_error_status} without an error."""

_REFUSED = {
    Method.XOAUTH2: b'{"status":"%(status)b","schemes":"bearer","scope":"mail"}',
    Method.OAUTHBEARER: b'{"status":"invalid_token"}',
}
"""
The errors of refused tokens: that of Google and Dovecot, and that of RFC 7628, section 3.2.2, whose status is a
registered word.
"""

_INVALID = b'{"status":"invalid_request"}'
"""The error of an invalid message of OAUTHBEARER."""


class Exchange:
    """
    The gateway's side of one SASL exchange. Call L{begin} once, then L{respond} for each response of the client to a
    challenge.

    @ivar name: the mechanism's name.
    """

    __slots__ = ("_mechanism", "name")

    last: Step | None = None
    """
    The end of the exchange if any response of the client, or none, leads to it; L{None} if the response matters.
    """

    def __init__(self, name: str, mechanism: Mechanism) -> None:
        """
        @param name: the mechanism's name.
        @param mechanism: the state of the exchange.
        """
        self.name = name
        self._mechanism = mechanism

    def begin(self, initial: bytes | None = None) -> Step:
        """
        Begin the exchange.

        @param initial: the client's initial response in base64, or L{None}.
        """
        try:
            return _encoded(self._mechanism.start(None if initial is None else decodeBase64(initial)))
        except InvalidResponse as error:
            return error

    def respond(self, word: bytes) -> Step | None:
        """
        Continue the exchange. An error, L{Cancelled} included, is returned, not raised.

        @param word: the client's response in base64; C{*} cancels the exchange (RFC 4422, section 3.5).
        """
        try:
            if word == b"*":
                raise Cancelled('cancellation ("*")')
            return _encoded(self._mechanism.respond(decodeBase64(word)))
        except InvalidResponse as error:
            return error


class _Explanation(Exchange):
    """
    The last challenge of a refused OAuth exchange: it has the error for the client. Any response acknowledges it (RFC
    7628, section 3.2.3).
    """

    __slots__ = ("_error", "last")

    last: Step

    def __init__(self, name: str, error: bytes, last: Step) -> None:
        """
        @param name: the mechanism's name.
        @param error: the error in base64.
        @param last: the refusal that follows.
        """
        self.name = name
        self._error = error
        self.last = last

    def begin(self, initial: bytes | None = None) -> Step:
        return self._error

    def respond(self, word: bytes) -> Step:
        return self.last


def beginning(name: bytes, taken: Container[bytes], makeSalt: Callable[[], bytes]) -> Exchange | None:
    """
    Return a new exchange, or L{None} if the mechanism is not offered.

    @param name: the mechanism's name as the client wrote it.
    @param taken: the names of the accepted mechanisms, in capitals.
    @param makeSalt: returns the challenge for CRAM-MD5.
    """
    name = name.upper()
    make = MECHANISMS.get(name)
    return None if make is None or name not in taken else Exchange(name.decode("ascii"), make(makeSalt))


def explaining(method: Method, denial: Denial, status: str = OFF) -> Exchange | None:
    """
    Return the exchange that sends the client the OAuth error of a refusal, or L{None} if there is none to send. A
    temporary failure has none: clients would discard a valid token.

    @param method: the method of the refused login; only OAuth's methods can carry an error.
    @param denial: the refusal, perhaps with a C{challenge} to be sent in the place of the gateway's own error.
    @param status: the status of the gateway's own error for XOAUTH2; C{off} for no error of its own.
    """
    if not (method.isOAuth and denial.refusesCredentials):
        return None
    error = _given(denial.challenge or b"")
    if not error and status != OFF:
        error = b64encode(_REFUSED[method] % {b"status": status.encode("ascii")})
    return _Explanation(method.value, error, denial) if error else None


def complaining(error: InvalidToken) -> Exchange:
    """
    Return the exchange that sends the client the OAuth error of an invalid message.

    @param error: the error.
    """
    return _Explanation("OAUTHBEARER", b64encode(_INVALID), error)


def _given(challenge: bytes) -> bytes:
    """Return C{challenge} as canonical base64; empty if it is none."""
    try:
        return b64encode(decodeBase64(challenge))
    except NotBase64:
        return b""


def _encoded(step: bytes | Credentials) -> Step:
    return b64encode(step) if isinstance(step, bytes) else step
