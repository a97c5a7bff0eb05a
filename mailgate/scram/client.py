# -*- test-case-name: mailgate.test.scram.test_client -*-
"""
The client's side of one SCRAM exchange, without I/O (RFC 5802).
"""

from __future__ import annotations

import hmac
from base64 import b64encode

from mailgate.login import ScramSecret
from mailgate.scram.messages import ScramError, ServerFirst, parseServerFinal, parseServerFirst, saslName
from mailgate.scram.secrets import proofOf, signatureOf

__all__ = ["ScramClient"]


class ScramClient:
    """
    Send C{message}, and call L{first}, L{final} and L{verify}, in this order.

    @param user: the user name.
    @param authzid: the authorization identity; empty for none.
    @param nonce: the client's part of the nonce, as printable ASCII without a comma.
    @ivar message: the first message for the server.
    """

    def __init__(self, user: bytes, authzid: bytes, nonce: bytes) -> None:
        self._header = b"n," + (b"a=" + saslName(authzid) if authzid else b"") + b","
        self._bare = b"n=" + saslName(user) + b",r=" + nonce
        self.message = self._header + self._bare
        self._nonce = nonce
        self._challenge = b""
        self._given: ServerFirst | None = None
        self._expected = b""

    def first(self, message: bytes) -> ServerFirst:
        """
        Read the server's first message.

        @param message: the message.
        @return: what the client's secret must have in common with the server's.
        @raise ScramError: it is invalid.
        """
        given = parseServerFirst(message)
        if not (given.nonce.startswith(self._nonce) and len(given.nonce) > len(self._nonce)):
            raise ScramError("the nonce of SCRAM is not that of the exchange")
        self._challenge, self._given = message, given
        return given

    def final(self, secret: ScramSecret) -> bytes:
        """
        Return the last message for the server, with the proof.

        @param secret: the secret, with the client's key.
        """
        assert self._given is not None
        bare = b"c=" + b64encode(self._header) + b",r=" + self._given.nonce
        signed = b",".join((self._bare, self._challenge, bare))
        self._expected = signatureOf(secret, signed)
        return bare + b",p=" + b64encode(proofOf(secret, signed))

    def verify(self, message: bytes) -> bool:
        """
        Check the server's last message.

        @param message: the message.
        @return: whether the server has proven that it knows the secret; false if it reports an error.
        @raise ScramError: the message is invalid, or its signature is wrong.
        """
        signature = parseServerFinal(message)
        if signature is None:
            return False
        if not hmac.compare_digest(signature, self._expected):
            raise ScramError("the server's signature of SCRAM is wrong")
        return True
