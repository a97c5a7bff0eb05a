"""
Tests for L{mailgate.upstream.healthcheck}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.upstream.healthcheck import HealthCheck, healthCheck


class ValueTests(SynchronousTestCase):
    """The value of C{health_check}."""

    def test_words(self):
        """C{off} is no check, and C{on} is one with the defaults."""
        self.assertIsNone(healthCheck("off", ""))
        self.assertEqual(healthCheck("On", ""), HealthCheck(5.0, 1.0, 3, 2, False, 0, False))

    def test_parameters(self):
        """The parameters stand in any order, with nginx's times."""
        self.assertEqual(
            healthCheck("greeting port=10143 mandatory interval=500ms jitter=0 fails=1 passes=4", ""),
            HealthCheck(0.5, 0.0, 1, 4, True, 10143, True),
        )
        self.assertEqual(healthCheck("interval=1m", ""), HealthCheck(60.0))

    def test_persistent(self):
        """A reload keeps verdicts anyway; nginx's word for that has no effect."""
        self.assertEqual(healthCheck("mandatory persistent", ""), HealthCheck(mandatory=True))

    def test_invalid(self):
        """Each error names the parameter."""
        for value, message in (
            ("", "a value is missing"),
            ("interval=0", '"interval=0": must be longer than 0'),
            ("interval=soon", '"interval=soon": must be a time, such as 30s, 1h30m or 500ms'),
            ("fails=0", '"fails=0": must be a whole number from 1 to 1000'),
            ("passes=1001", '"passes=1001": must be a whole number from 1 to 1000'),
            ("port=0", '"port=0": must be a port from 1 to 65535'),
            ("port=65536", '"port=65536": must be a port from 1 to 65535'),
            ("intervall=5s", '"intervall=5s": is no known parameter; did you mean interval=?'),
            ("mandatory=on", '"mandatory=on": is no known parameter; did you mean mandatory?'),
            ("match=imap", '"match=imap": is no known parameter'),
            ("fails=1 fails=2", '"fails" is given twice'),
            ("interval=5s off", '"off": stands alone'),
            ("persistent", '"persistent" needs "mandatory"'),
        ):
            error = self.assertRaises(ValueError, healthCheck, value, "")
            self.assertEqual(str(error), message, value)
