"""
Tests of L{mailgate.test.integration.ownwords}.
"""

from __future__ import annotations

import io
import sys
import threading

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.ownwords import ownWords


class OwnWordsTests(SynchronousTestCase):
    """L{ownWords}."""

    def test_otherThread(self) -> None:
        """The traceback of another thread goes where it went before; both streams are as before at the end."""
        out, errors = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", errors)

        def fail() -> None:
            print("of the server")
            raise OSError("the peer has left")

        with ownWords() as (said, complaints):
            server = threading.Thread(target=fail)
            server.start()
            server.join()
            print("of the command")
            print("its error", file=sys.stderr)
        self.assertEqual((said.getvalue(), complaints.getvalue()), ("of the command\n", "its error\n"))
        self.assertEqual(out.getvalue(), "of the server\n")
        self.assertIn("OSError: the peer has left", errors.getvalue())
        self.assertIs(sys.stdout, out)
        self.assertIs(sys.stderr, errors)
