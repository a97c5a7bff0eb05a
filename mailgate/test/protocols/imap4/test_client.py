"""
Tests of the login at an IMAP4 backend.
"""

from __future__ import annotations

import gc

from mailgate.backend.settings import ProxySettings
from mailgate.login import Denial, Refusal, Trouble
from mailgate.protocols.imap4 import IMAP4, client
from mailgate.test.backend.test_client import FIRST, SECOND
from mailgate.test.backend.test_connector import PASS_ON
from mailgate.test.support.loginscripts import STARTTLS, TEMPORARY, BackendTests
from mailgate.testing import Attempt, routeTo


class IMAP4ClientTests(BackendTests):
    """The login at an IMAP4 backend."""

    def sent(self, user: bytes, password: bytes) -> list[bytes]:
        """The lines that a backend gets if it sends a continuation request after each."""
        attempt = Attempt(IMAP4, route=routeTo(user=user, password=password))
        attempt.accept()
        lines = [attempt.says(b"* OK\r\n")]
        while lines[-1].endswith(b"}\r\n"):
            lines.append(attempt.says(b"+ OK\r\n"))
        return lines

    def test_quoted(self) -> None:
        """Printable ASCII is sent as quoted strings in one line."""
        self.assertEqual(self.sent(b"joe", b"open sesame"), [b'a1 LOGIN "joe" "open sesame"\r\n'])

    def test_quotedSpecials(self) -> None:
        """Quotation marks and backslashes are escaped in them."""
        self.assertEqual(self.sent(b'j"oe', b"ses\\ame"), [b'a1 LOGIN "j\\"oe" "ses\\\\ame"\r\n'])

    def test_quotedSyntax(self) -> None:
        """Text that looks like a literal or a second argument stays text between the quotation marks."""
        self.assertEqual(self.sent(b"{3}", b'" "x'), [b'a1 LOGIN "{3}" "\\" \\"x"\r\n'])

    def test_empty(self) -> None:
        """An empty password is an empty quoted string."""
        self.assertEqual(self.sent(b"joe", b""), [b'a1 LOGIN "joe" ""\r\n'])

    def test_literals(self) -> None:
        """Anything but printable ASCII is sent as literals, each after a continuation request."""
        self.assertEqual(
            self.sent(b"jo\xe9", b"s\tsame"),
            [b"a1 LOGIN {3}\r\n", b"jo\xe9 {6}\r\n", b"s\tsame\r\n"],
        )

    def test_literalUser(self) -> None:
        """A literal name may stand before a quoted password."""
        self.assertEqual(self.sent(b"jo\xe9", b"sesame"), [b"a1 LOGIN {3}\r\n", b'jo\xe9 "sesame"\r\n'])

    def test_literalPassword(self) -> None:
        """A quoted name may stand before a literal password."""
        self.assertEqual(self.sent(b"joe", b"\x7f"), [b'a1 LOGIN "joe" {1}\r\n', b"\x7f\r\n"])

    def test_longString(self) -> None:
        """A string that may exceed a backend's line limit is a literal too."""
        self.assertEqual(self.sent(b"joe", b"x" * 300), [b'a1 LOGIN "joe" {300}\r\n', b"x" * 300 + b"\r\n"])

    def test_noLiteralBeforeRequest(self) -> None:
        """An untagged response does not trigger a literal."""
        attempt = Attempt(IMAP4, route=routeTo(user=b"jo\xe9"))
        attempt.accept()
        attempt.says(b"* OK\r\n")
        self.assertEqual(attempt.says(b"* OK have patience\r\n"), b"")
        self.assertEqual(attempt.says(b"+\r\n"), b'jo\xe9 "sesame"\r\n')

    def kept(self, words: bytes) -> list[bytes]:
        """The lists that begin with C{words} and are still in memory after a login at the backend that sends them."""
        attempt = Attempt(IMAP4)
        attempt.accept()
        attempt.says(b"* OK [CAPABILITY %b] ready\r\n" % words)
        self.assertEqual(attempt.says(b"a1 OK\r\n"), b"")
        del attempt
        gc.collect()
        lists = [each for each in gc.get_objects() if isinstance(each, client._Listed)]
        return [each.text for each in lists if each.text.startswith(words[:20])]

    def test_longGreetingForgotten(self) -> None:
        """Only greetings of the usual length are remembered: what backends send must not use up the memory."""
        short = b"IMAP4rev1 X-SHORT-ONE"
        self.assertEqual(self.kept(short), [short])
        self.assertEqual(self.kept(b"IMAP4rev1 X-LONG-ONE " + b" ".join(b"X%d" % each for each in range(500))), [])

    def test_clientsTag(self) -> None:
        """The tag is the client's own, so the backend's reply can be passed on."""
        attempt = Attempt(IMAP4, tag=b"A0.7/x")
        attempt.accept()
        self.assertEqual(attempt.says(b"* OK\r\n"), b'A0.7/x LOGIN "joe" "sesame"\r\n')
        client = self.outcomeOf(attempt, b"A0.7/x OK [CAPABILITY IMAP4rev1] done\r\n")
        self.assertEqual(client.reply, b"A0.7/x OK [CAPABILITY IMAP4rev1] done\r\n")

    def test_tagsThatBeginAlike(self) -> None:
        """A tag that only begins with ours is another one."""
        self.assertEqual(self.outcomeOf(Attempt(IMAP4), b"* OK\r\n", b"a11 OK done\r\n"), TEMPORARY)

    def test_untagged(self) -> None:
        """Untagged responses before the tagged one, however many, are passed on."""
        said = b"* CAPABILITY IMAP4rev1\r\n* ID NIL\r\n* 3 EXISTS\r\na1 OK done\r\n"
        self.assertEqual(self.outcomeOf(Attempt(IMAP4), b"* OK\r\n", said).reply, said)

    def test_untaggedBetweenLiterals(self) -> None:
        """Those between literals are passed on too; continuation requests are not."""
        attempt = Attempt(IMAP4, route=routeTo(user=b"jo\xe9"))
        client = self.outcomeOf(attempt, b"* OK\r\n", b"* ID NIL\r\n+ OK\r\n", b"a1 OK done\r\n")
        self.assertEqual(client.reply, b"* ID NIL\r\na1 OK done\r\n")

    def test_tooManyUntagged(self) -> None:
        """Untagged responses are kept up to proxy_buffer."""
        attempt = Attempt(IMAP4, ProxySettings(buffer=64))
        self.assertEqual(self.outcomeOf(attempt, b"* OK\r\n", b"* ID NIL\r\n" * 7), TEMPORARY)
        client = self.outcomeOf(
            Attempt(IMAP4, ProxySettings(buffer=64)), b"* OK\r\n", b"* ID NIL\r\n" * 6 + b"a1 OK\r\n"
        )
        self.assertEqual(client.reply, b"* ID NIL\r\n" * 6 + b"a1 OK\r\n")

    def test_greetingInAnyCase(self) -> None:
        """IMAP's words are case-insensitive."""
        client = self.outcomeOf(Attempt(IMAP4), b"* ok ready\r\n", b"a1 ok done\r\n")
        self.assertEqual(client.reply, b"a1 ok done\r\n")

    def test_badGreetings(self) -> None:
        """A greeting other than OK is a failure: with PREAUTH the session would belong to another user."""
        for greeting in (
            b"* PREAUTH hello joe\r\n",
            b"* BYE full\r\n",
            b"* NO\r\n",
            b"* BAD\r\n",
            b"* OKAY\r\n",
            b"OK\r\n",
            b"+OK\r\n",
        ):
            attempt = Attempt(IMAP4, route=routeTo(FIRST, SECOND))
            attempt.accept()
            self.assertEqual(attempt.says(greeting), b"")
            self.assertEqual(len(attempt.tried), 2)
            attempt.refuse()
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
            self.assertIn("greets with ", attempt.log[0])
            self.assertTrue(attempt.log[0].endswith(f', text "{greeting.decode().strip()}"'), attempt.log[0])

    def test_refusal(self) -> None:
        """NO is a refusal of the credentials."""
        for text in (b"", b" wrong", b" [AUTHENTICATIONFAILED] wrong", b" [AUTHORIZATIONFAILED] no", b" [EXPIRED] old"):
            reply = b"a1 NO" + text + b"\r\n"
            denied = Denial(Trouble.DENIED, answer=b"NO" + text if text else b"")
            self.assertEqual(self.outcomeOf(Attempt(IMAP4, PASS_ON), b"* OK\r\n", reply), Refusal(reply, False))
            self.assertEqual(self.outcomeOf(Attempt(IMAP4, route=routeTo(judged=False)), b"* OK\r\n", reply), denied)

    def test_temporaryRefusal(self) -> None:
        """Not with a response code that is not about the password; nor is BAD."""
        texts = [b"NO [%s] later" % code for code in (b"UNAVAILABLE", b"inuse", b"Limit", b"SERVERBUG")]
        for text in (*texts, b"NO [PRIVACYREQUIRED] use TLS", b"BAD what", b"bad what"):
            reply = b"a1 " + text + b"\r\n"
            self.assertEqual(self.outcomeOf(Attempt(IMAP4, PASS_ON), b"* OK\r\n", reply), Refusal(reply, True))
            answer = Denial(Trouble.TEMPORARY, answer=text if text in texts else b"")
            self.assertEqual(self.outcomeOf(Attempt(IMAP4, route=routeTo(judged=False)), b"* OK\r\n", reply), answer)

    def test_refusalWithUntagged(self) -> None:
        """Untagged responses before a refusal are passed on with it."""
        said = b"* NO [ALERT] you again\r\na1 NO no\r\n"
        self.assertEqual(self.outcomeOf(Attempt(IMAP4, PASS_ON), b"* OK\r\n", said), Refusal(said, False))

    def test_literalRefused(self) -> None:
        """If a backend refuses before the password, it gets none."""
        attempt = Attempt(IMAP4, route=routeTo(user=b"jo\xe9"))
        self.assertEqual(self.outcomeOf(attempt, b"* OK\r\n", b"a1 NO no literals\r\n"), TEMPORARY)
        self.assertNotIn(b"sesame", attempt.hears())

    def test_strayReplies(self) -> None:
        """An unexpected continuation request, or OK instead of one, is a failure."""
        self.assertEqual(self.outcomeOf(Attempt(IMAP4), b"* OK\r\n", b"+ more\r\n"), TEMPORARY)
        attempt = Attempt(IMAP4, route=routeTo(user=b"jo\xe9"))
        self.assertEqual(self.outcomeOf(attempt, b"* OK\r\n", b"a1 OK done\r\n"), TEMPORARY)

    def test_byeInsteadOfCompletion(self) -> None:
        """BYE in the middle of the login fails at once, whether or not the backend closes."""
        for bye in (b"* BYE going down\r\n", b"* bye going down\r\n", b"* BYE\r\n"):
            attempt = Attempt(IMAP4)
            self.assertEqual(self.outcomeOf(attempt, b"* OK\r\n", b"* OK wait\r\n" + bye), TEMPORARY)
            self.assertIn("answers with BYE", attempt.log[0])

    def test_byeWithRefusal(self) -> None:
        """But a refusal that arrives with it counts: RFC 3501 lets a server send BYE before it closes."""
        said = b"* BYE too many\r\na1 NO [LIMIT] too many\r\n"
        self.assertEqual(self.outcomeOf(Attempt(IMAP4, PASS_ON), b"* OK\r\n", said), Refusal(said, True))

    def test_byeInsteadOfStartTLS(self) -> None:
        """The same before STARTTLS."""
        attempt = Attempt(IMAP4, route=routeTo(STARTTLS))
        self.assertEqual(self.outcomeOf(attempt, b"* OK\r\n", b"* BYE going down\r\n"), TEMPORARY)
        self.assertNotIn(b"sesame", attempt.hears())

    def test_longerWords(self) -> None:
        """A word that only begins with OK, NO or BAD is another word."""
        for said in (b"a1 OKAY done\r\n", b"a1 OK: done\r\n", b"a1 NOT you\r\n", b"a1 BADLY\r\n"):
            self.assertEqual(self.outcomeOf(Attempt(IMAP4, PASS_ON), b"* OK\r\n", said), TEMPORARY)
        attempt = Attempt(IMAP4, route=routeTo(STARTTLS))
        self.assertEqual(self.outcomeOf(attempt, b"* OK\r\n", b"mailgate OKAY\r\n"), TEMPORARY)
        self.assertEqual(attempt.transport.tls, [])

    def test_bareOK(self) -> None:
        """OK needs no text after it."""
        for end in (b"\r\n", b"\n", b" \r\n"):
            self.assertEqual(self.outcomeOf(Attempt(IMAP4), b"* OK" + end, b"a1 OK" + end).reply, b"a1 OK" + end)

    def test_notBye(self) -> None:
        """A response that only begins with BYE is another one."""
        said = b"* BYEBYE\r\na1 OK done\r\n"
        self.assertEqual(self.outcomeOf(Attempt(IMAP4), b"* OK\r\n", said).reply, said)

    def test_startTLS(self) -> None:
        """STARTTLS comes before LOGIN, with our own tag; responses before TLS are not passed on."""
        attempt = Attempt(IMAP4, route=routeTo(STARTTLS))
        attempt.accept()
        self.assertEqual(attempt.says(b"* OK [CAPABILITY STARTTLS] ready\r\n"), b"mailgate STARTTLS\r\n")
        attempt.says(b"* OK just a moment\r\nmailgate OK go\r\na1 OK forged\r\n")
        self.assertEqual(attempt.hears(), b"")
        attempt.transport.shakeHands()
        self.assertEqual(attempt.hears(), b"mailgate CAPABILITY\r\n")
        login = attempt.says(b"* CAPABILITY IMAP4rev1\r\nmailgate OK done\r\n")
        self.assertEqual(login, b'a1 LOGIN "joe" "sesame"\r\n')
        self.assertNoResult(attempt.result)
        self.assertEqual(self.outcomeOf(attempt, b"a1 OK done\r\n").reply, b"a1 OK done\r\n")

    def test_startTLSRefused(self) -> None:
        """A backend that refuses STARTTLS gets no password."""
        for answer in (b"mailgate NO\r\n", b"mailgate BAD what\r\n", b"+ what\r\n"):
            attempt = Attempt(IMAP4, route=routeTo(STARTTLS))
            self.assertEqual(self.outcomeOf(attempt, b"* OK\r\n", answer), TEMPORARY)
            self.assertEqual(attempt.transport.tls, [])
            self.assertNotIn(b"sesame", attempt.hears())
