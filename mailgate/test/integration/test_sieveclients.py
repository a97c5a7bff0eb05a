"""
Clients of ManageSieve: sieve-connect of Debian; the dialogues of Roundcube's Net_Sieve and of the Sieve add-on of
Thunderbird, to the byte.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess

from mailgate.test.integration.clients import run
from mailgate.test.integration.daemon import newFolder
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.gateway import environment
from mailgate.test.integration.sieveclient import SieveClient, plain
from mailgate.test.integration.test_commands import MAILGATE
from mailgate.test.integration.test_sieve import OWNER, SCRIPT, SieveTestCase

_LONGEST_LINE = 8192
"""Roundcube reads no longer lines."""


class SieveConnectTests(SieveTestCase):
    """sieve-connect, over STARTTLS, with the verification of the gateway's certificate."""

    needs = ("sieve-connect",)

    def setUp(self):
        super().setUp()
        self.folder = newFolder("sieveconnect")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def connect(self, name, *arguments, password=PASSWORD):
        """Run it at C{[server NAME]}."""
        address = self.at(name, "starttls")
        options = ["--server", "localhost", "--4", "--port", str(address.port), "--tlscafile", address.authority]
        options += ["--noclearchan", "--user", self.user, "--passwordfd", "0", *arguments]
        return run("sieve-connect", options, password.encode() + b"\n")

    def assertWorks(self, name):
        """Scripts are uploaded, listed, activated, downloaded and deleted in one session."""
        with open(self.path("script"), "wb") as file:
            file.write(SCRIPT)
        with open(self.path("commands"), "w") as file:
            commands = ("upload script first", "upload script second", "activate second", "list", "deactivate")
            commands += ("download first copy", "delete second", "list", "quit")
            file.write("".join(f"{command}\n" for command in (f"lcd {self.folder}", *commands)))
        ended = self.connect(name, "--exec", self.path("commands"))
        self.assertEqual(ended.returncode, 0, ended.stdout)
        self.assertIn(b'"first"\n"second" ACTIVE\n"first"\n', ended.stdout.replace(b"\r", b""))
        with open(self.path("copy"), "rb") as file:
            self.assertEqual(file.read(), SCRIPT)

    def test_scripts(self):
        """It works through a gateway, which knows what Pigeonhole offers."""
        self.assertWorks("sieve")

    def test_twice(self):
        """It works through two gateways in a row, with an action of the command line."""
        self.assertTrue(self.connect("twice", "--list").returncode == 0)

    def test_wrongPassword(self):
        """A wrong password is refused in the words of Pigeonhole."""
        ended = self.connect("judged", "--list", password="wrong")
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn(b"Authentication failed.", ended.stdout)


class DialogueTests(SieveTestCase):
    """Dialogues of other clients. Each command is sent whole, then again byte by byte."""

    def converse(self, tls, isSlow, dialogue):
        """
        Send each command of C{dialogue}, and compare the replies.

        @param tls: C{plain} or C{starttls}.
        @param isSlow: whether each byte is sent alone.
        @param dialogue: pairs of a command and the beginning and the end of its reply.
        """
        client = SieveClient(self.at("sieve", tls))
        self.addCleanup(client.close)
        for command, beginning, end in dialogue:
            for piece in (bytes((byte,)) for byte in command) if isSlow else (command,):
                client.send(piece)
            # A challenge is a line of its own.
            reply = client.line() if end == b'"\r\n' else client.reply()
            self.assertTrue(reply.startswith(beginning), (command, reply))
            self.assertTrue(reply.endswith(end), (command, reply))
            for line in reply.splitlines():
                self.assertLess(len(line), _LONGEST_LINE)
        self.assertEqual(client.rest(), b"")

    def test_roundcube(self):
        """
        Net_Sieve logs in, asks for the capabilities, and then for the scripts. It sends names that are not ASCII as
        literals.
        """
        message = plain(self.user, PASSWORD)
        name = "Wäsche".encode()
        for tls, isSlow in (("starttls", False), ("plain", True)):
            self.converse(
                tls,
                isSlow,
                (
                    (b'AUTHENTICATE "PLAIN" "' + message + b'"\r\n', b'OK "Logged in."', b"\r\n"),
                    (b"CAPABILITY\r\n", b'"IMPLEMENTATION" "', b'OK "Capability completed."\r\n'),
                    (b"LISTSCRIPTS\r\n", b"", b'OK "Listscripts completed."\r\n'),
                    (b'HAVESPACE "managesieve" 99\r\n', b"OK", b"\r\n"),
                    (b'PUTSCRIPT "managesieve" {%d+}\r\n%b\r\n' % (len(SCRIPT), SCRIPT), b"OK", b"\r\n"),
                    (b"PUTSCRIPT {%d+}\r\n%b {0+}\r\n\r\n" % (len(name), name), b"OK", b"\r\n"),
                    (b'PUTSCRIPT "bad" {4+}\r\nkeep\r\n', b"NO ", b"\r\n"),
                    (b'SETACTIVE "managesieve"\r\n', b"OK", b"\r\n"),
                    (b'GETSCRIPT "managesieve"\r\n', b"{%d}\r\n%b\r\nOK" % (len(SCRIPT), SCRIPT), b"\r\n"),
                    (b'SETACTIVE ""\r\n', b"OK", b"\r\n"),
                    (b"DELETESCRIPT {%d+}\r\n%b\r\n" % (len(name), name), b"OK", b"\r\n"),
                    (b"LOGOUT\r\n", b'OK "Logout completed."', b"\r\n"),
                ),
            )

    def test_thunderbird(self):
        """
        The add-on asks for the capabilities before the login, logs in with a quoted initial response, and lists the
        scripts at once; nothing may follow the OK of the login.
        """
        message = plain(self.user, PASSWORD)
        for tls, isSlow in (("starttls", False), ("plain", True)):
            self.converse(
                tls,
                isSlow,
                (
                    (b"CAPABILITY\r\n", b'"', b'OK "Capability completed."\r\n'),
                    (b'AUTHENTICATE "PLAIN" "' + message + b'"\r\n', b'OK "Logged in."', b"\r\n"),
                    (b"LISTSCRIPTS\r\n", b"", b'OK "Listscripts completed."\r\n'),
                    (b"CHECKSCRIPT {%d+}\r\n%b\r\n" % (len(SCRIPT), SCRIPT), b"OK", b"\r\n"),
                    (b"NOOP\r\n", b"OK", b"\r\n"),
                    (b"LOGOUT\r\n", b'OK "Logout completed."', b"\r\n"),
                ),
            )

    def test_thunderbirdLogin(self):
        """With LOGIN it answers two challenges with quoted strings; a cancelled attempt leaves the next one alone."""
        prompts = (b'"VXNlcm5hbWU6"\r\n', b'"UGFzc3dvcmQ6"\r\n')
        user, password = (b'"' + base64.b64encode(text.encode()) + b'"\r\n' for text in (self.user, PASSWORD))
        self.converse(
            "plain",
            False,
            (
                (b'AUTHENTICATE "LOGIN"\r\n', prompts[0], b'"\r\n'),
                (b'"*"\r\n', b"NO ", b"\r\n"),
                (b'AUTHENTICATE "LOGIN"\r\n', prompts[0], b'"\r\n'),
                (user, prompts[1], b'"\r\n'),
                (password, b'OK "Logged in."', b"\r\n"),
                (b"LOGOUT\r\n", b'OK "Logout completed."', b"\r\n"),
            ),
        )


class WhoamiTests(SieveTestCase):
    """C{mailgate whoami} at Pigeonhole."""

    def test_transcript(self):
        """It logs in over STARTTLS with XCLIENT, and shows everything but the password."""
        password = os.path.join(self.site.folder, "password")
        with open(password, "w") as file:
            file.write(PASSWORD)
        options = ["--config", self.site.gateway.configuration, "--user", self.user, "--password-file", password]
        options += ["--server", "verified", "--address", OWNER]
        ended = subprocess.run([*MAILGATE, "whoami", *options], capture_output=True, text=True, env=environment())
        self.assertEqual((ended.returncode, ended.stderr), (0, ""), ended.stdout)
        expected = ("C: STARTTLS", "-- TLS is established", f"C: XCLIENT ADDR={OWNER} ", 'C: AUTHENTICATE "PLAIN" ...')
        places = [ended.stdout.index(line) for line in (*expected, 'S: OK "Logged in."', "logged in\n")]
        self.assertEqual(places, sorted(places))
        self.assertNotIn(plain(self.user, PASSWORD).decode(), ended.stdout)
