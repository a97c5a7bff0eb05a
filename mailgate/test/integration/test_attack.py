"""
Attacks on passwords, with real processes and clients from addresses of 127.0.0.0/8.
"""

from __future__ import annotations

import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.attack import SOURCES, Attacked
from mailgate.test.integration.daemon import shared, waitUntil
from mailgate.test.integration.guessers import LIMITED, WRONG, Guessers

QUARTER = """\
limit_login_user = slow=12 interval=15s patience=5s
limit_login_delay = 250ms 3750ms
"""
"""A quarter of the thresholds and times of the default rules that matter for an attack on one user."""

SECONDS = 15.0
QUESTIONS = 15
"""A quarter of a minute, and of 60 questions."""


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
        self.assertLess(course.longest, 1.0)
        self.assertEqual(course.guessers.others(), [])
        self.assertLessEqual(course.guessers.wrong(), course.questions)
        self.assertGreater(course.guessers.limited(), 0)
        self.assertIn("R6", self.attacked.gateway.log())


def _oneForAll() -> Attacked:
    attacked = Attacked("limit_req = off")
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
        """Check that a user logs in within a second."""
        answer, taken = self.attacked.login(source, user)
        self.assertTrue(answer.startswith(b"OK"), answer)
        self.assertLess(taken, 1.0)

    def test_parallel(self) -> None:
        """
        40 connections that guess side by side pass no delay: the service hears of no more guesses than R2 lets through.
        The user is not blocked elsewhere, nor another user there.
        """
        here, elsewhere, user = SOURCES[0], SOURCES[1], "parallel@example.com"
        with Guessers(self.attacked.port, [here], 40, lambda number: user) as guessers:
            waitUntil(lambda: self.attacked.asked(user) > 3, "the delays have begun")
            self.assertServed(here, "beside@example.com")
            time.sleep(2.0)
        asked = self.attacked.asked(user)
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
