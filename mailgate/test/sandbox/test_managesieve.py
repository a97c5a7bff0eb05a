"""
Tests for L{mailgate.sandbox.managesieve}.
"""

from __future__ import annotations

import base64

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mailgate.sandbox.account import Accounts
from mailgate.sandbox.login import sandboxPortal
from mailgate.sandbox.managesieve import SandboxManageSieve, quoted
from mailgate.sandbox.scripts import LARGEST_SCRIPT
from mailgate.sandbox.settings import SandboxSettings

PLAIN = base64.b64encode(b"\0alice\0wonderland")


class ManageSieveTests(SynchronousTestCase):
    """A connection to alice's scripts."""

    def setUp(self):
        self.clock = Clock()
        self.accounts = Accounts(SandboxSettings(), self.clock.seconds)
        self.scripts = self.accounts["alice"].scripts
        self.assertEqual(list(self.scripts.scripts), ["welcome"])
        self.scripts.delete("welcome")
        self.transport = StringTransport()
        self.server = SandboxManageSieve()
        self.server.portal = sandboxPortal(self.accounts)
        self.server.callLater = self.clock.callLater
        self.server.makeConnection(self.transport)
        self.greeting = self.heard()

    def heard(self):
        said = self.transport.value()
        self.transport.clear()
        return said

    def say(self, data):
        self.server.dataReceived(data)
        return self.heard()

    def login(self):
        self.assertEqual(self.say(b'AUTHENTICATE "PLAIN" "' + PLAIN + b'"\r\n'), b'OK "Logged in."\r\n')

    # The beginning.

    def test_greeting(self):
        """The greeting has the capabilities of RFC 5804, section 1.7; after the login they have the owner too."""
        *lines, last = self.greeting.split(b"\r\n")[:-1]
        self.assertEqual(last, b'OK "mailgate sandbox ready."')
        names = [line.split()[0] for line in lines]
        self.assertEqual(names, [b'"IMPLEMENTATION"', b'"SIEVE"', b'"SASL"', b'"VERSION"'])
        self.assertIn(b'"SASL" "PLAIN LOGIN"', lines)
        self.login()
        said = self.say(b"capability\r\n")
        self.assertIn(b'"SASL" ""\r\n', said)
        self.assertIn(b'"OWNER" "alice"\r\n', said)
        self.assertTrue(said.endswith(b'OK "Capabilities listed."\r\n'))

    def test_before(self):
        """Before the login only its commands exist."""
        for command in (b"LISTSCRIPTS", b'GETSCRIPT "a"', b"STARTTLS", b"UNAUTHENTICATE", b'"NOOP"', b"_obey", b"x"):
            self.assertEqual(self.say(command + b"\r\n"), b'NO "Unknown command."\r\n')
        self.assertEqual(self.say(b'NOOP "a\\"b"\r\n'), b'OK (TAG "a\\"b") "Done."\r\n')
        self.assertEqual(self.say(b"noop\n\r\n"), b'OK "Done."\r\n')
        self.assertFalse(self.transport.disconnecting)

    def test_after(self):
        """After the login there is no other login."""
        self.login()
        self.assertEqual(self.say(b'AUTHENTICATE "PLAIN" "' + PLAIN + b'"\r\n'), b'NO "Unknown command."\r\n')

    def test_logout(self):
        """LOGOUT is answered, and the connection closed; what follows is ignored."""
        self.assertEqual(self.say(b"LOGOUT\r\nNOOP\r\n"), b'OK "Logout completed."\r\n')
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.say(b"NOOP\r\n"), b"")

    def test_idle(self):
        """A connection that is idle for five minutes ends with BYE."""
        self.clock.advance(200)
        self.say(b"NOOP\r\n")
        self.clock.advance(299)
        self.assertEqual(self.heard(), b"")
        self.clock.advance(2)
        self.assertEqual(self.heard(), b'BYE "Idle for too long."\r\n')
        self.assertTrue(self.transport.disconnecting)

    # Logging in.

    def test_plain(self):
        """PLAIN works with the response in a literal, and behind an empty challenge."""
        self.assertEqual(self.say(b'AUTHENTICATE "plain"\r\n'), b'""\r\n')
        self.assertEqual(self.say(b"{%d+}\r\n%b\r\n" % (len(PLAIN), PLAIN)), b'OK "Logged in."\r\n')

    def test_plainAtOnce(self):
        """So it does with a literal in the command, which sieve-connect sends."""
        command = b'AUTHENTICATE "PLAIN" {%d+}\r\n%b\r\nLISTSCRIPTS\r\n' % (len(PLAIN), PLAIN)
        self.assertEqual(self.say(command), b'OK "Logged in."\r\nOK "Scripts listed."\r\n')

    def test_login(self):
        """LOGIN asks for the name and the password."""
        self.assertEqual(self.say(b'AUTHENTICATE "LOGIN"\r\n'), b'"VXNlcm5hbWU6"\r\n')
        self.assertEqual(self.say(b'"YWxpY2U="\r\n'), b'"UGFzc3dvcmQ6"\r\n')
        self.assertEqual(self.say(b'"d29uZGVybGFuZA=="\r\n'), b'OK "Logged in."\r\n')

    def test_wrong(self):
        """A wrong login is refused, and the right one follows on the same connection."""
        for response in (b"\0alice\0x", b"\0bob\0wonderland", b"bob\0alice\0wonderland", b"alice", b"", b"\0\0\0"):
            said = self.say(b'AUTHENTICATE "PLAIN" "' + base64.b64encode(response) + b'"\r\n')
            self.assertEqual(said, b'NO "Authentication failed."\r\n')
        self.login()

    def test_malformed(self):
        """What is no response ends the attempt, not the connection."""
        for response in (
            b'"*"',
            b'"="',
            b'"YQ"',
            b"YQ==",
            b"",
            b'"YQ==" "YQ=="',
            b'"YQ==',
            b"{99999+}\r\n" + b"x" * 99999,
        ):
            self.assertEqual(self.say(b'AUTHENTICATE "PLAIN"\r\n'), b'""\r\n')
            self.assertEqual(self.say(response + b"\r\n")[:4], b'NO "', response)
        for command in (b'"CRAM-MD5"', b"PLAIN", b'"PLAIN" YQ==', b"", b'"PLAIN" "" ""'):
            self.assertEqual(self.say(b"AUTHENTICATE " + command + b"\r\n")[:4], b'NO "', command)
        self.login()

    # Scripts.

    def test_dialogue(self):
        """Scripts are stored, listed, activated, renamed, read and deleted."""
        self.login()
        for command, reply in (
            (b'HAVESPACE "a" 100', b'OK "There is room."'),
            (b'PUTSCRIPT "a" {5+}\r\nkeep;', b'OK "Stored."'),
            (b'PUTSCRIPT "\xc3\xa9 \\"b\\"" "stop;"', b'OK "Stored."'),
            (b'SETACTIVE "a"', b'OK "Done."'),
            (b"LISTSCRIPTS", b'"a" ACTIVE\r\n"\xc3\xa9 \\"b\\""\r\nOK "Scripts listed."'),
            (b'RENAMESCRIPT "a" "c"', b'OK "Renamed."'),
            (b'GETSCRIPT "c"', b'{5}\r\nkeep;\r\nOK "Script sent."'),
            (b'DELETESCRIPT "c"', b'NO (ACTIVE) "The active script cannot be deleted."'),
            (b'SETACTIVE ""', b'OK "Done."'),
            (b"DELETESCRIPT {1}\r\nc", b'OK "Deleted."'),
            (b'GETSCRIPT "c"', b'NO (NONEXISTENT) "There is no script with this name."'),
            (b'CHECKSCRIPT "keep"', b'NO "line 1: error: the last command does not end with a semicolon"'),
            (b'CHECKSCRIPT "keep;"', b'OK "The form of the script is right."'),
        ):
            self.assertEqual(self.say(command + b"\r\n"), reply + b"\r\n", command)
        self.assertEqual(self.scripts.scripts, {'é "b"': b"stop;"})

    def test_arguments(self):
        """Wrong arguments are refused."""
        self.login()
        for command in (
            b"PUTSCRIPT", b'PUTSCRIPT "a"', b"PUTSCRIPT a b", b'HAVESPACE "a" "1"', b'HAVESPACE "a" x', b"GETSCRIPT a",
            b'LISTSCRIPTS "a"', b'NOOP "a" "b"', b'HAVESPACE "a" 99999999999',
        ):  # fmt: skip
            self.assertEqual(self.say(command + b"\r\n"), b'NO "Wrong arguments."\r\n', command)
        self.assertEqual(self.say(b'GETSCRIPT "\xff"\r\n'), b'NO "The name of a script must be UTF-8."\r\n')
        self.assertEqual(self.say(b'GETSCRIPT "a\r\n'), b'NO "Unknown command."\r\n')

    def test_split(self):
        """A dialogue has the same replies wherever its bytes are split."""
        self.login()
        commands = b'PUTSCRIPT {3+}\r\na"b {7+}\r\nkeep;\r\n\r\nLISTSCRIPTS\r\nGETSCRIPT "a\\"b"\r\n'
        whole = self.say(commands)
        self.assertEqual(
            whole, b'OK "Stored."\r\n"a\\"b"\r\nOK "Scripts listed."\r\n{7}\r\nkeep;\r\n\r\nOK "Script sent."\r\n'
        )
        for place in range(1, len(commands)):
            self.assertEqual(self.say(commands[:place]) + self.say(commands[place:]), whole, place)
        self.assertEqual(b"".join(self.say(commands[n : n + 1]) for n in range(len(commands))), whole)

    # Bounds.

    def test_longLine(self):
        """A line without an end closes the connection."""
        self.assertEqual(self.say(b"x" * 9000), b'BYE "The line is too long."\r\n')
        self.assertTrue(self.transport.disconnecting)

    def test_largeLiteral(self):
        """A literal larger than any script is dropped as it arrives, and the command refused; the next one works."""
        self.login()
        self.say(b'PUTSCRIPT "a" {%d+}\r\n' % (LARGEST_SCRIPT + 1))
        for _ in range(LARGEST_SCRIPT // 1024):
            self.say(b"NOOP\r\n" * 170 + b"1234")
            self.assertLess(len(self.server._buffer), 1025)
        self.assertEqual(self.say(b"N\r\n"), b'NO (QUOTA/MAXSIZE) "A string can have 65536 bytes."\r\n')
        self.assertEqual(self.say(b"NOOP\r\n"), b'OK "Done."\r\n')

    def test_malformedLiteral(self):
        """The literal of a malformed command is no command."""
        self.login()
        said = self.say(b'x "a" "b" "c" "d" {8+}\r\nLOGOUT\r\n\r\nNOOP\r\n')
        self.assertEqual(said, b'NO "Unknown command."\r\nOK "Done."\r\n')

    def test_slowReader(self):
        """While a client does not read, the server neither reads nor obeys."""
        self.login()
        self.scripts.put("a", b"#" * 1000)
        self.transport.producer.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        self.assertEqual(self.say(b'GETSCRIPT "a"\r\n' * 3), b"")
        self.transport.producer.resumeProducing()
        self.assertEqual(self.heard().count(b"{1000}"), 3)
        self.assertEqual(self.transport.producerState, "producing")

    def test_gone(self):
        """Nothing is left of a client that disconnects."""
        self.server.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class QuotedTests(SynchronousTestCase):
    """Tests for L{quoted}."""

    def test_kinds(self):
        """Text is quoted; what a quoted string cannot hold is a literal."""
        for raw, written in (
            ("", b'""'),
            ('a"b\\', b'"a\\"b\\\\"'),
            ("é", b'"\xc3\xa9"'),
            (b"a\nb", b"{3}\r\na\nb"),
            (b"x" * 1025, b"{1025}\r\n" + b"x" * 1025),
        ):
            self.assertEqual(quoted(raw), written)
