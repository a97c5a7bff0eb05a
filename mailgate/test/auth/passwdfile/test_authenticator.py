"""
Tests of L{mailgate.auth.passwdfile.authenticator}. The meaning of the lines was verified with Dovecot 2.3.19 and
C{doveadm auth test}.
"""

from __future__ import annotations

import hashlib
import hmac

from twisted.internet.interfaces import IReactorThreads
from zope.interface.verify import verifyObject

from mailgate.auth.passwdfile.accounts import BadLine, parseAccount
from mailgate.auth.passwdfile.authenticator import KIND, FileSettings
from mailgate.directives import ServerSettings, directives
from mailgate.interfaces import IAuthenticator
from mailgate.login import Backend, BackendTLS, Denial, Method, Route, Trouble
from mailgate.test.support.passwdfiles import DEFAULT, SALT, SALTED, SLOW, AuthenticatorTestCase


class ContractTests(AuthenticatorTestCase):
    """The requirements for an authenticator."""

    def test_interfaces(self) -> None:
        """The authenticator provides its interface, and the tests' reactor provides its own."""
        verifyObject(IAuthenticator, self.build(b"joe:{PLAIN}secret"))

    def test_oneHashing(self) -> None:
        """All servers on a reactor share the threads for hashes."""
        first, second = (self.build(b"joe:{PLAIN}secret") for _ in range(2))
        self.assertIs(first._hashing, second._hashing)
        verifyObject(IReactorThreads, self.reactor)

    def test_kind(self) -> None:
        """auth_file selects it, for logins with a password, CRAM-MD5, APOP and SCRAM."""
        self.assertEqual((KIND.name, KIND.directive, KIND.settings), ("file", "auth_file", FileSettings))
        methods = {Method.PLAIN, Method.CRAM_MD5, Method.APOP, Method.SCRAM_SHA_256, Method.SCRAM_SHA_1}
        self.assertEqual(KIND.methods, methods)
        names = {declared.name for declared in directives(FileSettings)}
        self.assertEqual(names, {"auth_file", "auth_file_max_hashes", "auth_file_cache_ttl"})

    def test_withoutFile(self) -> None:
        """Without auth_file there are no problems, and nothing to build."""
        server = ServerSettings("test", "imap", ())
        self.assertEqual(list(FileSettings().problems(server)), [])
        self.assertRaises(ValueError, KIND.build, server, None, self.reactor, self.journal)


class PasswordLoginTests(AuthenticatorTestCase):
    """Logins with a password."""

    def test_accepted(self) -> None:
        """The right password gets a route with the account's backend, its user, and the client's password."""
        self.build(b"joe:{PLAIN}secret::::::host=10.0.0.1 port=144 ssl=any-cert")
        backend = Backend("10.0.0.1", 144, BackendTLS.IMPLICIT, False)
        self.assertEqual(self.login(b"joe", b"secret"), Route((backend,), b"joe", b"secret"))
        self.assertEqual(self.logged(), [])

    def test_otherUserAndPasswordBehind(self) -> None:
        """destuser and pass replace the user and password of the client."""
        self.build(b"joe:" + SALTED + b"::::::host=a destuser=joseph pass=inner")
        self.assertEqual(self.login(b"joe", b"secret"), Route((Backend("a", 143),), b"joseph", b"inner"))

    def test_default(self) -> None:
        """Without host the account uses the default backend."""
        self.build(b"joe:{PLAIN}secret::::::ssl=no destuser=joseph")
        self.assertEqual(self.login(b"joe", b"secret"), Route((DEFAULT,), b"joseph", b"secret"))

    def test_defaultIsNotChanged(self) -> None:
        """Port and TLS need a host: a line with them and without host is invalid."""
        for fields in ("port=1", "ssl=yes", "starttls=any-cert"):
            line = f"joe:{{PLAIN}}secret::::::{fields}".encode()
            error = self.assertRaises(BadLine, parseAccount, line, "imap", (143, 993))
            self.assertIn("need a host", str(error))

    def test_nowhere(self) -> None:
        """Without host and default backend, a right password gets a temporary failure, a wrong one a refusal."""
        self.build(b"joe:{PLAIN}secret", default=None)
        self.assertEqual(self.refusal(self.login(b"joe", b"wrong")), "wrong password")
        self.assertEqual(self.logged(), [])
        for _ in range(3):
            answer = self.login(b"joe", b"secret")
            self.assertEqual(answer, Denial(Trouble.TEMPORARY, reason="no backend: neither host nor proxy_pass is set"))
        reason = "an account cannot log in: the account has no host and the server has no proxy_pass"
        self.assertEqual(self.logged(), [self.unusable(reason)])

    def test_case(self) -> None:
        """User names match without regard to ASCII case; the backend gets the file's spelling. Passwords are exact."""
        self.build(b"Joe@Example.com:{PLAIN}secret", "Ärger:{PLAIN}secret".encode())
        for user in (b"joe@example.com", b"JOE@EXAMPLE.COM", b"Joe@Example.com"):
            self.assertEqual(self.login(user, b"secret").user, b"Joe@Example.com")
        self.assertTrue(self.refusal(self.login(b"joe@example.com", b"SECRET")))
        self.assertTrue(self.refusal(self.login("ärger".encode(), b"secret")))
        self.assertEqual(self.login("ÄRGER".encode(), b"secret").user, "Ärger".encode())

    def test_exactUser(self) -> None:
        """Only the whole name matches."""
        self.build(b"joe:{PLAIN}secret", b"# ann:{PLAIN}secret")
        for user in (b"", b"jo", b"joe ", b" joe", b"joe:{PLAIN}secret", b"# ann", b"ann", b"\xff", b"joe\0"):
            self.assertTrue(self.refusal(self.login(user, b"secret")))

    def test_refused(self) -> None:
        """All refusals look the same to the client; the log has the reason."""
        self.build(
            b"joe:{PLAIN}secret",
            b"off:{PLAIN}secret::::::nologin host=a",
            b"fail:{PLAIN}secret::::::fail",
            b"far:{PLAIN}secret::::::allow_nets=10.0.0.0/8",
            b"locked:!",
        )
        for user, secret, reason in (
            (b"joe", b"wrong", "wrong password"),
            (b"ann", b"secret", "unknown user"),
            (b"off", b"secret", "nologin"),
            (b"off", b"wrong", "wrong password"),
            (b"fail", b"secret", "fail"),
            (b"far", b"secret", "address outside allow_nets"),
            (b"locked", b"!", "locked account"),
            (b"joe", b"", "no password"),
            (b"joe", b"secret\r\n", "CR, LF or NUL in the credentials"),
        ):
            self.assertEqual(self.refusal(self.login(user, secret)), reason)
        self.assertEqual(self.logged(), [], "the server logs refusals")
        self.assertIsInstance(self.login(b"far", b"secret", host="10.0.0.9"), Route)

    def test_nobodyWithoutPassword(self) -> None:
        """An empty password is refused, also with nopassword, and if the file's own is empty."""
        self.build(b"a:", b"b:::::::nopassword", b"c:{PLAIN}::::::nopassword", b"d:{PLAIN}secret::::::nopassword", b"e")
        for user in (b"a", b"b", b"c", b"d", b"e", b"f"):
            for secret in (b"", b"x", b"nopassword", b"{PLAIN}"):
                self.assertTrue(self.refusal(self.login(user, secret)))
        self.assertIsInstance(self.login(b"d", b"secret"), Route)

    def test_injection(self) -> None:
        """A password with CR LF, which bcrypt would cut, does not reach a backend."""
        self.build(b"joe:{BLF-CRYPT}$2y$05$ZesW0neJerbuFiYDbAAoCuSAqoUZ2rL1EL2PxBbV.RFgl3ij/hKjm")
        self.assertIsInstance(self.login(b"joe", b"a" * 72), Route)
        for extra in (b"\r\nRSET", b"\n", b"\0"):
            self.assertTrue(self.refusal(self.login(b"joe", b"a" * 72 + extra)))

    def test_noSecretLogged(self) -> None:
        """The log contains no password, no hash, and no control character of a user name."""
        self.build(b"joe:" + SALTED, b"bad:{PLAIN}sesame::::::port=x", b"ugly:{PLAIN.HEX}sesame")
        for user, secret in ((b"joe", b"hunter2"), (b"bad", b"sesame"), (b"ugly", b"sesame"), (b"a\r\nb", b"hunter2")):
            self.assertTrue(self.refusal(self.login(user, secret)))
        text = "".join(map(repr, self.events)) + "".join(self.logged())
        for hidden in ("hunter2", "sesame", "SIlcW"):
            self.assertNotIn(hidden, text)
        self.assertNotIn("\r", text)
        self.assertNotIn("\n", text)

    def test_badLine(self) -> None:
        """An invalid line refuses the login; only the log has the reason."""
        self.build(b"joe:{PLAIN}secret::::::port=x")
        self.assertEqual(self.refusal(self.login(b"joe", b"secret")), "unusable line")
        reason = "an account cannot log in: port must be a number from 1 to 65535"
        self.assertEqual(self.logged(), [self.unusable(reason)])

    def test_badLineIsLoggedOnce(self) -> None:
        """An invalid line is logged at the first login of its user, and again after it has changed."""
        lines = [b"joe:{PLAIN}secret::::::port=x", b"ann:{PLIAN}x", b"eve:{PLAIN}x"]
        self.build(*lines)
        for _ in range(3):
            for user in (b"joe", b"JOE", b"ann"):
                self.refusal(self.login(user, b"secret"))
        self.assertEqual(len(self.logged()), 2)
        for changed, count in ((lines[:2], 0), ([b"joe:{PLAIN}secret::::::port=y", lines[1]], 1)):
            self.write(*changed)
            self.reactor.advance(1)
            for user in (b"joe", b"ann") * 2:
                self.refusal(self.login(user, b"secret"))
            self.assertEqual(len(self.logged()), count)

    def test_namesAreQuoted(self) -> None:
        """A name that imitates a log line stays within its quotes, at the end."""
        name = b'x", reason none, client 9.9.9.9\x1b[2J'
        self.build(name + b":{PLAIN}secret::::::fail port=x")
        self.refusal(self.login(name, b"secret"))
        (line,) = self.logged()
        quoted = r'"x\", reason none, client 9.9.9.9\x1b[2J"'
        self.assertTrue(line.endswith(f", user {quoted}"), line)

    def test_otherMethods(self) -> None:
        """A method that an account file cannot judge is refused."""
        self.build(b"joe:{PLAIN}secret")
        for method in (Method.EXTERNAL, Method.NONE):
            self.assertTrue(self.refusal(self.login(b"joe", b"secret", method)))


class DigestLoginTests(AuthenticatorTestCase):
    """Logins with CRAM-MD5 and APOP."""

    def test_accepted(self) -> None:
        """A right digest gets the route, with the password of the file."""
        self.build(b"tim:{PLAIN}tanstaaftanstaaf::::::host=a")
        route = Route((Backend("a", 143),), b"tim", b"tanstaaftanstaaf")
        self.assertEqual(self.login(b"tim", b"b913a602c7eda7a495b4e6e7334d3890", Method.CRAM_MD5), route)
        self.assertEqual(self.login(b"TIM", b"B913A602C7EDA7A495B4E6E7334D3890", Method.CRAM_MD5), route)
        digest = hashlib.md5(SALT + b"tanstaaftanstaaf").hexdigest().encode()
        self.assertEqual(self.login(b"tim", digest, Method.APOP), route)

    def test_pass(self) -> None:
        """pass= replaces the password for the backend here too."""
        self.build(b"tim:{PLAIN}tanstaaftanstaaf::::::pass=inner")
        route = self.login(b"tim", b"b913a602c7eda7a495b4e6e7334d3890", Method.CRAM_MD5)
        self.assertEqual(route, Route((DEFAULT,), b"tim", b"inner"))

    def test_refused(self) -> None:
        """A wrong digest, the password itself, an unknown user and a hashed password get the same answer."""
        self.build(b"tim:{PLAIN}tanstaaftanstaaf", b"ann:" + SALTED, b"eve:" + SLOW, b"off:*")
        empty = hmac.new(b"", SALT, "md5").hexdigest().encode()
        for user, secret, reason in (
            (b"tim", b"0" * 32, "wrong password"),
            (b"tim", b"tanstaaftanstaaf", "wrong password"),
            (b"tim", empty, "wrong password"),
            (b"bob", b"b913a602c7eda7a495b4e6e7334d3890", "unknown user"),
            (b"ann", empty, "CRAM-MD5 needs a PLAIN password in auth_file"),
            (b"eve", b"secret", "CRAM-MD5 needs a PLAIN password in auth_file"),
            (b"off", b"b913a602c7eda7a495b4e6e7334d3890", "locked account"),
        ):
            self.assertEqual(self.refusal(self.login(user, secret, Method.CRAM_MD5)), reason)

    def test_restrictions(self) -> None:
        """nologin and allow_nets also apply to digests."""
        self.build(b"tim:{PLAIN}tanstaaftanstaaf::::::nologin", b"Tom:{PLAIN}tanstaaftanstaaf::::::allow_nets=::1")
        for user in (b"tim", b"tom"):
            self.assertTrue(self.refusal(self.login(user, b"b913a602c7eda7a495b4e6e7334d3890", Method.CRAM_MD5)))
