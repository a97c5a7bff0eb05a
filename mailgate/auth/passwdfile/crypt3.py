# -*- test-case-name: mailgate.test.auth.passwdfile.test_crypt3 -*-
"""
crypt(3) of the system's C library, by ctypes. It lets other Python threads run meanwhile, which a hash in Python does
not, and several threads may call it at once. Python's own module C{crypt} does neither, and is gone from 3.13 on.

Linux distributions have it in libxcrypt's C{libcrypt}, musl and FreeBSD in their own libraries; macOS has nothing of
use. The kinds of hash that it knows differ, and so each is tried before it is used. The forms are those of crypt(5).
"""

from __future__ import annotations

import ctypes
import errno
import hmac
from functools import cache
from typing import Any

__all__ = ["Crypt3", "HashFailed", "loadCrypt3"]

LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2", "libcrypt.so.5", None)
"""Where crypt(3) may be: by glibc's name, by libxcrypt's without the old interface, by FreeBSD's, in libc (musl)."""

ROOM = 256 * 1024
"""Bytes of C{struct crypt_data}: libxcrypt's has 32,768, glibc's own 131,232, others' fewer than 300."""

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
"""A cheap hash of the password "secret" for each prefix that is asked for."""


class HashFailed(Exception):
    """A hash could not be computed. The message tells the operator why, and quotes nothing of it."""


class Crypt3:
    """
    One C library's C{function}, which is C{crypt_rn(phrase, setting, data, size)} where it C{takesSize}, and otherwise
    C{crypt_r(phrase, setting, data)}. It has an area of memory of its own for each call, and so needs no lock.
    """

    def __init__(self, function: Any, takesSize: bool) -> None:
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p] + [ctypes.c_int] * takesSize
        self._function = function
        self._size = (ROOM,) if takesSize else ()
        self._known: dict[bytes, bool] = {}

    def knows(self, prefix: bytes) -> bool:
        """Whether hashes that begin with C{prefix}, such as C{$6$}, are computed here, and computed right."""
        if prefix not in self._known:
            self._known[prefix] = any(self._computes(known) for known in KNOWN if known.startswith(prefix))
        return self._known[prefix]

    def matches(self, stored: bytes, secret: bytes) -> bool:
        """
        Whether C{secret}, which holds no NUL, has the hash C{stored}.

        @raise HashFailed: it cannot be found out.
        """
        area = ctypes.create_string_buffer(ROOM)
        ctypes.set_errno(0)
        try:
            found: bytes | None = self._function(secret, stored, area, *self._size)
            why = ctypes.get_errno()
        finally:
            # What was derived from the password should not lie in freed memory.
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
    """This system's; L{None} where it has none that threads may call."""
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
