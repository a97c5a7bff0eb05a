# -*- test-case-name: mailgate.test.auth.passwdfile.test_passwords -*-
"""
The login methods by which a client shows that it knows a password without sending it.
"""

from __future__ import annotations

import hashlib
import hmac

from mailgate.login import Method

__all__ = ["answersChallenge"]


def answersChallenge(method: Method, password: bytes, challenge: bytes, digest: bytes) -> bool:
    """
    Whether C{digest}, hexadecimal in any case, is what CRAM-MD5 (RFC 2195), or else APOP (RFC 1939), makes of
    C{challenge} and C{password}. Never, where that is empty.
    """
    if method is Method.CRAM_MD5:
        expected = hmac.new(password, challenge, "md5").hexdigest()
    else:
        expected = hashlib.md5(challenge + password, usedforsecurity=False).hexdigest()
    return hmac.compare_digest(expected.encode("ascii"), digest.lower()) and bool(password)
