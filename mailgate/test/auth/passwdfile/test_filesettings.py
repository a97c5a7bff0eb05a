"""
Tests of the directives of C{auth_file}, and of what C{mailgate check} reports about the file.
"""

from __future__ import annotations

import os
import sys
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.passwdfile import slowhashes
from mailgate.auth.passwdfile.authenticator import FileSettings
from mailgate.config import parse
from mailgate.directives import ConfigurationError, ServerSettings
from mailgate.system.processors import WorkerSettings
from mailgate.test.support.passwdfiles import SALTED, SLOW, AuthenticatorTestCase

YESCRYPT = b"$y$j75$k2XAnEHBqQ1Ct2aMXFKNa/$Tg4ZRR7tz/WRlmYbADZh9OJYakPewgSPQqW55EXAJ14"


class ProblemTests(AuthenticatorTestCase):
    """Errors in the file."""

    def problems(self, *lines: bytes, given: tuple[str, ...] = ("proxy_pass",), protocol: str = "imap") -> list[str]:
        """Return the errors in C{lines}."""
        self.write(*lines)
        return [problem.message for problem in self.found(given, protocol)]

    def found(self, given: tuple[str, ...] = ("proxy_pass",), protocol: str = "imap") -> list[Any]:
        """Return the errors in the current file."""
        server = self.settings(protocol, *given)
        return list(server[FileSettings].problems(server))

    def test_none(self) -> None:
        """A valid file has no errors, with every scheme, comments and a locked account."""
        self.assertEqual(
            self.problems(b"# accounts", b"", b"joe:{PLAIN}x", b"ann:" + SLOW, b"bob:" + SALTED, b"off:!", b"eve:*"), []
        )

    def test_place(self) -> None:
        """An error names the server, the option, the file and the line number, with comments counted."""
        self.write(b"# accounts", b"", b"joe:{PLAIN}x", b"ann:{PLIAN}x")
        (problem,) = self.found()
        self.assertEqual(
            str(problem),
            f"gateway.ini: [server test] auth_file = {self.path}: "
            "line 4 (ann): the password has the unknown scheme PLIAN; did you mean PLAIN?",
        )

    def test_each(self) -> None:
        """Every invalid line is reported once."""
        self.assertEqual(
            [message.partition(":")[0] for message in self.problems(b"a:", b"b:{PLAIN}x", b"c", b"d:{MD5}x", b":x")],
            ["line 1 (a)", "line 3 (c)", "line 4 (d)", "line 5 ()"],
        )

    def test_duplicate(self) -> None:
        """A second line for a user, without regard to case, is an error that names the first."""
        self.assertEqual(
            self.problems(b"joe:{PLAIN}x", b"ann:{PLAIN}x", b"JOE:{PLAIN}x"),
            ["line 3 (JOE): the user has an account in line 1 already"],
        )

    def test_noHost(self) -> None:
        """An account without a host is an error only if the server has no proxy_pass."""
        lines = (b"joe:{PLAIN}x", b"ann:{PLAIN}x::::::host=a", b"bob:{PLAIN}x::::::ssl=no")
        self.assertEqual(self.problems(*lines), [])
        message = "host is missing, and the server has no proxy_pass as a default"
        self.assertEqual(self.problems(*lines, given=()), [f"line 1 (joe): {message}", f"line 3 (bob): {message}"])

    def test_protocol(self) -> None:
        """A host without a port is an error if the protocol has no default port."""
        self.assertEqual(self.problems(b"joe:{PLAIN}x::::::host=a", protocol="pop3"), [])
        (message,) = self.problems(b"joe:{PLAIN}x::::::host=a", protocol="nntp")
        self.assertIn("port is missing; nntp has no default port", message)

    def test_library(self) -> None:
        """If the library for a scheme is missing, the error names what to install."""
        argon2 = b"$argon2id$v=19$m=65536,t=3,p=1$NGUx3JYFI0tpej5jQ1X8zA$hWdAYOIhSIkznhMdqM6MVbe5Z9WMBvHQv+PrnHCjMDE"
        with patch.dict(sys.modules, argon2=None):
            (message,) = self.problems(b"joe:{ARGON2ID}" + argon2, b"ann:{PLAIN}x", b"bob:" + SALTED)
        self.assertIn('pip install "mailgate[passwdfile]"', message)

    def test_system(self) -> None:
        """A hash that the system does not support is an error."""
        self.patch(slowhashes, "loadCrypt3", lambda: None)
        (message,) = self.problems(b"joe:" + YESCRYPT, b"ann:{PLAIN}x")
        text = "line 1 (joe): the password is a yescrypt hash, which this system's libcrypt does not support"
        self.assertEqual(message, text)

    def test_unreadable(self) -> None:
        """A file that cannot be read is one error."""
        self.assertEqual([problem.message for problem in self.found()], ["cannot be read: No such file or directory"])

    def test_quotesNoSecret(self) -> None:
        """No error quotes a password or a hash, and control characters of names are escaped."""
        messages = self.problems(
            b"a:hunter2",
            b"b:{hunter2",
            b"c:{PLAIN.HEX}hunter2",
            b"d:{PLAIN}x::::::pass=hunter2%",
            b"e:{CRYPT}$6$hunter2",
            b"f\x1b[2J:{SSHA256}hunter2=",
            b"g:{PLAIN}hunter2::::::host=a:1",
        )
        self.assertEqual(len(messages), 7)
        self.assertNotIn("hunter2", "".join(messages))
        self.assertNotIn("\x1b", "".join(messages))


class WarningTests(AuthenticatorTestCase):
    """Warnings about the file."""

    ROUNDS = b"{SHA512-CRYPT}$6$rounds=656000$saltsalt$" + b"x" * 86

    def warnings(self, *lines: bytes) -> list[str]:
        """Return the warnings for C{lines}."""
        self.write(*lines)
        server = self.settings()
        return [problem.message for problem in server[FileSettings].warnings(server)]

    def test_rounds(self) -> None:
        """A hash with very many rounds is reported with its line and its user."""
        self.assertEqual(
            self.warnings(b"# accounts", b"ann:" + SLOW, b"joe:" + self.ROUNDS + b"::::::host=a"),
            [
                "line 3 (joe): the password takes 656000 rounds, so that each login keeps a processor busy;"
                " use 100000 or fewer"
            ],
        )

    def test_none(self) -> None:
        """Usual hashes, other schemes, locked accounts, invalid lines and no file cause no warning."""
        self.assertEqual(self.warnings(b"a:" + SLOW, b"b:{PLAIN}x", b"c", b"d:{MD5}x", b"e:*", b"f:" + SALTED), [])
        self.assertEqual(self.warnings(b"a:" + self.ROUNDS.replace(b"656000", b"100000")), [])
        self.path = self.mktemp()
        server = self.settings()
        self.assertEqual(list(server[FileSettings].warnings(server)), [])
        self.assertEqual(list(FileSettings().warnings(server)), [])

    def test_bounded(self) -> None:
        """At most ten lines are listed one by one; the others are counted."""
        warnings = self.warnings(*(b"user%d:" % number + self.ROUNDS for number in range(25)))
        self.assertEqual(len(warnings), 11)
        self.assertEqual(warnings[-1], "15 more lines have slow password hashes")


class DirectiveTests(SynchronousTestCase):
    """The directives besides auth_file."""

    def server(self, mail: str = "", more: str = "", mailgate: str = "") -> ServerSettings:
        """Return a server with C{mail} in [mail] and C{more} in its own section."""
        accounts = self.mktemp()
        with open(accounts, "wb"):
            pass
        servers = f"[server imap]\nlisten = 127.0.0.1:143\n{more}\n"
        head = f"[mailgate]\n{mailgate}\n[mail]\nauth_file = {os.path.abspath(accounts)}\nproxy_pass = 10.0.0.1:143\n"
        return parse(f"{head}{mail}\n{servers}").servers[0]

    def test_defaults(self) -> None:
        """By default the number of processors decides, and right passwords are remembered for five minutes."""
        settings = self.server()[FileSettings]
        self.assertEqual((settings.mostHashes, settings.cacheTTL), (0, 300.0))

    def test_given(self) -> None:
        """Both directives have values; the time may differ between servers."""
        server = self.server("auth_file_max_hashes = 4", "auth_file_cache_ttl = 0")
        self.assertEqual((server[FileSettings].mostHashes, server[FileSettings].cacheTTL), (4, 0.0))
        self.assertEqual(self.server("auth_file_max_hashes = auto")[FileSettings].mostHashes, 0)

    def test_wrong(self) -> None:
        """The number is from 1 to 256."""
        for value in ("0", "257", "-1", "x", "", "99999"):
            error = self.assertRaises(ConfigurationError, self.server, f"auth_file_max_hashes = {value}")
            self.assertIn("[mail] auth_file_max_hashes", str(error))

    def test_conflict(self) -> None:
        """Different numbers in two servers are an error; a server without auth_file does not count."""
        other = "[server pop3]\nlisten = 127.0.0.1:110\n"
        number = "auth_file_max_hashes = "
        place, reason = "[server pop3] auth_file_max_hashes", "set it once, in [mail]"
        same = "must be equal in all servers, but server imap has"
        for mail, imap, pop3, expected in (
            ("", number + "4", "", f"{place} = auto: {same} 4; {reason}"),
            ("", "", number + "4", f"{place} = 4: {same} auto; {reason}"),
            (number + "3", "", number + "4", f"{place} = 4: {same} 3; {reason}"),
        ):
            error = self.assertRaises(ConfigurationError, self.server, mail, f"{imap}\n{other}{pop3}")
            self.assertIn(expected, str(error))
        self.server("", f"{number}4\n{other}{number}4")
        self.server(number + "4", f"{other}auth_http = http://127.0.0.1:9000/auth\n{number}5")

    def test_workers(self) -> None:
        """A server knows the number of worker processes."""
        self.assertEqual(self.server()[WorkerSettings].count, 1)
        self.assertEqual(self.server(mailgate="worker_processes = 3")[WorkerSettings].count, 3)
