"""
Attacks on passwords, with real processes and clients from addresses of 127.0.0.0/8.
"""

from __future__ import annotations

import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.attack import SOURCES, Attacked
from mailgate.test.integration.authservice import Answer, refuse
from mailgate.test.integration.daemon import shared, slowness, waitUntil
from mailgate.test.integration.guessers import LIMITED, WRONG, Guessers

QUARTER = """\
limit_login_user = slow=12 interval=15s patience=5s
limit_login_delay = 250ms 3750ms
"""
"""A quarter of the thresholds and times of the default rules that matter for an attack on one user."""

SECONDS = 15.0
QUESTIONS = 15
"""A quarter of a minute, and of 60 questions."""

EXEMPT = "127.40.0.9"

SPELLINGS = ("parallel@example.com", "Parallel@EXAMPLE.com", "parallel+news@example.com")
"""Names of one user."""


class OneUserTests(SynchronousTestCase):
    """
    Many addresses guess the password of one user. With workers, whose keeper may be late for a moment, the result of a
    quarter would depend on the machine: L{mailgate.test.integration.attack} attacks them with the default rules.
    """

    def setUp(self) -> None:
        self.attacked = Attacked(QUARTER)
        self.addCleanup(self.attacked.clear)
        self.attacked.prepare()
        self.attacked.start()
        # It fails if the log has a traceback.
        self.addCleanup(lambda: self.attacked.gateway.stop())

    def test_attack(self) -> None:
        """
        20 addresses of 20 networks, each with several connections, ask the service no more often than the rules say,
        also with a restart in the middle. The owner logs in from a known network within a second each time. A limit
        never says that the password is wrong: what says that is an answer of the service.
        """
        course = self.attacked.attack(SECONDS)
        self.assertGreater(course.questions, 3)
        self.assertLessEqual(course.questions, QUESTIONS)
        self.assertEqual({answer[:3] for answer in course.owner}, {b"OK "})
        self.assertLess(course.longest, slowness())
        self.assertEqual(course.guessers.others(), [])
        self.assertLessEqual(course.guessers.wrong(), course.questions)
        self.assertGreater(course.guessers.limited(), 0)
        self.assertIn("R6", self.attacked.gateway.log())


def _oneForAll() -> Attacked:
    attacked = Attacked("limit_req = off", exempt=EXEMPT)
    attacked.start()
    return attacked


class OneAddressTests(SynchronousTestCase):
    """
    One address, with the default rules. C{limit_req} is off: it would slow down the attackers, and so the tests. They
    share a gateway, and each has users and addresses of its own.
    """

    def setUp(self) -> None:
        self.attacked = shared("attacked", _oneForAll)

    def assertServed(self, source: str, user: str) -> None:
        """Check that a user logs in within a second; a busy machine may add to that."""
        answer, taken = self.attacked.login(source, user)
        self.assertTrue(answer.startswith(b"OK"), answer)
        self.assertLess(taken, slowness())

    def test_parallel(self) -> None:
        """
        40 connections that guess side by side, in all spellings of a name, pass no delay: the service hears of no more
        guesses than R2 lets through. The user is not blocked elsewhere, nor another user there.
        """
        here, elsewhere, user = SOURCES[0], SOURCES[1], SPELLINGS[0]
        with Guessers(self.attacked.port, [here], 40, lambda number: SPELLINGS[number % 3]) as guessers:
            waitUntil(lambda: self.attacked.asked(*SPELLINGS) > 3, "the delays have begun")
            self.assertServed(here, "beside@example.com")
            time.sleep(2.0)
        asked = self.attacked.asked(*SPELLINGS)
        self.assertLessEqual(asked, 10)
        self.assertEqual(guessers.others(), [])
        self.assertLessEqual(guessers.wrong(), asked)
        self.assertServed(elsewhere, user)

    def test_spraying(self) -> None:
        """
        One guess for each of 500 users: after 20 failed users the address is blocked for unknown pairs, whose right
        passwords are refused, too. Another address is not.
        """
        here, elsewhere = SOURCES[2:4]
        users = [f"u{number}@example.com" for number in range(500)]
        with Guessers(self.attacked.port, [here], 10, lambda number: users[number % len(users)]) as guessers:
            waitUntil(lambda: guessers.limited() > 50, "the address is blocked")
        asked = self.attacked.asked(*users)
        self.assertGreaterEqual(asked, 15)
        self.assertLessEqual(asked, 20)
        self.assertEqual(guessers.others(), [])
        self.assertLessEqual(guessers.wrong(), asked)
        answer, _ = self.attacked.login(here, "new@example.com")
        self.assertTrue(answer.startswith(LIMITED), answer)
        self.assertEqual(self.attacked.auth.askedAbout("new@example.com"), [])
        self.assertServed(elsewhere, "new@example.com")

    def test_oldPassword(self) -> None:
        """
        A phone with an old password, which tries again and again, is refused as such, and delays neither its owner nor
        others there.
        """
        here, user = SOURCES[4], "phone@example.com"
        stop = threading.Event()
        answers: set[bytes] = set()

        def phone() -> None:
            while not stop.is_set():
                answers.add(self.attacked.login(here, user, "yesterday")[0])

        thread = threading.Thread(target=phone)
        thread.start()
        try:
            waitUntil(lambda: self.attacked.asked(user) > 5, "the phone has tried again and again")
            for each in ("neighbour@example.com", user):
                self.assertServed(here, each)
        finally:
            stop.set()
            thread.join()
        self.assertEqual(answers, {WRONG})

    def test_shared(self) -> None:
        """
        Where one user has logged in, and where the address is exempt, 25 others with wrong passwords do not keep a
        further one out. Each of them is limited all the same. Whether the service knows them makes no difference in
        what they hear.
        """
        ghost = Answer({"Auth-Status": WRONG[3:].decode(), "Auth-User-Exists": "no"})
        for name, here in (("office", SOURCES[5]), ("webmail", EXEMPT)):
            users = [f"{name}{number}@example.com" for number in range(25)]
            for at, user in enumerate(users):
                self.attacked.auth.manners[user] = refuse if at % 2 else lambda *_: ghost
            if here != EXEMPT:
                self.assertServed(here, f"{name}@example.com")
            for user in users:
                self.assertEqual(self.attacked.login(here, user, "wrong")[0], WRONG)
            self.assertServed(here, f"{name}new@example.com")
            for number in range(3):
                self.assertEqual(self.attacked.login(here, users[0], f"wrong{number}")[0], WRONG)
            answer, taken = self.attacked.login(here, users[0], "again")
            self.assertEqual(answer, WRONG)
            self.assertGreater(taken, 0.9)
        self.assertEqual(self.attacked.gateway.log().count(f"limited: client {EXEMPT}"), 1)

    def test_temporary(self) -> None:
        """What the service did not decide does not count: the right password passes at once afterwards."""
        here, user = SOURCES[6], "unlucky@example.com"
        busy = Answer({"Auth-Status": "Busy", "Auth-Error-Code": "451 4.3.0"})
        self.attacked.auth.manners[user] = lambda *_: busy
        for number in range(12):
            answer, _ = self.attacked.login(here, user, f"{number}")
            self.assertFalse(answer.startswith((WRONG, b"OK")), answer)
        self.assertEqual(self.attacked.asked(user), 12)
        del self.attacked.auth.manners[user]
        self.assertServed(here, user)
