# -*- test-case-name: mailgate.test.keeper.test_attempts -*-
"""
Tests for L{mailgate.keeper.attempts}.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.attempts import readAttempt, readResult, readVerdict, writeAttempt, writeVerdict
from mailgate.keeper.messages import Check, WireError, encode
from mailgate.limits.attempt import Action, Attempt, Result, Rule, Verdict
from mailgate.test.keeper.defences import ATTEMPT


class AttemptTests(SynchronousTestCase):
    """Logins and verdicts in messages."""

    def test_thereAndBack(self) -> None:
        """All of a login and of a verdict arrives, through JSON."""
        for attempt in (ATTEMPT, Attempt("unix:", b"")):
            self.assertEqual(readAttempt(json.loads(json.dumps(writeAttempt(attempt)))), attempt)
        for verdict in (
            Verdict(Action.GO, 7, would="delayed by 4 s"),
            Verdict(Action.WAIT, 8, 1.5, Rule.PAIR_DELAY),
            *(Verdict(Action.REFUSE, rule=rule) for rule in Rule),
            Verdict(Action.GO, 7, elsewhere=3, elsewhereAddress=2),
        ):
            self.assertEqual(readVerdict(json.loads(json.dumps(writeVerdict(verdict)))), verdict)
        for result in Result:
            self.assertIs(readResult(result.value), result)

    def test_elsewhere(self) -> None:
        """Without sessions at other gateways, a verdict is as short as without a store."""
        self.assertEqual(len(writeVerdict(Verdict(Action.GO, 7))), 5)
        for counts in ([1], [1, 2], [-1, -1], [True, 0], [1.0, 0], ["1", 0], [1, 0, 0]):
            self.assertRaises(WireError, readVerdict, ["go", 1, 0, None, "", *counts])

    def test_longWait(self) -> None:
        """A login that must wait for hours, under a low rate with a large burst, does not cost the link."""
        written = writeVerdict(Verdict(Action.WAIT, 8, 36000.0, Rule.REQ_LOGIN))
        self.assertEqual(readVerdict(written), Verdict(Action.WAIT, 8, 3600.0, Rule.REQ_LOGIN))

    def test_invalid(self) -> None:
        """What is no login is refused, and not quoted."""
        right: Any = writeAttempt(ATTEMPT)
        for place, value in enumerate((7, "\u20ac", "secret", "zz", "secret", None, [0, 1, True], [], 7)):
            if place == 5:
                continue
            wrong = [*right[:place], value, *right[place + 1 :]]
            self.assertNotIn("secret", str(self.assertRaises(WireError, readAttempt, wrong)))
        for wrong in ([], right[:-1], [*right, 1], ["x" * 65, *right[1:]], [*right[:3], "00" * 33, *right[4:]]):
            self.assertRaises(WireError, readAttempt, wrong)
        for rate in ([], [-1.0, 1, True], [1.0, -1, True], [1.0, 1.5, True], ["1", 1, True], [float("nan"), 1, True]):
            self.assertRaises(WireError, readAttempt, [*right[:6], rate, *right[7:]])
        for verdict in ([], ["go", 1], ["gone", 1, 0, None, ""], ["go", -1, 0, None, ""], ["go", 1.5, 0, None, ""]):
            self.assertRaises(WireError, readVerdict, verdict)
        for verdict in (
            ["wait", 1, -1, None, ""],
            ["wait", 1, 1e9, None, ""],
            ["go", 1, 0, None, 7],
            ["go", 1, 0, [], ""],
        ):
            self.assertRaises(WireError, readVerdict, verdict)
        self.assertRaises(WireError, readResult, "secret")

    def test_laterRule(self) -> None:
        """A rule of a later release is none that can be named, but its verdict holds."""
        self.assertEqual(readVerdict(["refuse", 0, 0, "R9", ""]), Verdict(Action.REFUSE))

    def test_repr(self) -> None:
        """A message does not show its login."""
        message = Check(1, 0, writeAttempt(ATTEMPT))
        self.assertNotIn("192.0.2.7", repr(message))
        self.assertTrue(encode(message).isascii())
