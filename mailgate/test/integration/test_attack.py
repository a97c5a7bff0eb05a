"""
Attacks on passwords, with real processes and clients from addresses of 127.0.0.0/8.
"""

from __future__ import annotations

import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.attack import OWNER, SOURCES, Attacked
from mailgate.test.integration.guessers import LIMITED, WRONG, Guessers

QUARTER = """\
limit_login_user = slow=12 interval=15s patience=5s
limit_login_delay = 250ms 3750ms
"""
"""A quarter of the thresholds and times of the default rules that matter for an attack on one user."""

SECONDS = 15.0
QUESTIONS = 15
"""A quarter of a minute, and of 60 questions."""


class AttackTestCase(SynchronousTestCase):
    """A gateway with a state file."""

    more = ""

    def setUp(self) -> None:
        self.attacked = Attacked(self.more)
        self.addCleanup(self.attacked.clear)
        self.attacked.start()
        self.addCleanup(lambda: self.attacked.gateway.forget())

    def tearDown(self) -> None:
        self.attacked.gateway.stop()
        self.assertNotIn("Traceback", self.attacked.gateway.log())

    def assertLimited(self, answer: bytes) -> None:
        """Check that a client has heard the words of a limit."""
        self.assertTrue(answer.startswith(LIMITED), answer)


class OneUserTests(AttackTestCase):
    """Many addresses guess the password of one user."""

    more = QUARTER

    def test_attack(self) -> None:
        """
        20 addresses of 20 networks, each with several connections, ask the service no more often than the rules say,
        also with a restart in the middle. The owner logs in from a known network within a second each time. A limit
        never says that the password is wrong: what says that is an answer of the service.
        """
        self.attacked.prepare()
        course = self.attacked.attack(SECONDS)
        self.assertGreater(course.questions, 3)
        self.assertLessEqual(course.questions, QUESTIONS)
        self.assertEqual({answer[:3] for answer in course.owner}, {b"OK "})
        self.assertLess(course.longest, 1.0)
        self.assertEqual(course.guessers.others(), [])
        self.assertLessEqual(course.guessers.wrong(), course.questions)
        self.assertGreater(sum(course.guessers.answers.values()), course.questions)
        self.assertIn("R6", self.attacked.gateway.log())


class OneAddressTests(AttackTestCase):
    """One address, with the default rules."""

    def test_parallel(self) -> None:
        """
        40 connections that guess side by side pass no delay: the service hears of no more guesses than R2 lets through.
        The user is not blocked elsewhere, nor another user there.
        """
        with Guessers(self.attacked.port, SOURCES[:1], 40, lambda number: OWNER) as guessers:
            time.sleep(3.0)
            other, taken = self.attacked.login(SOURCES[0], "ann@example.com")
        self.assertTrue(other.startswith(b"OK"), other)
        self.assertLess(taken, 1.0)
        asked = self.attacked.asked(OWNER)
        self.assertGreaterEqual(asked, 3)
        self.assertLessEqual(asked, 10)
        self.assertEqual(guessers.others(), [])
        self.assertLessEqual(guessers.wrong(), asked)
        self.assertTrue(self.attacked.login(SOURCES[1])[0].startswith(b"OK"))

    def test_spraying(self) -> None:
        """
        One guess for each of 500 users: after 20 failed users the address is blocked for unknown pairs, whose right
        passwords are refused, too. Another address is not.
        """
        users = [f"u{number}@example.com" for number in range(500)]
        with Guessers(self.attacked.port, SOURCES[:1], 10, lambda number: users[number % len(users)]) as guessers:
            deadline = time.monotonic() + 20.0
            while not (guessers.answers[b"NO [UNAVAILABLE]"] > 50 or time.monotonic() > deadline):
                time.sleep(0.05)
        self.assertGreater(guessers.answers[b"NO [UNAVAILABLE]"], 50)
        self.assertEqual(guessers.others(), [])
        asked = self.attacked.asked(*users)
        self.assertGreaterEqual(asked, 15)
        self.assertLessEqual(asked, 20)
        self.assertLessEqual(guessers.wrong(), asked)
        before = len(self.attacked.auth.asked)
        self.assertLimited(self.attacked.login(SOURCES[0])[0])
        self.assertEqual(len(self.attacked.auth.asked), before)
        self.assertTrue(self.attacked.login(SOURCES[1])[0].startswith(b"OK"))

    def test_oldPassword(self) -> None:
        """A phone with an old password, which tries again and again, is refused as such, and harms nobody there."""
        stop = threading.Event()
        answers: set[bytes] = set()

        def phone() -> None:
            while not stop.is_set():
                answers.add(self.attacked.login(SOURCES[0], OWNER, "yesterday")[0][: len(WRONG)])

        thread = threading.Thread(target=phone)
        thread.start()
        try:
            deadline = time.monotonic() + 20.0
            while self.attacked.asked(OWNER) < 6 and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertGreaterEqual(self.attacked.asked(OWNER), 6)
            for user in ("ann@example.com", OWNER):
                answer, taken = self.attacked.login(SOURCES[0], user)
                self.assertTrue(answer.startswith(b"OK"), answer)
                self.assertLess(taken, 1.0)
        finally:
            stop.set()
            thread.join()
        self.assertEqual(answers, {WRONG})
