# -*- test-case-name: mailgate.test.auth.passwdfile.test_passwords -*-
"""
Checks the answers of login methods that prove a password without sending it.
"""

from __future__ import annotations

import hashlib
import hmac

from mailgate.login import Method

__all__ = ["answersChallenge"]


def answersChallenge(method: Method, password: bytes, challenge: bytes, digest: bytes) -> bool:
    """
    Check a client's answer to a challenge.

    @param method: L{Method.CRAM_MD5} (RFC 2195); any other value means APOP (RFC 1939).
    @param password: the account's password; an empty one never matches.
    @param challenge: the challenge that the client got, angle brackets included.
    @param digest: the client's answer, hexadecimal in upper or lower case.
    @return: whether C{digest} was made from C{challenge} and C{password}.
    """
    if method is Method.CRAM_MD5:
        expected = hmac.new(password, challenge, "md5").hexdigest()
    else:
        expected = hashlib.md5(challenge + password, usedforsecurity=False).hexdigest()
    return hmac.compare_digest(expected.encode("ascii"), digest.lower()) and bool(password)
