"""
Tests of L{mailgate.auth.passwdfile.crypt3} with the C library of this system.
"""

from __future__ import annotations

import ctypes
import errno
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.passwdfile.crypt3 import KNOWN, ROOM, Crypt3, HashFailed, loadCrypt3

VECTORS = (
    # U. Drepper, "Unix crypt using SHA-256 and SHA-512"
    (b"Hello world!", b"$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
    (
        b"Hello world!",
        b"$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    # the test vectors of Openwall's crypt_blowfish
    (b"U*U", b"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    # those of the scrypt crypt(3) format, and of yescrypt
    (b"pleaseletmein", b"$7$06..../....SodiumChloride$ENlyo6fGw4PCcDBOFepfSZjFUnVatHzCcW55.ZGz3B0"),
    (b"pleaseletmein", b"$7$C6..../....SodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8D"),
    (b"pleaseletmein", b"$y$jD5.7$LdJMENpBABJJ3hIHjB1Bi.$HboGM6qPrsK.StKYGt6KErmUYtioHreJd98oIugoNB6"),
)


def system() -> Crypt3:
    """Return this system's crypt(3)."""
    found = loadCrypt3()
    assert found is not None, "every system that is tested has one"
    return found


class SystemTests(SynchronousTestCase):
    """The system's own crypt(3)."""

    def test_vectors(self) -> None:
        """The published test vectors of the hashes are computed correctly."""
        for secret, stored in VECTORS:
            self.assertTrue(system().matches(stored, secret), stored)
            self.assertFalse(system().matches(stored, secret + b"x"), stored)
            self.assertFalse(system().matches(stored[:-1] + b"x", secret), stored)

    def test_knows(self) -> None:
        """It supports the kinds of hash that it should, and rejects others."""
        for known in KNOWN:
            self.assertTrue(system().knows(known[: known.index(b"$", 1) + 1]), known)
        for prefix in (b"$1$", b"$zz$", b"x"):
            self.assertFalse(system().knows(prefix))

    def test_refused(self) -> None:
        """A hash that crypt(3) does not accept is not a wrong password."""
        for stored in (b"$y$zzz$salt$" + b"x" * 43, b"*0", b"$6$rounds=9$salt$x", b""):
            error = self.assertRaises(HashFailed, system().matches, stored, b"secret")
            self.assertEqual(str(error), "libcrypt does not accept the hash")

    def test_threads(self) -> None:
        """Several threads can compute hashes at the same time."""
        tasks = [(stored, secret, True) for secret, stored in VECTORS[:4]] + [
            (known, b"secret", True) for known in KNOWN
        ]
        tasks += [(stored, b"wrong" + secret, False) for stored, secret, _ in tasks]
        with ThreadPoolExecutor(3) as threads:
            answers = list(threads.map(lambda task: system().matches(task[0], task[1]), tasks * 10))
        self.assertEqual(answers, [expected for _, _, expected in tasks * 10])

    def test_letsOthersRun(self) -> None:
        """Another thread runs Python code while a hash is computed."""
        # For this time no thread is preempted: the other one runs only if the hash releases the interpreter.
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1000.0)
        ran: list[int] = []

        def run(go: threading.Event) -> None:
            go.wait()
            ran.append(1)

        for _ in range(100):
            go = threading.Event()
            other = threading.Thread(target=run, args=(go,), daemon=True)
            other.start()
            go.set()
            system().matches(VECTORS[4][1], b"pleaseletmein")
            seen = len(ran)
            other.join()
            if seen:
                break
        self.assertTrue(seen)


class FakeLibraryTests(SynchronousTestCase):
    """How the results of the library are used."""

    def fake(self, answer: bytes | None, error: int = 0, takesSize: bool = True) -> Crypt3:
        """Return a library whose function returns C{answer} and sets C{errno} to C{error}."""
        self.calls: list[tuple[Any, ...]] = []

        def function(secret: bytes, setting: bytes, area: Any, *size: int) -> bytes | None:
            self.calls.append((secret, setting, area, *size))
            self.assertEqual(bytes(area), bytes(ROOM))
            area[:6] = b"secret"
            ctypes.set_errno(error)
            return answer

        return Crypt3(function, takesSize)

    def test_call(self) -> None:
        """The function gets a zeroed area, and its size if it takes one. What it writes there is erased."""
        for takesSize, more in ((True, (ROOM,)), (False, ())):
            self.assertTrue(self.fake(b"$6$x", takesSize=takesSize).matches(b"$6$x", b"secret"))
            ((secret, setting, area, *size),) = self.calls
            self.assertEqual((secret, setting, tuple(size)), (b"secret", b"$6$x", more))
            self.assertEqual(bytes(area), bytes(ROOM))

    def test_failures(self) -> None:
        """A missing result and failure tokens are failures; errno with a result is not."""
        for answer in (None, b"", b"*0", b"*1"):
            error = self.assertRaises(HashFailed, self.fake(answer, errno.EINVAL).matches, b"$6$x", b"secret")
            self.assertEqual(str(error), "libcrypt does not accept the hash")
            error = self.assertRaises(HashFailed, self.fake(answer, errno.ENOMEM).matches, b"$6$x", b"secret")
            self.assertEqual(str(error), "there is not enough memory")
        self.assertRaises(HashFailed, self.fake(b"*0").matches, b"*0", b"secret")
        self.assertTrue(self.fake(b"$6$x", errno.ENOMEM).matches(b"$6$x", b"secret"))

    def test_untrue(self) -> None:
        """A library that accepts every password, or none, or fails, supports nothing."""
        for answer in (KNOWN[1], b"$6$other", None):
            fake = self.fake(answer)
            self.assertFalse(fake.knows(b"$6$"))
            count = len(self.calls)
            self.assertFalse(fake.knows(b"$6$"))
            self.assertEqual(len(self.calls), count, "it is tried once")

    def load(self, libraries: dict[str | None, dict[str, Any]]) -> Crypt3 | None:
        """Return what is found if only C{libraries} exist, by name."""

        class Library:
            def __init__(self, name: str | None, use_errno: bool) -> None:
                if name not in libraries:
                    raise OSError("cannot open shared object file")
                self.__dict__.update(libraries[name])

        self.patch(ctypes, "CDLL", Library)
        return loadCrypt3.__wrapped__()

    def test_load(self) -> None:
        """The function that takes a size is preferred within a library; there may be none."""

        def crypt_rn(secret: bytes, setting: bytes, area: Any, *size: int) -> bytes:
            return b"rn"

        def crypt_r(secret: bytes, setting: bytes, area: Any, *size: int) -> bytes:
            return b"r"

        both = {"crypt_rn": crypt_rn, "crypt_r": crypt_r}
        cases: list[tuple[dict[str | None, dict[str, Any]], bytes]] = [
            ({"libcrypt.so.1": both, None: {}}, b"rn"),
            ({"libcrypt.so.2": both, None: {}}, b"rn"),
            ({"libcrypt.so.1": {"crypt_r": crypt_r}, None: {}}, b"r"),
            ({None: {"crypt_r": crypt_r}}, b"r"),
        ]
        for libraries, expected in cases:
            found = self.load(libraries)
            assert found is not None
            self.assertTrue(found.matches(expected, b"secret"))
        self.assertIsNone(self.load({None: {}}))
        self.assertIsNone(self.load({}))
