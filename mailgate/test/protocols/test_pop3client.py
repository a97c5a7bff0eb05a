"""
Tests of the login at a POP3 backend.
"""

from __future__ import annotations

from mailgate.login import Denial, Refusal, Trouble
from mailgate.protocols.pop3 import POP3
from mailgate.test.backend.test_connector import PASS_ON
from mailgate.test.support.loginscripts import STARTTLS, TEMPORARY, BackendTests
from mailgate.testing import Attempt, routeTo


class POP3ClientTests(BackendTests):
    """The login at a POP3 backend."""

    def test_verbatim(self) -> None:
        """Name and password are sent unchanged, with their blanks."""
        attempt = Attempt(POP3, route=routeTo(user=b"jo e", password=b" s\xe9same "))
        attempt.accept()
        self.assertEqual(attempt.says(b"+OK\r\n"), b"USER jo e\r\n")
        self.assertEqual(attempt.says(b"+OK\r\n"), b"PASS  s\xe9same \r\n")

    def test_reply(self) -> None:
        """The client gets the backend's reply to PASS, not that to USER."""
        client = self.outcomeOf(Attempt(POP3), b"+OK\r\n", b"+OK name\r\n", b"+OK 3 messages\r\n")
        self.assertEqual(client.reply, b"+OK 3 messages\r\n")

    def test_longerWords(self) -> None:
        """A word that only begins with +OK is another word."""
        for replies in ((b"+OKAY\r\n",), (b"+OK\r\n", b"+OK, go on\r\n")):
            self.assertEqual(self.outcomeOf(Attempt(POP3, PASS_ON), b"+OK\r\n", *replies), TEMPORARY)
        attempt = Attempt(POP3, route=routeTo(STARTTLS))
        self.assertEqual(self.outcomeOf(attempt, b"+OK\r\n", b"+OKAY\r\n"), TEMPORARY)
        self.assertEqual(attempt.transport.tls, [])

    def test_bareOK(self) -> None:
        """+OK needs no text after it."""
        for end in (b"\r\n", b"\n", b" \r\n"):
            self.assertEqual(self.outcomeOf(Attempt(POP3), *[b"+OK" + end] * 3).reply, b"+OK" + end)

    def test_badGreetings(self) -> None:
        """A greeting other than +OK is a failure, and nothing is sent."""
        for greeting in (b"-ERR full\r\n", b"+OKAY\r\n", b"* OK\r\n", b"220 ready\r\n"):
            attempt = Attempt(POP3)
            self.assertEqual(self.outcomeOf(attempt, greeting), TEMPORARY)
            self.assertEqual(attempt.hears(), b"")

    def test_refusal(self) -> None:
        """-ERR is a refusal of the credentials, to USER as to PASS."""
        for reply in (b"-ERR\r\n", b"-ERR wrong\r\n", b"-ERR [AUTH] wrong\r\n"):
            for before in ((), (b"+OK\r\n",)):
                replies = (b"+OK\r\n", *before, reply)
                self.assertEqual(self.outcomeOf(Attempt(POP3, PASS_ON), *replies), Refusal(reply, False))
                denied = Denial(Trouble.DENIED, answer=b"" if reply == b"-ERR\r\n" else reply.strip())
                self.assertEqual(self.outcomeOf(Attempt(POP3, route=routeTo(judged=False)), *replies), denied)

    def test_temporaryRefusal(self) -> None:
        """Not with a response code that is not about the password."""
        for code in (b"SYS/TEMP", b"sys/odd", b"IN-USE", b"LOGIN-DELAY"):
            reply = b"-ERR [" + code + b"] later\r\n"
            replies = (b"+OK\r\n", b"+OK\r\n", reply)
            self.assertEqual(self.outcomeOf(Attempt(POP3, PASS_ON), *replies), Refusal(reply, True))
            answer = Denial(Trouble.TEMPORARY, answer=reply.strip())
            self.assertEqual(self.outcomeOf(Attempt(POP3, route=routeTo(judged=False)), *replies), answer)

    def test_userRefused(self) -> None:
        """A backend that refuses USER gets no password."""
        attempt = Attempt(POP3)
        self.outcomeOf(attempt, b"+OK\r\n", b"-ERR who\r\n")
        self.assertNotIn(b"sesame", attempt.hears())

    def test_stls(self) -> None:
        """STLS comes before USER."""
        attempt = Attempt(POP3, route=routeTo(STARTTLS))
        attempt.accept()
        self.assertEqual(attempt.says(b"+OK\r\n"), b"STLS\r\n")
        attempt.says(b"+OK go\r\n")
        attempt.transport.shakeHands()
        self.assertEqual(attempt.hears(), b"USER joe\r\n")
