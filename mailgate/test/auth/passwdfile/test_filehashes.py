"""
Tests of how L{mailgate.auth.passwdfile.authenticator} computes hashes: in threads, in turn, and not again for a
remembered password.
"""

from __future__ import annotations

import gc
import hmac
from unittest.mock import patch

from attrs import evolve
from twisted.internet.defer import CancelledError

from mailgate.auth.fairqueue import PAUSE
from mailgate.auth.passwdfile import authenticator as passwdfile
from mailgate.auth.passwdfile.authenticator import FileSettings
from mailgate.auth.passwdfile.crypt3 import Crypt3, HashFailed
from mailgate.auth.passwdfile.hashing import PATIENCE
from mailgate.directives import ServerSettings
from mailgate.limits.settings import LimitSettings
from mailgate.limits.values import exempt
from mailgate.log.seldom import PERIOD
from mailgate.login import Backend, Denial, Method, Route, Trouble
from mailgate.system.processors import WorkerSettings
from mailgate.test.support.passwdfiles import DEFAULT, SALT, SALTED, SLOW, AuthenticatorTestCase

BUSY = Denial(Trouble.TEMPORARY, reason="too many logins wait for a password hash")
FULL = evolve(BUSY, wait=PAUSE)
"""The queue is full. The answer comes after a pause, because the client would repeat the login at once."""


class ThreadTests(AuthenticatorTestCase):
    """Slow hashes."""

    def test_inThread(self) -> None:
        """A slow hash is computed in a thread, and the login is answered after that."""
        self.build(b"joe:" + SLOW)
        answer = self.start(b"joe", b"secret")
        self.assertNoResult(answer)
        self.assertEqual(self.reactor.work(), 1)
        self.assertEqual(self.successResultOf(answer), Route((DEFAULT,), b"joe", b"secret"))

    def test_fastNeedsNone(self) -> None:
        """PLAIN, salted digests, CRAM-MD5 and APOP are checked at once."""
        self.build(b"joe:{PLAIN}secret", b"ann:" + SALTED)
        self.successResultOf(self.start(b"joe", b"secret"))
        self.successResultOf(self.start(b"ann", b"secret"))
        self.successResultOf(self.start(b"joe", b"x", Method.CRAM_MD5))
        self.assertEqual(self.reactor.work(), 0)

    def test_unknownUserTakesAsLong(self) -> None:
        """
        Unknown users, locked and invalid lines take a hash of the file's most frequent scheme, like wrong passwords.
        """
        self.build(b"joe:" + SLOW, b"ann:" + SLOW, b"bob:{PLAIN}x", b"off:*", b"bad:{PLAIN}secret::::::port=x")
        for user in (b"ann", b"nobody", b"off", b"bad"):
            answer = self.start(user, b"wrong")
            self.assertNoResult(answer)
            self.assertEqual(self.reactor.work(), 1)
            self.assertTrue(self.refusal(self.successResultOf(answer)))

    def test_decoyLetsNobodyIn(self) -> None:
        """The password of the decoy does not log an unknown user in."""
        for password in (SLOW, SALTED, b"{PLAIN}secret"):
            self.build(b"joe:" + password, b"off:*")
            for user in (b"nobody", b"off", b""):
                self.assertTrue(self.refusal(self.login(user, b"secret")))
        digest = hmac.new(b"secret", SALT, "md5").hexdigest().encode()
        self.assertTrue(self.refusal(self.login(b"off", digest, Method.CRAM_MD5)))
        self.assertTrue(self.refusal(self.login(b"nobody", digest, Method.CRAM_MD5)))

    def test_bounded(self) -> None:
        """Some hashes are computed at a time, some logins wait, and further ones get a temporary failure."""
        self.build(b"joe:" + SLOW)
        answers = [self.start(b"joe", b"wrong") for _ in range(self.mostHashes + 32)]
        self.assertEqual(len(self.reactor.held), self.mostHashes)
        for user in (b"joe", b"nobody"):
            self.assertEqual(self.successResultOf(self.start(user, b"secret")), FULL)
        self.assertEqual(len(self.reactor.held), self.mostHashes)
        for answer in answers:
            self.assertNoResult(answer)
            answer.cancel()
            self.failureResultOf(answer, CancelledError)

    def test_impatient(self) -> None:
        """A login that waits too long gets a temporary failure."""
        self.build(b"joe:" + SLOW)
        answer = self.start(b"joe", b"secret")
        self.reactor.advance(PATIENCE - 0.1)
        self.assertNoResult(answer)
        self.reactor.advance(0.2)
        self.assertEqual(self.successResultOf(answer), BUSY)

    def test_oneWarning(self) -> None:
        """Logins without a hash are counted in one log line per minute."""
        text = "auth_file: too many logins wait for a password hash; logins with a temporary failure: "
        self.build(b"joe:" + SLOW)
        for _ in range(self.mostHashes + 32 + 10):
            self.start(b"joe", b"wrong")
        self.assertEqual(self.logged(), [text + "1"])
        self.reactor.advance(PATIENCE)
        self.assertEqual(self.logged(), [])
        self.reactor.advance(PERIOD - PATIENCE)
        # The threads are still busy, so all further logins wait.
        for _ in range(32 + 2):
            self.start(b"joe", b"wrong")
        self.assertEqual(self.logged(), [text + str(9 + self.mostHashes + 32 + 1)])

    def test_clientLeaves(self) -> None:
        """Cancelling a login ends it at once; the thread's result is dropped."""
        self.build(b"joe:" + SLOW)
        answer = self.start(b"joe", b"secret")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.reactor.work()
        self.assertEqual(self.logged(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_hashFails(self) -> None:
        """A hash that cannot be computed is a temporary failure for its user, and logged once."""
        self.build(b"joe:" + SLOW, b"off:*")
        with patch.object(Crypt3, "matches", side_effect=HashFailed("there is not enough memory")):
            for _ in range(3):
                answer = self.login(b"joe", b"secret")
                self.assertEqual(answer, Denial(Trouble.TEMPORARY, reason="cannot compute the hash of the password"))
            reason = "an account cannot log in: cannot compute the hash of the password: there is not enough memory"
            self.assertEqual(self.logged(), [self.unusable(reason)])
            self.assertEqual(self.refusal(self.login(b"nobody", b"secret")), "unknown user")
            self.assertEqual(self.refusal(self.login(b"off", b"secret")), "locked account")
            self.assertEqual(self.logged(), [])


class FairnessTests(AuthenticatorTestCase):
    """Which login gets the next hash."""

    ATTACKER = "203.0.113.66"

    def attack(self, *users: bytes) -> None:
        """Begin 300 logins from one address, for C{users} in turn."""
        for number in range(300):
            self.start(users[number % len(users)], b"guess %d" % number, host=self.ATTACKER)

    def test_ownerIsNext(self) -> None:
        """While one address keeps 300 logins waiting, the owner's hash is the next to start."""
        for users in ((b"nobody",), (b"joe",), (b"joe", b"nobody", b"ann", b"off")):
            self.build(b"joe:" + SLOW, b"ann:" + SLOW, b"off:*")
            self.attack(*users)
            self.assertEqual(len(self.reactor.held), self.mostHashes)
            owner = self.start(b"joe", b"secret", host="192.0.2.1")
            # Running hashes cannot be stopped: the first one that ends makes room.
            self.reactor.workOnce()
            self.assertNoResult(owner)
            for _ in range(self.mostHashes):
                self.reactor.workOnce()
            self.assertEqual(self.successResultOf(owner), Route((DEFAULT,), b"joe", b"secret"))
            self.reactor.work()

    def test_whileItGoesOn(self) -> None:
        """This also holds if each guess is followed by another one, from the same /64."""
        self.build(b"joe:" + SLOW)
        for round in range(5):
            for number in range(50):
                self.start(b"joe", b"guess", host=f"2001:db8:0:1::{round}:{number}")
            owner = self.start(b"joe", b"secret", host="2001:db8:0:2::1")
            for _ in range(self.mostHashes + 1):
                self.reactor.workOnce()
            self.assertIsInstance(self.successResultOf(owner), Route)

    def test_exempt(self) -> None:
        """Logins from an exempt network take turns by user: an attacked user does not delay others."""
        self.limits = LimitSettings(exempt("198.51.100.0/24", ""))
        self.build(b"joe:" + SLOW, b"ann:" + SLOW)
        for _ in range(100):
            self.start(b"joe", b"guess", host="198.51.100.1")
        ann = self.start(b"ann", b"secret", host="198.51.100.1")
        for _ in range(self.mostHashes + 1):
            self.reactor.workOnce()
        self.assertIsInstance(self.successResultOf(ann), Route)

    def test_allServers(self) -> None:
        """Servers share the places and the turns."""
        self.build(b"joe:" + SLOW)
        for _ in range(4):
            self.build(b"joe:" + SLOW)
            self.start(b"joe", b"guess", host=self.ATTACKER)
        self.assertEqual(len(self.reactor.held), self.mostHashes)

    def test_endsWithServers(self) -> None:
        """The shared object disappears with the last server: a reload leaves nothing behind."""
        gc.collect()
        shared = passwdfile._hashings
        before = len(shared)
        self.build(b"joe:" + SLOW)
        self.login(b"joe", b"secret")
        self.assertEqual(len(shared), before + 1)
        del self.authenticator
        gc.collect()
        self.assertEqual(len(shared), before)

    def test_places(self) -> None:
        """auto leaves one processor free, and divides the others among the workers."""
        for processors, workers, given, expected in (
            (1, 1, 0, 1),
            (2, 1, 0, 1),
            (4, 1, 0, 3),
            (16, 1, 0, 15),
            (16, 4, 0, 3),
            (4, 4, 0, 1),
            (4, 4, 2, 2),
            (4, 1, 7, 7),
        ):
            self.patch(passwdfile, "processors", lambda count=processors: count)
            groups = {FileSettings: FileSettings(self.path, given), WorkerSettings: WorkerSettings(workers)}
            server = ServerSettings("test", "imap", (), groups)
            self.assertEqual(passwdfile._hashingOf(server, self.reactor)._places, expected)

    def test_threads(self) -> None:
        """The reactor gets more threads if name look-ups would otherwise find none, and never fewer."""
        for places, expected in ((1, 10), (4, 10), (5, 11), (64, 70), (2, 70)):
            self.mostHashes = places
            self.build(b"joe:" + SLOW)
            self.login(b"joe", b"secret")
            self.assertEqual(self.reactor.max, expected)


class RememberedTests(AuthenticatorTestCase):
    """Right passwords that need no further hash for some time."""

    cacheTTL = 300.0

    def hashes(self, user: bytes, secret: bytes, host: str = "192.0.2.1") -> int:
        """Return how many hashes a login takes, whatever its result."""
        answer = self.start(user, secret, host=host)
        count = self.reactor.work()
        self.answer = self.successResultOf(answer)
        return count

    def test_once(self) -> None:
        """A second login with the same password takes no hash and gets the same result."""
        self.build(b"Joe:" + SLOW + b"::::::host=a destuser=inner")
        self.assertEqual(self.hashes(b"joe", b"secret"), 1)
        first = self.answer
        for user in (b"joe", b"JOE", b"Joe"):
            self.assertEqual(self.hashes(user, b"secret", "192.0.2.9"), 0)
            self.assertEqual(self.answer, first)
        self.assertEqual(first, Route((Backend("a", 143),), b"inner", b"secret"))

    def test_underAttack(self) -> None:
        """A known client logs in at once while others wait."""
        self.build(b"joe:" + SLOW)
        self.hashes(b"joe", b"secret")
        for number in range(200):
            self.start(b"joe", b"guess %d" % number, host="203.0.113.66")
        self.assertIsInstance(self.successResultOf(self.start(b"joe", b"secret")), Route)

    def test_wrongOnes(self) -> None:
        """Wrong passwords take a hash each time, and the right one stays remembered."""
        self.build(b"joe:" + SLOW, b"ann:" + SLOW)
        self.hashes(b"joe", b"secret")
        for user, secret in ((b"joe", b"Secret"), (b"joe", b"secre"), (b"joe", b"secret "), (b"ann", b"wrong")):
            for _ in range(2):
                self.assertEqual(self.hashes(user, secret), 1, (user, secret))
                self.assertEqual(self.refusal(self.answer), "wrong password")
        self.assertEqual(self.hashes(b"joe", b"secret"), 0)
        self.assertEqual(self.hashes(b"ann", b"secret"), 1, "another user with the same hash and password")

    def test_endsInTime(self) -> None:
        """The time begins with the hash, however often the user logs in after it."""
        self.build(b"joe:" + SLOW)
        self.hashes(b"joe", b"secret")
        for _ in range(3):
            self.reactor.advance(99)
            self.assertEqual(self.hashes(b"joe", b"secret"), 0)
        self.reactor.advance(3)
        self.assertEqual(self.hashes(b"joe", b"secret"), 1)
        self.assertEqual(self.hashes(b"joe", b"secret"), 0)

    def test_lineChanges(self) -> None:
        """The current line counts: another hash, a lock, nologin, networks, no line, a mistake."""
        other = b"{SHA512-CRYPT}$6$M3PPqsLK2DJQmraz$" + b"x" * 86
        for line, reason in (
            (b"joe:" + other, "wrong password"),
            (b"joe:*", "locked account"),
            (b"joe:!" + SLOW.partition(b"}")[2], "locked account"),
            (b"joe:" + SLOW + b"::::::nologin", "nologin"),
            (b"joe:" + SLOW + b"::::::allow_nets=10.0.0.0/8", "address outside allow_nets"),
            (b"joe:" + SLOW + b"::::::port=x", "unusable line"),
            (b"ann:" + SLOW, "unknown user"),
        ):
            self.build(b"joe:" + SLOW)
            self.hashes(b"joe", b"secret")
            self.write(line)
            self.reactor.advance(1)
            self.hashes(b"joe", b"secret")
            self.assertEqual(self.refusal(self.answer), reason)

    def test_decoy(self) -> None:
        """An unknown user, or one with a locked or invalid line, takes a hash each time, with any password."""
        self.build(b"joe:" + SLOW, b"off:*", b"bad:" + SLOW + b"::::::port=x")
        self.hashes(b"joe", b"secret")
        for user in (b"nobody", b"off", b"bad"):
            for secret in (b"secret", b"wrong"):
                for _ in range(3):
                    self.assertEqual(self.hashes(user, secret), 1)
                    self.refusal(self.answer)

    def test_sameWork(self) -> None:
        """The MAC is computed for unknown users too, so that the time reveals nothing."""
        self.build(b"joe:" + SLOW, b"off:*", b"bad:" + SLOW + b"::::::port=x")
        right = self.authenticator._right
        assert right is not None
        with patch.object(right, "proof", wraps=right.proof) as proof:
            for user in (b"joe", b"nobody", b"off", b"bad"):
                proof.reset_mock()
                self.hashes(user, b"wrong")
                ((_, stored, secret),) = [call.args for call in proof.call_args_list]
                self.assertEqual((b"{BLF-CRYPT}" + stored, secret), (SLOW, b"wrong"))

    def test_fastOnesAreNot(self) -> None:
        """Passwords with fast schemes are not remembered."""
        self.build(b"joe:{PLAIN}secret", b"ann:" + SALTED)
        for user in (b"joe", b"ann"):
            self.hashes(user, b"secret")
        assert self.authenticator._right is not None
        self.assertEqual(len(self.authenticator._right), 0)

    def test_off(self) -> None:
        """With auth_file_cache_ttl = 0 each login takes a hash."""
        self.cacheTTL = 0.0
        self.build(b"joe:" + SLOW)
        for _ in range(3):
            self.assertEqual(self.hashes(b"joe", b"secret"), 1)
        self.authenticator.close()

    def test_close(self) -> None:
        """Closing the authenticator forgets all passwords."""
        self.build(b"joe:" + SLOW)
        self.hashes(b"joe", b"secret")
        self.authenticator.close()
        self.assertEqual(self.hashes(b"joe", b"secret"), 1)

    def test_clientHasLeft(self) -> None:
        """A cancelled login is not remembered."""
        self.build(b"joe:" + SLOW)
        answer = self.start(b"joe", b"secret")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.reactor.work()
        self.assertEqual(self.hashes(b"joe", b"secret"), 1)
