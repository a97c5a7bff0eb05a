"""
The settings and limits of every dialogue.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.frontend.protocol import MailProtocol
from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Denial, Method, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.registry import PROTOCOLS
from mailgate.session import Outcome
from mailgate.testing import Conversation, FakeAuthenticator

AUTH_HTTP = "auth_http = http://127.0.0.1:9000/auth\n"
INVALID = {
    IMAP4: b" BAD invalid command\r\n",
    POP3: b"-ERR invalid command\r\n",
    SMTP: b"500 5.5.1 Invalid command\r\n",
}
GOODBYES = {
    IMAP4: b"* BYE Too many commands, closing connection\r\n",
    POP3: b"",
    SMTP: b"421 4.7.0 Too many commands, closing connection\r\n",
}
NOOP = {IMAP4: b"a NOOP", POP3: b"NOOP", SMTP: b"NOOP"}


def serving(protocol: str, *lines: str) -> str:
    """A configuration with one server."""
    return "\n".join(("[server x]", "listen = 127.0.0.1:1", f"protocol = {protocol}", *lines))


class SettingsTests(SynchronousTestCase):
    """The directives."""

    def settings(self, *lines: str) -> DialogueSettings:
        """The settings of a server with C{lines} in [mail]."""
        (server,) = parse("[mail]\n" + "\n".join(lines) + "\n" + serving("imap", AUTH_HTTP)).servers
        return server[DialogueSettings]

    def fault(self, text: str) -> str:
        """The only error in C{text}."""
        error = self.assertRaises(ConfigurationError, parse, text)
        (problem,) = error.problems
        self.assertTrue(problem.line)
        return str(problem).removeprefix(f"gateway.ini:{problem.line}: ")

    def test_defaults(self) -> None:
        """A thousand commands, and only the listed methods."""
        settings = self.settings()
        self.assertEqual((settings.maxCommands, settings.unlistedAuth), (1000, False))

    def test_given(self) -> None:
        """Both directives may stand in [mail] or in a server."""
        settings = self.settings("max_commands = 20", "unlisted_auth = on")
        self.assertEqual((settings.maxCommands, settings.unlistedAuth), (20, True))
        (server,) = parse(serving("pop3", AUTH_HTTP, "max_commands = 7", "unlisted_auth = OFF")).servers
        self.assertEqual(server[DialogueSettings].maxCommands, 7)

    def test_refused(self) -> None:
        """A value that is not a number or a flag is refused."""
        for value in ("-1", "many", "1k", ""):
            fault = self.fault(serving("imap", AUTH_HTTP, f"max_commands = {value}"))
            self.assertTrue(fault.endswith(": must be a whole number, such as 5"), fault)
        fault = self.fault(serving("imap", AUTH_HTTP, "unlisted_auth = plain"))
        self.assertEqual(fault, '[server x] unlisted_auth = plain: must be "on" or "off"')

    def test_words(self) -> None:
        """Every protocol has the words of OAuth, in any case, announced last."""
        for name, record in PROTOCOLS.items():
            (server,) = parse(serving(name, AUTH_HTTP, f"{name}_auth = OAUTHBEARER plain XOAuth2 external")).servers
            self.assertEqual(server[record.settings].mechanisms[-3:], (b"EXTERNAL", b"XOAUTH2", b"OAUTHBEARER"))
            wanted = {Method.PLAIN, Method.EXTERNAL, Method.XOAUTH2, Method.OAUTHBEARER}
            self.assertEqual(record.methods(server), wanted)

    def test_unknownWord(self) -> None:
        """An unknown word is refused."""
        for name in PROTOCOLS:
            fault = self.fault(serving(name, AUTH_HTTP, f"{name}_auth = oauth2"))
            self.assertIn('"oauth2" is unknown; use some of plain, ', fault)
            self.assertIn("external, ", fault)
            self.assertTrue(fault.endswith("did you mean xoauth2?"), fault)

    def test_tokensAreJudgedByServices(self) -> None:
        """Neither a backend alone nor a file can judge a token."""
        accounts = os.path.abspath(self.mktemp())
        with open(accounts, "w", encoding="ascii") as opened:
            opened.write("joe:{PLAIN}sesame::::::host=10.0.0.1\n")
        for directive, value in (("proxy_pass", "10.0.0.1:143"), ("auth_file", accounts)):
            for name in PROTOCOLS:
                text = serving(name, f"{directive} = {value}", f"{name}_auth = plain xoauth2 oauthbearer")
                expected = f"[server x] {name}_auth: offers oauthbearer, xoauth2, which {directive} does not support"
                self.assertEqual(self.fault(text), expected)

    def test_roomForTokens(self) -> None:
        """C{sasl_max_response} is apart from the buffer of commands, so a small buffer causes no warning."""
        for name in PROTOCOLS:
            text = serving(name, AUTH_HTTP, f"{name}_auth = plain xoauth2", f"{name}_client_buffer = 4k")
            if name == "smtp":
                text += "\nsmtp_capabilities = 8BITMIME"
            settings = parse(text)
            self.assertEqual([str(warning) for warning in settings.warnings], [])
            self.assertEqual(settings.servers[0][DialogueSettings].maxResponse, 12288)
            for size in ("1023", "1025k"):
                fault = self.fault(text + f"\nsasl_max_response = {size}")
                self.assertIn("sasl_max_response = ", fault)
                self.assertIn("must be from 1k to 1m", fault)

    def test_unlistedMethods(self) -> None:
        """Methods that are accepted without being listed count: the authenticator must judge them."""
        for name, record in PROTOCOLS.items():
            text = serving(name, AUTH_HTTP, f"{name}_auth = external")
            self.assertEqual(record.methods(parse(text).servers[0]), {Method.EXTERNAL})
            listed = record.methods(parse(text + "\nunlisted_auth = on").servers[0])
            self.assertEqual(listed, {Method.EXTERNAL, Method.PLAIN})
        parse(serving("imap", "proxy_pass = 10.0.0.1:143", "unlisted_auth = on"))


class MostCommandsTests(SynchronousTestCase):
    """C{max_commands}."""

    def converse(
        self, record: MailProtocol, most: int = 3, errors: int = 5, authenticator: FakeAuthenticator | None = None
    ) -> Conversation:
        """A conversation past its greeting with a limit of C{most} commands."""
        conversation = Conversation(
            record,
            DialogueSettings(serverName="mx.test", maxCommands=most, maxErrors=errors),
            IMAP4Settings(auth=("plain", "login")),
            POP3Settings(),
            SMTPSettings(auth=("plain", "login", "none")),
            authenticator=authenticator,
        )
        conversation.hear()
        return conversation

    def assertOneTooMany(self, conversation: Conversation, heard: bytes) -> None:
        """The last reply in C{heard} refuses a command, and the connection has ended for it."""
        record = PROTOCOLS[conversation.settings.protocol]
        self.assertTrue(heard.endswith(INVALID[record] + GOODBYES[record]), heard)
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.COMMANDS)
        # The line at the connection's end has the outcome; there is no other line.
        self.assertEqual([line for line in conversation.logged() if not line.startswith("login failed: ")], [])

    def test_limit(self) -> None:
        """The command beyond the limit is refused and ends the connection; those before it are obeyed."""
        for record, noop in NOOP.items():
            conversation = self.converse(record)
            heard = conversation.says(noop, noop, noop)
            self.assertNotIn(INVALID[record], heard)
            self.assertFalse(conversation.closed)
            heard = conversation.says(noop, noop)
            self.assertEqual(heard.removeprefix(b"a"), INVALID[record] + GOODBYES[record])
            self.assertOneTooMany(conversation, heard)

    def test_none(self) -> None:
        """With a limit of 0 the first command is one too many."""
        for record, noop in NOOP.items():
            conversation = self.converse(record, most=0)
            self.assertOneTooMany(conversation, conversation.says(noop))

    def test_atTheWrongMoment(self) -> None:
        """A known command at the wrong moment counts here, although it is not an error."""
        for record, lines in (
            (IMAP4, (b"a LOGIN", b"a STARTTLS", b"a AUTHENTICATE X")),
            (POP3, (b"PASS x", b"STLS", b"APOP")),
            (SMTP, (b"VRFY", b"RCPT TO:<a>", b"EHLO")),
        ):
            conversation = self.converse(record, errors=1)
            conversation.says(*lines)
            self.assertFalse(conversation.closed)
            self.assertOneTooMany(conversation, conversation.says(NOOP[record]))

    def test_responses(self) -> None:
        """Responses to challenges count, and so do failed logins."""
        auth = {IMAP4: b"a AUTHENTICATE LOGIN", POP3: b"AUTH LOGIN", SMTP: b"AUTH LOGIN"}
        for record, begin in auth.items():
            refusing = FakeAuthenticator(Denial(Trouble.DENIED))
            conversation = self.converse(record, authenticator=refusing)
            conversation.says(begin, b"am9l", b"eA==")
            self.assertEqual(len(conversation.requests), 1)
            self.assertOneTooMany(conversation, conversation.says(NOOP[record]))
            conversation = self.converse(record)
            conversation.says(NOOP[record], begin, b"am9l")
            self.assertOneTooMany(conversation, conversation.says(b"eA=="))
            self.assertEqual(conversation.requests, [])

    def test_errors(self) -> None:
        """Unknown commands do not count here: max_errors limits them."""
        for record, noop in NOOP.items():
            conversation = self.converse(record, errors=9)
            conversation.says(noop, b"", noop, b"%", noop, b"XYZ", b"N\0", b"")
            self.assertFalse(conversation.closed)
            self.assertOneTooMany(conversation, conversation.says(noop))

    def test_literals(self) -> None:
        """An IMAP command counts once, whatever its literals. A command that is refused between them does not count."""
        conversation = self.converse(IMAP4, authenticator=FakeAuthenticator(Denial(Trouble.DENIED)))
        conversation.says(b"a LOGIN {3+}", b"joe {1+}", b"x", b"b NOOP {1+}", b"x", b"c NOOP {1+}", b"x%", b"d NOOP")
        self.assertEqual(len(conversation.requests), 1)
        self.assertFalse(conversation.closed)
        self.assertOneTooMany(conversation, conversation.says(b"e NOOP"))

    def test_afterLogin(self) -> None:
        """Commands after the login are not counted."""
        conversation = self.converse(POP3)
        conversation.says(b"USER joe", b"PASS x", *[b"NOOP"] * 50)
        self.assertFalse(conversation.closed)
