"""
Tests for L{mailgate.net.connectionerrors}.
"""

from __future__ import annotations

import errno
import os

from twisted.internet.error import (
    ConnectError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    DNSLookupError,
    TimeoutError,
    UnknownHostError,
    getConnectError,
)
from twisted.trial.unittest import SynchronousTestCase

from mailgate.net.connectionerrors import inWords


class InWordsTests(SynchronousTestCase):
    """Tests for L{inWords}."""

    def test_system(self) -> None:
        """An error of the system has a phrase of mailgate, or the system's words in one."""
        for number, words in (
            (errno.ECONNREFUSED, "refused the connection"),
            (errno.ENETUNREACH, "cannot be reached: there is no route to its network"),
            (errno.ETIMEDOUT, "cannot be reached: the connection attempt timed out"),
            (errno.EHOSTUNREACH, "cannot be reached: No route to host"),
            (errno.EMFILE, "cannot be reached: Too many open files"),
            (errno.ENOENT, "cannot be reached: No such file or directory"),
        ):
            error = OSError(number, os.strerror(number))
            self.assertEqual(inWords(getConnectError(error)), words)
        self.assertEqual(inWords(OSError(errno.EMFILE, "x")), "cannot be reached: Too many open files")

    def test_names(self) -> None:
        """A name that does not resolve has a phrase."""
        for error in (DNSLookupError("gone.example"), UnknownHostError()):
            self.assertEqual(inWords(error), "cannot be found: its name does not resolve")
        self.assertEqual(inWords(TimeoutError()), "cannot be reached: the connection attempt timed out")

    def test_ends(self) -> None:
        """Each way in which a connection ends has a phrase."""
        for error, words in (
            (ConnectionDone(), "closed the connection"),
            (ConnectionLost(), "dropped the connection"),
            (ConnectionAborted(), "dropped the connection"),
            (ConnectionLost("[Errno 104] Connection reset by peer"), "reset the connection"),
        ):
            self.assertEqual(inWords(error), words)

    def test_others(self) -> None:
        """Other errors have no phrase, nor do errors of Twisted without a number of the system."""
        for error in (None, ValueError("x"), ConnectError(), OSError("x")):
            self.assertEqual(inWords(error), "")
