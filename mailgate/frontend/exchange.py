# -*- test-case-name: mailgate.test.frontend.test_exchange -*-
"""
One exchange of SASL (RFC 4422) with a client, the same for every protocol: words in base64 that come and go. How they
stand on the wire the protocols know, what the mechanisms make of them L{mailgate.frontend.mechanisms}.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Container

from mailgate.frontend.mechanisms import MECHANISMS, Cancelled, InvalidResponse, Mechanism, RefusedOAuth, decodeBase64
from mailgate.login import Credentials, Denial, Method

__all__ = ["Exchange", "Step", "beginning", "explaining"]

Step = bytes | Credentials | Denial | InvalidResponse
"""
What comes next: a challenge in base64; or, at the end, what the client wants to log in with, the refusal that it has
taken note of, or what was wrong with its response.
"""


class Exchange:
    """
    An exchange, which L{begin} begins, and which goes on with L{respond} as long as these return a challenge.

    @ivar name: the mechanism's.
    """

    __slots__ = ("_mechanism", "name")

    def __init__(self, name: str, mechanism: Mechanism) -> None:
        self.name = name
        self._mechanism = mechanism

    def begin(self, initial: bytes | None = None) -> Step:
        """
        Begin.

        @param initial: the client's initial response in base64, if there is one.
        """
        try:
            return _worded(self._mechanism.start(None if initial is None else decodeBase64(initial)))
        except InvalidResponse as error:
            return error

    def respond(self, word: bytes) -> Step:
        """
        Go on.

        @param word: the client's answer to the last challenge, in base64; C{*} cancels the exchange.
        """
        try:
            if word == b"*":
                raise Cancelled('cancellation ("*")')
            return _worded(self._mechanism.respond(decodeBase64(word)))
        except InvalidResponse as error:
            return error


class _Explanation(Exchange):
    """The end of an exchange of OAuth that was refused: the client is told why. Any answer takes note of that."""

    __slots__ = ("_refused",)

    def __init__(self, name: str, refused: RefusedOAuth) -> None:
        self.name = name
        self._refused = refused

    def begin(self, initial: bytes | None = None) -> Step:
        return b64encode(self._refused.challenge)

    def respond(self, word: bytes) -> Step:
        return self._refused.denial


def beginning(name: bytes, taken: Container[bytes], makeSalt: Callable[[], bytes]) -> Exchange | None:
    """
    The exchange of the mechanism that a client calls C{name}, or L{None} where that is not one of those C{taken}.

    @param makeSalt: returns the challenge of the mechanisms that digest one.
    """
    name = name.upper()
    make = MECHANISMS.get(name)
    return None if make is None or name not in taken else Exchange(name.decode("ascii"), make(makeSalt))


def explaining(method: Method, denial: Denial) -> Exchange | None:
    """
    The exchange that tells a client the reason that C{denial} has for it, or L{None} where there is none; other
    C{method}s than OAuth's have no room for it.
    """
    if not (denial.challenge and method.isOAuth):
        return None
    try:
        return _Explanation(method.value, RefusedOAuth(denial))
    except InvalidResponse:
        return None


def _worded(step: bytes | Credentials) -> Step:
    return b64encode(step) if isinstance(step, bytes) else step
