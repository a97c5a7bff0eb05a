# -*- test-case-name: mailgate.test.auth.passwdfile.test_crypt3 -*-
"""
crypt(3) of the system's C library, called by ctypes. Several threads can compute hashes at the same time, while other
Python threads run; a hash in pure Python would block them. Python's own module C{crypt} can do neither, and was removed
in Python 3.13.

Linux distributions have crypt(3) in libxcrypt's C{libcrypt}, musl and FreeBSD in libraries of their own; macOS has no
usable one. The libraries support different kinds of hashes, so each kind is tested before it is used. The forms of
hashes are described in crypt(5).
"""

from __future__ import annotations

import ctypes
import errno
import hmac
from functools import cache
from typing import Any

__all__ = ["Crypt3", "HashFailed", "loadCrypt3"]

LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2", "libcrypt.so.5", None)
"""
Where to look for crypt(3): under glibc's name, libxcrypt's name without the old interface, FreeBSD's name, and in libc
(musl).
"""

ROOM = 256 * 1024
"""Bytes for C{struct crypt_data}: libxcrypt needs 32,768, glibc's own libcrypt 131,232, others fewer than 300."""

KNOWN = (
    b"$5$rounds=1000$k2XAnEHBqQ1Ct2aM$jgOl0V/Vic8BJZ4wBDLE5hPwrxO8FWvvQqq4b1wm6k0",
    b"$6$rounds=1000$k2XAnEHBqQ1Ct2aM"
    b"$Kusx4StgTAJKgtQ8A1Ud4OEtpvLZ/2wzq/Tix/qeeqdrvuTHgR6KFuCyOP4TNp5lvuV.tmBxpDTp10bqrWJyv1",
    b"$2a$04$D0Ck29t8eOiLe8t3hPkJU.bBrd0PBDpGu5wY98lTBwg5.jV2Elgvq",
    b"$2b$04$D0Ck29t8eOiLe8t3hPkJU.bBrd0PBDpGu5wY98lTBwg5.jV2Elgvq",
    b"$2y$04$D0Ck29t8eOiLe8t3hPkJU.bBrd0PBDpGu5wY98lTBwg5.jV2Elgvq",
    b"$y$j75$k2XAnEHBqQ1Ct2aMXFKNa/$Tg4ZRR7tz/WRlmYbADZh9OJYakPewgSPQqW55EXAJ14",
    b"$gy$j75$k2XAnEHBqQ1Ct2aMXFKNa/$O2VXkrrbK/nrZECj6gzoetucyvBE.tkY7fQCPxGaah8",
    b"$7$66..../....k2XAnEHBqQ1Ct2aM$SKCtfQ946jYUHuXqwA/2M1ygewv095rErWQiJYpgynB",
)
"""A cheap hash of the password "secret" for each supported prefix."""


class HashFailed(Exception):
    """A hash could not be computed. The text is the reason, for the operator, and quotes no secret."""


class Crypt3:
    """
    crypt(3) in one C library. Each call has its own memory, so no lock is needed.

    @param function: C{crypt_rn(phrase, setting, data, size)} or C{crypt_r(phrase, setting, data)}.
    @param takesSize: whether C{function} is C{crypt_rn}.
    """

    def __init__(self, function: Any, takesSize: bool) -> None:
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p] + [ctypes.c_int] * takesSize
        self._function = function
        self._size = (ROOM,) if takesSize else ()
        self._known: dict[bytes, bool] = {}

    def knows(self, prefix: bytes) -> bool:
        """
        Test whether the library computes a kind of hash correctly.

        @param prefix: the prefix of the hash, such as C{$6$}.
        """
        if prefix not in self._known:
            self._known[prefix] = any(self._computes(known) for known in KNOWN if known.startswith(prefix))
        return self._known[prefix]

    def matches(self, stored: bytes, secret: bytes) -> bool:
        """
        Check a password.

        @param stored: the hash.
        @param secret: the password, without NUL.
        @return: whether the password matches.
        @raise HashFailed: the hash cannot be computed.
        """
        area = ctypes.create_string_buffer(ROOM)
        ctypes.set_errno(0)
        try:
            found: bytes | None = self._function(secret, stored, area, *self._size)
            why = ctypes.get_errno()
        finally:
            # Do not leave data derived from the password in freed memory.
            ctypes.memset(area, 0, ROOM)
        if not found or found.startswith(b"*"):
            raise HashFailed(
                "there is not enough memory" if why == errno.ENOMEM else "libcrypt does not accept the hash"
            )
        return hmac.compare_digest(found, stored)

    def _computes(self, known: bytes) -> bool:
        try:
            return self.matches(known, b"secret") and not self.matches(known, b"Secret")
        except HashFailed:
            return False


@cache
def loadCrypt3() -> Crypt3 | None:
    """Return the system's crypt(3), or L{None} if it has none that threads can use."""
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
        for word, takesSize in (("crypt_rn", True), ("crypt_r", False)):
            function = getattr(library, word, None)
            if function is not None:
                return Crypt3(function, takesSize)
    return None
