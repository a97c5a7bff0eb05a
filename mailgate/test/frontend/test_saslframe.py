"""
The frame of SASL, the same for every protocol: initial responses, empty messages, and limits of length.
"""

from __future__ import annotations

import base64

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Credentials, Method
from mailgate.session import Outcome
from mailgate.test.support.wordings import WORDINGS, Wording
from mailgate.testing import Conversation

DIALOGUE = DialogueSettings(serverName="mx.test")
LONGEST = DIALOGUE.longestResponse


def tokenOf(length: int) -> bytes:
    """A message of XOAUTH2 in base64 with a token of C{length} bytes."""
    return base64.b64encode(b"user=joe\x01auth=Bearer %b\x01\x01" % (b"t" * length))


def sent(conversation: Conversation) -> list[Credentials]:
    """What was to be judged."""
    return [request.credentials for request in conversation.requests]


class FrameTests(SynchronousTestCase):
    """Commands, challenges and responses."""

    def test_empty(self) -> None:
        """C{=} is an empty initial response; none at all is answered by an empty challenge, which has its blank."""
        for wording in WORDINGS:
            conversation = wording.converse("external")
            conversation.says(wording.auth + b"EXTERNAL =")
            self.assertEqual(sent(conversation), [Credentials(Method.EXTERNAL)])
            conversation = wording.converse()
            self.assertEqual(conversation.says(wording.auth + b"PLAIN"), wording.challenge + b"\r\n")
            self.assertEqual(conversation.says(b""), wording.malformed)

    def test_emptyResponses(self) -> None:
        """An empty line is an empty response, and so is C{=}."""
        for wording in WORDINGS:
            for empty in (b"", b"="):
                conversation = wording.converse("external")
                conversation.says(wording.auth + b"EXTERNAL", empty)
                self.assertEqual(sent(conversation), [Credentials(Method.EXTERNAL)])

    def test_cancel(self) -> None:
        """C{*} ends the exchange, not the connection. Another mechanism may follow."""
        for wording in WORDINGS:
            conversation = wording.converse()
            conversation.says(wording.auth + b"LOGIN")
            self.assertEqual(conversation.says(b"*"), wording.cancelled)
            conversation.says(wording.auth + b"LOGIN", b"am9l")
            self.assertEqual(conversation.says(b"*"), wording.cancelled)
            conversation.says(wording.auth + b"PLAIN AGpvZQB4")
            self.assertEqual(sent(conversation), [Credentials(Method.PLAIN, b"joe", b"x")])

    def test_login(self) -> None:
        """LOGIN asks for the name, then the password. An initial response is the name."""
        name, password = b"VXNlcm5hbWU6\r\n", b"UGFzc3dvcmQ6\r\n"
        for wording in WORDINGS:
            conversation = wording.converse()
            self.assertEqual(conversation.says(wording.auth + b"LOGIN"), wording.challenge + name)
            self.assertEqual(conversation.says(b"am9l"), wording.challenge + password)
            conversation.says(b"eA==")
            self.assertEqual(sent(conversation), [Credentials(Method.PLAIN, b"joe", b"x")])
            conversation = wording.converse()
            self.assertEqual(conversation.says(wording.auth + b"LOGIN am9l"), wording.challenge + password)


class LengthTests(SynchronousTestCase):
    """C{sasl_max_response}, which does not depend on the buffer for commands."""

    def test_longToken(self) -> None:
        """A token of 10,000 bytes logs in with all defaults, as an initial response and after the empty challenge."""
        token = tokenOf(10000)
        for wording in WORDINGS:
            for lines in ((wording.auth + b"XOAUTH2 " + token,), (wording.auth + b"XOAUTH2", token)):
                conversation = wording.converse()
                conversation.says(*lines)
                self.assertEqual(sent(conversation), [Credentials(Method.XOAUTH2, b"joe", b"t" * 10000)])

    def test_inPieces(self) -> None:
        """It may arrive in pieces of any size."""
        for wording in WORDINGS:
            for size in (1, 1000, 4096, 5000):
                conversation = wording.converse()
                line = wording.auth.lower() + b"xoauth2 " + tokenOf(10000) + b"\r\n"
                for start in range(0, len(line), size):
                    conversation.send(line[start : start + size])
                self.assertEqual(sent(conversation), [Credentials(Method.XOAUTH2, b"joe", b"t" * 10000)])

    def test_longest(self) -> None:
        """A response may be as long as the limit. A longer line ends the connection, as it is not read to its end."""
        for wording in WORDINGS:
            for length, refused in ((LONGEST - 2, False), (LONGEST - 1, True)):
                conversation = wording.converse()
                conversation.says(wording.auth + b"PLAIN", b"x" * length)
                self.assertIs(conversation.closed, refused)
                self.assertIs(conversation.server.session.outcome, Outcome.TOO_LONG if refused else None)

    def test_longestInitial(self) -> None:
        """So may an initial response. A longer one is refused, and the connection stays."""
        for wording in WORDINGS:
            for length, refusal in ((LONGEST - 2, wording.malformed), (LONGEST + 2, wording.tooLong)):
                conversation = wording.converse()
                heard = conversation.says(wording.auth + b"PLAIN " + b"x" * length)
                self.assertEqual(heard, refusal)
                self.assertFalse(conversation.closed)
            self.assertIn("response longer than sasl_max_response in AUTH PLAIN", "".join(conversation.logged()))

    def test_configured(self) -> None:
        """The limit holds in both directions, however large the buffer for commands is."""
        little = evolve(DIALOGUE, maxResponse=1024)
        for wording in WORDINGS:
            settings = wording.settings(auth=("plain", "xoauth2"), clientBuffer=65536)
            for response in (tokenOf(900), tokenOf(1100)):
                conversation = Conversation(wording.record, settings, little)
                conversation.hear()
                heard = conversation.says(wording.auth + b"XOAUTH2 " + response)
                self.assertEqual(heard == wording.tooLong, len(response) > 1368)
                self.assertEqual(len(conversation.requests), len(response) <= 1368)

    def test_notOthers(self) -> None:
        """Other commands have the buffer only, and what only begins like AUTH, too."""
        lines = {0: (b"a LOGIN joe ", b"a AUTHENTICATES ", b"AUTHENTICATE "), 1: (b"PASS ", b"AUTHX "), 2: (b"EHLO ",)}
        for place, starts in lines.items():
            for start in starts:
                conversation = WORDINGS[place].converse()
                conversation.send(start + b"x" * 4096)
                self.assertTrue(conversation.closed)
                self.assertIs(conversation.server.session.outcome, Outcome.TOO_LONG)

    def test_memory(self) -> None:
        """No more than the limit is buffered, whatever a client sends."""
        for wording in WORDINGS:
            for start in (wording.auth + b"PLAIN ", wording.auth + b"PLAIN\r\n"):
                conversation = self.flooded(wording, start)
                self.assertTrue(conversation.closed)

    def flooded(self, wording: Wording, start: bytes) -> Conversation:
        """A conversation that has got a response without an end."""
        conversation = wording.converse()
        conversation.send(start)
        for _ in range(50):
            conversation.send(b"A" * 500)
            self.assertLessEqual(len(conversation.server.buffer), 4096 + LONGEST)
        return conversation

    def test_pipelined(self) -> None:
        """A response may follow its command in one segment, and commands may follow it."""
        token = tokenOf(10000)
        for wording in WORDINGS:
            conversation = wording.converse()
            conversation.send(wording.auth + b"XOAUTH2\r\n" + token + b"\r\n" + wording.capabilities + b"\r\n")
            self.assertEqual(sent(conversation), [Credentials(Method.XOAUTH2, b"joe", b"t" * 10000)])
