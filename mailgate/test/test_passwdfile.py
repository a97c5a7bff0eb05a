"""
Tests of L{mailgate.authenticators.passwdfile}. What a line means was asked of Dovecot 2.3.19 with C{doveadm auth test}.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailgate.accounts import BadLine, parseAccount
from mailgate.authenticators import passwdfile
from mailgate.authenticators.passwdfile import (
    AT_ONCE,
    KIND,
    PATIENCE,
    WAITING,
    FileAuthenticator,
    FileSettings,
    Hashing,
    Overloaded,
)
from mailgate.directives import ServerSettings, directives
from mailgate.interfaces import IAuthenticator
from mailgate.journal import Journal
from mailgate.login import Backend, BackendTLS, Client, Credentials, Denial, LoginRequest, Method, Route, Trouble

DEFAULT = Backend("10.9.9.9", 1143)
DENIED = Denial(Trouble.DENIED)
SLOW = b"{BLF-CRYPT}$2y$05$D0Ck29t8eOiLe8t3hPkJU.cOb3buphx0ZjPac7c.sP8i5wn7gSuhS"
SALTED = b"{SSHA256}ATOncGB2cNWyfBhdTpNRTOoucfUwMrZbt/Zs8Xsc2T5SIlcW"
SALT = b"<1896.697170952@postoffice.reston.mci.net>"


@implementer(IReactorThreads)
class ThreadedClock(Clock):
    """A clock with threads that do nothing until L{work} is called. It is its own thread pool."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Callable[[], Any]] = []

    def getThreadPool(self) -> Any:
        """The pool, which is this."""
        return self

    def suggestThreadPoolSize(self, size: int) -> None:
        """Any size will do."""

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """There is but one thread."""
        callable(*args, **kwargs)

    def callInThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Hold C{callable} back."""
        self.held.append(lambda: callable(*args, **kwargs))

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], Any], func: Callable[..., Any], *args: Any, **kw: Any
    ) -> None:
        """A thread pool's way: hold C{func} back, whose result C{onResult} is given."""

        def run() -> None:
            try:
                result, success = func(*args, **kw), True
            except Exception:
                result, success = Failure(), False
            onResult(success, result)

        self.held.append(run)

    def work(self) -> int:
        """Let the threads do what they hold, and what comes of it; how many pieces it was."""
        done = 0
        while self.held:
            self.held.pop(0)()
            done += 1
        return done


class LineTests(SynchronousTestCase):
    """L{parseAccount}: the grammar of a line."""

    def bad(self, line: bytes, protocol: str = "imap") -> str:
        """Why C{line} is no account."""
        return str(self.assertRaises(BadLine, parseAccount, line, protocol))

    def backend(self, extra: bytes, protocol: str = "imap") -> Backend | None:
        """The backend that the extra fields name."""
        return parseAccount(b"joe:{PLAIN}secret::::::" + extra, protocol).backend

    def test_shortest(self) -> None:
        """A name and a password are enough; the backend is then that of proxy_pass."""
        account = parseAccount(b"joe:{PLAIN}secret", "imap")
        self.assertEqual((account.user, account.backend, account.destUser), (b"joe", None, b""))

    def test_allFields(self) -> None:
        """Of the fields between the password and the extra fields none is read."""
        account = parseAccount(b"joe:{PLAIN}secret:1000:1000:host=a:/home/joe:/bin/sh:host=b pass=x destuser=y", "imap")
        self.assertEqual(account.backend, Backend("b", 143))
        self.assertEqual((account.destUser, account.backendPassword), (b"y", b"x"))

    def test_colons(self) -> None:
        """A colon ends the password, but the extra fields may hold any number."""
        account = parseAccount(b"joe:{PLAIN}se:cret", "imap")
        assert account.password is not None
        self.assertTrue(account.password.matches(b"se"))
        self.assertEqual(self.backend(b"host=2001:db8::1"), Backend("2001:db8::1", 143))
        self.assertEqual(self.backend(b"host=[2001:db8::1]"), Backend("2001:db8::1", 143))
        self.assertEqual(self.backend(b"host=mail_backend"), Backend("mail_backend", 143))

    def test_blanksAreNotEscaped(self) -> None:
        """Blanks part the extra fields, however many; as in Dovecot, nothing escapes one."""
        account = parseAccount(rb"joe:{PLAIN}secret::::::  pass=a\ b   destuser=c ", "imap")
        self.assertEqual((account.backendPassword, account.destUser), (b"a\\", b"c"))

    def test_unknownFields(self) -> None:
        """Fields that say nothing to a proxy, and those of the userdb, are ignored."""
        extra = b"host=a userdb_host=b userdb_port=x quota_rule=*:bytes=5 nopassword nodelay=y HOST=c a=%z"
        self.assertEqual(self.backend(extra), Backend("a", 143))

    def test_ports(self) -> None:
        """The port is the protocol's own, for implicit TLS another, unless one is given."""
        for protocol, plain, implicit in (("imap", 143, 993), ("pop3", 110, 995), ("smtp", 25, 465)):
            self.assertEqual(self.backend(b"host=a", protocol), Backend("a", plain))
            self.assertEqual(self.backend(b"host=a ssl=yes", protocol), Backend("a", implicit, BackendTLS.IMPLICIT))
            self.assertEqual(
                self.backend(b"host=a starttls=yes", protocol), Backend("a", plain, BackendTLS.STARTTLS, True)
            )
            self.assertEqual(self.backend(b"host=a port=1 ssl=yes", protocol), Backend("a", 1, BackendTLS.IMPLICIT))

    def test_unknownProtocol(self) -> None:
        """A protocol without a port of its own needs one."""
        self.assertEqual(self.backend(b"host=a port=4190", "sieve"), Backend("a", 4190))
        self.assertIn("port is missing", self.bad(b"joe:{PLAIN}secret::::::host=a", "sieve"))

    def test_tls(self) -> None:
        """yes demands a good certificate, any-cert does not, no is no TLS; a bare word is yes."""
        for name, tls in ((b"ssl", BackendTLS.IMPLICIT), (b"starttls", BackendTLS.STARTTLS)):
            self.assertEqual(self.backend(b"host=a port=1 " + name + b"=yes"), Backend("a", 1, tls, True))
            self.assertEqual(self.backend(b"host=a port=1 " + name), Backend("a", 1, tls, True))
            self.assertEqual(self.backend(b"host=a port=1 " + name + b"=any-cert"), Backend("a", 1, tls, False))
            self.assertEqual(self.backend(b"host=a port=1 " + name + b"=no"), Backend("a", 1))
            self.assertIn("none of yes", self.bad(b"joe:{PLAIN}secret::::::host=a " + name + b"=on"))
        self.assertIn("exclude", self.bad(b"joe:{PLAIN}secret::::::host=a ssl=yes starttls=any-cert"))
        self.assertEqual(self.backend(b"host=a ssl=no starttls=yes"), Backend("a", 143, BackendTLS.STARTTLS))

    def test_variables(self) -> None:
        """%u, %n and %d are the user, the part before @ and the one behind it, %% a percent sign."""
        line = b"joe@example.com:{PLAIN}secret::::::host=%d destuser=%n+%u pass=100%%u"
        account = parseAccount(line, "imap")
        self.assertEqual(account.backend, Backend("example.com", 143))
        self.assertEqual((account.destUser, account.backendPassword), (b"joe+joe@example.com", b"100%u"))
        for wrong in (b"pass=100%", b"pass=100%w", b"pass=%{user}", b"destuser=%s"):
            self.assertIn("%%", self.bad(b"joe:{PLAIN}secret::::::" + wrong))

    def test_badValues(self) -> None:
        """A value that cannot be meant makes the line no account, also where it would not be needed."""
        for wrong in (b"0", b"65536", b"-1", b"1e3", b"", b"143 port=144", b"\xd9\xa1"):
            self.assertIn("port", self.bad(b"joe:{PLAIN}secret::::::host=a port=" + wrong))
            self.assertIn("port", self.bad(b"joe:{PLAIN}secret::::::port=" + wrong))
        for wrong in (b"a:143", b"", b"a/b", b"::g", b"-a", b"a\tb", b"\xe4", b"[1.2.3.4]", b"a host=a", b"unix:/x"):
            self.assertIn("host", self.bad(b"joe:{PLAIN}secret::::::host=" + wrong))
        for wrong in (b"destuser=", b"pass=", b"pass", b"host"):
            self.assertIn("has no value", self.bad(b"joe:{PLAIN}secret::::::" + wrong))

    def test_noAccount(self) -> None:
        """A line without a name, or without a password field, is no account."""
        for line in (b"joe", b":{PLAIN}secret", b"just some words"):
            self.assertIn("is no account", self.bad(line))

    def test_controlCharacters(self) -> None:
        """Nothing that would end a line of a protocol gets out of the file, in an encoding neither."""
        for line in (b"jo\re:{PLAIN}x", b"joe:{PLAIN}x\0", b"joe:{PLAIN}x::::::pass=a\rQUIT", b"joe:{PLAIN.HEX}610a62"):
            self.assertIn("CR", self.bad(line))

    def test_password(self) -> None:
        """What is wrong with the password is said in its own words."""
        self.assertEqual(
            self.bad(b"joe:{SSHA-256}x"), "the password has the unknown scheme SSHA-256; did you mean SSHA256?"
        )
        self.assertIn("the password is empty", self.bad(b"joe:::::::nopassword"))

    def test_allowNets(self) -> None:
        """allow_nets admits its networks, IPv6 and mapped addresses too, and nobody else."""
        account = parseAccount(b"joe:{PLAIN}x::::::allow_nets=10.1.2.3/8,192.168.1.5,2001:db8::/32", "imap")
        for host in ("10.0.0.1", "192.168.1.5", "2001:db8::7", "::ffff:10.0.0.1"):
            self.assertTrue(account.admits(host), host)
        for host in ("11.0.0.1", "192.168.1.6", "2001:db9::1", "::ffff:11.0.0.1", "unix:", "", "nonsense", "::"):
            self.assertFalse(account.admits(host), host)
        self.assertTrue(parseAccount(b"joe:{PLAIN}x", "imap").admits("nonsense"))

    def test_allowNetsLocal(self) -> None:
        """The word local in allow_nets is a client at a unix socket, and not one at 127.0.0.1."""
        account = parseAccount(b"joe:{PLAIN}x::::::allow_nets=local", "imap")
        self.assertTrue(account.admits("unix:"))
        self.assertFalse(account.admits("127.0.0.1"))

    def test_allowNetsWrong(self) -> None:
        """A list of networks that cannot be understood lets nobody in, rather than everybody."""
        for wrong in (b"", b"foo", b"10.0.0.0/8,", b"10.0.0.0/33", b"10.0.0.0/8 allow_nets=::/0"):
            self.assertIn("allow_nets", self.bad(b"joe:{PLAIN}x::::::allow_nets=" + wrong))
        self.assertIn("not supported", self.bad(b"joe:{PLAIN}x::::::allow_real_nets=10.0.0.0/8"))

    def test_barred(self) -> None:
        """nologin and fail bar the user, whatever their value; beside proxy, as in Dovecot, nologin does not."""
        for extra, barred in (
            (b"nologin", "nologin"),
            (b"nologin=no host=a", "nologin"),
            (b"fail=no", "fail"),
            (b"nologin proxy host=a", ""),
            (b"nologin proxy_maybe=y host=a", ""),
            (b"fail proxy host=a", "fail"),
            (b"proxy=y", ""),
        ):
            self.assertEqual(parseAccount(b"joe:{PLAIN}x::::::" + extra, "imap").barred, barred, extra)

    def test_repr(self) -> None:
        """An account's representation shows no password of any kind."""
        shown = repr(parseAccount(b"joe:{PLAIN}sesame::::::pass=hunter2 host=a", "imap"))
        self.assertNotIn("sesame", shown)
        self.assertNotIn("hunter2", shown)
        self.assertIn("joe", shown)


class AuthenticatorTestCase(SynchronousTestCase):
    """A L{FileAuthenticator} over a file of the test's own."""

    def setUp(self) -> None:
        """Threads that wait, and a log that is kept."""
        self.reactor = ThreadedClock()
        self.events: list[Any] = []
        self.journal = Journal(LogLevel.info, cast(ILogObserver, self.events.append))
        self.path = self.mktemp()

    def write(self, *lines: bytes) -> None:
        """Put C{lines} into the account file, as a new file under its name."""
        new = self.mktemp()
        with open(new, "wb") as file:
            file.write(b"\n".join(lines) + b"\n")
        os.replace(new, self.path)

    def settings(self, protocol: str = "imap", *given: str) -> ServerSettings:
        """A server's settings, with the account file."""
        groups: dict[type, Any] = {FileSettings: FileSettings(self.path)}
        return ServerSettings("test", protocol, (), groups, frozenset({"auth_file", *given}))

    def build(self, *lines: bytes, default: Backend | None = DEFAULT) -> FileAuthenticator:
        """An authenticator over C{lines}."""
        self.write(*lines)
        authenticator: FileAuthenticator = KIND.build(self.settings(), default, self.reactor, self.journal)
        self.authenticator = authenticator
        return authenticator

    def start(self, user: bytes, secret: bytes, method: Method = Method.PLAIN, host: str = "192.0.2.1") -> Any:
        """Ask for a login, and nothing more."""
        credentials = Credentials(method, user, secret, SALT if method.isDigest else b"")
        return self.authenticator.authenticate(LoginRequest("imap", credentials, Client(host, 4711)))

    def login(self, user: bytes, secret: bytes, method: Method = Method.PLAIN, host: str = "192.0.2.1") -> Any:
        """What comes of a login once the threads have worked."""
        answer = self.start(user, secret, method, host)
        self.reactor.work()
        return self.successResultOf(answer)

    def logged(self) -> list[str]:
        """The messages logged since the last time."""
        messages = [formatEvent(event) for event in self.events]
        self.events.clear()
        return messages


class ContractTests(AuthenticatorTestCase):
    """What mailgate expects of an authenticator."""

    def test_interfaces(self) -> None:
        """The authenticator provides its interface, and the test's reactor the one it stands in for."""
        verifyObject(IAuthenticator, self.build(b"joe:{PLAIN}secret"))

    def test_oneHashing(self) -> None:
        """All servers on a reactor share the few threads that hashes may take."""
        first, second = (self.build(b"joe:{PLAIN}secret") for _ in range(2))
        self.assertIs(first._hashing, second._hashing)
        verifyObject(IReactorThreads, self.reactor)

    def test_kind(self) -> None:
        """auth_file chooses it, for logins with a password, CRAM-MD5 and APOP."""
        self.assertEqual((KIND.name, KIND.directive, KIND.settings), ("file", "auth_file", FileSettings))
        self.assertEqual(KIND.methods, {Method.PLAIN, Method.CRAM_MD5, Method.APOP})
        self.assertEqual([declared.name for declared in directives(FileSettings)], ["auth_file"])

    def test_withoutFile(self) -> None:
        """Without auth_file there is nothing wrong, and nothing to build."""
        server = ServerSettings("test", "imap", ())
        self.assertEqual(list(FileSettings().problems(server)), [])
        self.assertRaises(ValueError, KIND.build, server, None, self.reactor, self.journal)


class PasswordLoginTests(AuthenticatorTestCase):
    """Logins with a password."""

    def test_accepted(self) -> None:
        """The right password gets the route: the account's backend, its user, and what the client gave."""
        self.build(b"joe:{PLAIN}secret::::::host=10.0.0.1 port=144 ssl=any-cert")
        backend = Backend("10.0.0.1", 144, BackendTLS.IMPLICIT, False)
        self.assertEqual(self.login(b"joe", b"secret"), Route((backend,), b"joe", b"secret"))
        self.assertEqual(self.logged(), [])

    def test_otherUserAndPasswordBehind(self) -> None:
        """destuser and pass replace what the client gave."""
        self.build(b"joe:" + SALTED + b"::::::host=a destuser=joseph pass=inner")
        self.assertEqual(self.login(b"joe", b"secret"), Route((Backend("a", 143),), b"joseph", b"inner"))

    def test_default(self) -> None:
        """Without host the account lives at the default backend."""
        self.build(b"joe:{PLAIN}secret::::::ssl=no destuser=joseph")
        self.assertEqual(self.login(b"joe", b"secret"), Route((DEFAULT,), b"joseph", b"secret"))

    def test_defaultIsNotChanged(self) -> None:
        """Port and TLS belong to a host: a line that asks for them without one lets nobody in, in the clear or else."""
        for fields in ("port=1", "ssl=yes", "starttls=any-cert"):
            error = self.assertRaises(BadLine, parseAccount, f"joe:{{PLAIN}}secret::::::{fields}".encode(), "imap")
            self.assertIn("need a host", str(error))

    def test_nowhere(self) -> None:
        """With neither a host nor a default a right password meets a temporary failure, a wrong one the usual no."""
        self.build(b"joe:{PLAIN}secret", default=None)
        self.assertEqual(self.login(b"joe", b"wrong"), DENIED)
        self.logged()
        self.assertEqual(self.login(b"joe", b"secret"), Denial(Trouble.TEMPORARY))
        self.assertEqual(self.logged(), ["auth_file: joe has no host, and there is no proxy_pass"])

    def test_case(self) -> None:
        """User names compare without regard to ASCII case; the backend gets the file's spelling. Passwords do not."""
        self.build(b"Joe@Example.com:{PLAIN}secret", "Ärger:{PLAIN}secret".encode())
        for user in (b"joe@example.com", b"JOE@EXAMPLE.COM", b"Joe@Example.com"):
            self.assertEqual(self.login(user, b"secret").user, b"Joe@Example.com")
        self.assertEqual(self.login(b"joe@example.com", b"SECRET"), DENIED)
        self.assertEqual(self.login("ärger".encode(), b"secret"), DENIED)
        self.assertEqual(self.login("ÄRGER".encode(), b"secret").user, "Ärger".encode())

    def test_exactUser(self) -> None:
        """Nothing but the whole name will do."""
        self.build(b"joe:{PLAIN}secret", b"# ann:{PLAIN}secret")
        for user in (b"", b"jo", b"joe ", b" joe", b"joe:{PLAIN}secret", b"# ann", b"ann", b"\xff", b"joe\0"):
            self.assertEqual(self.login(user, b"secret"), DENIED, user)

    def test_refused(self) -> None:
        """Every refusal is the same for the client, and tells the operator why."""
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
            self.assertEqual(self.login(user, secret), DENIED, user)
            self.assertEqual(
                self.logged(), [f"auth_file: imap login of {user.decode()} from 192.0.2.1 refused: {reason}"]
            )
        self.assertIsInstance(self.login(b"far", b"secret", host="10.0.0.9"), Route)

    def test_nobodyWithoutPassword(self) -> None:
        """An empty password lets nobody in, not with nopassword, and not where the file's own is empty."""
        self.build(b"a:", b"b:::::::nopassword", b"c:{PLAIN}::::::nopassword", b"d:{PLAIN}secret::::::nopassword", b"e")
        for user in (b"a", b"b", b"c", b"d", b"e", b"f"):
            for secret in (b"", b"x", b"nopassword", b"{PLAIN}"):
                self.assertEqual(self.login(user, secret), DENIED, (user, secret))
        self.assertIsInstance(self.login(b"d", b"secret"), Route)

    def test_injection(self) -> None:
        """A password that bcrypt would cut before its CR LF does not get to a backend."""
        self.build(b"joe:{BLF-CRYPT}$2y$05$ZesW0neJerbuFiYDbAAoCuSAqoUZ2rL1EL2PxBbV.RFgl3ij/hKjm")
        self.assertIsInstance(self.login(b"joe", b"a" * 72), Route)
        for extra in (b"\r\nRSET", b"\n", b"\0"):
            self.assertEqual(self.login(b"joe", b"a" * 72 + extra), DENIED)

    def test_noSecretLogged(self) -> None:
        """No password and no hash gets into the log, and no control character of the user's name."""
        self.build(b"joe:" + SALTED, b"bad:{PLAIN}sesame::::::port=x", b"ugly:{PLAIN.HEX}sesame")
        for user, secret in ((b"joe", b"hunter2"), (b"bad", b"sesame"), (b"ugly", b"sesame"), (b"a\r\nb", b"hunter2")):
            self.assertEqual(self.login(user, secret), DENIED)
        text = "".join(map(repr, self.events)) + "".join(self.logged())
        for hidden in ("hunter2", "sesame", "SIlcW"):
            self.assertNotIn(hidden, text)
        self.assertNotIn("\r", text)
        self.assertNotIn("\n", text)

    def test_badLine(self) -> None:
        """A line with a mistake lets nobody in; the client is not told, the operator is."""
        self.build(b"joe:{PLAIN}secret::::::port=x")
        self.assertEqual(self.login(b"joe", b"secret"), DENIED)
        self.assertEqual(
            self.logged(),
            [
                "auth_file: joe cannot log in: port is no number from 1 to 65535",
                "auth_file: imap login of joe from 192.0.2.1 refused: unusable line",
            ],
        )

    def test_otherMethods(self) -> None:
        """A method that a file cannot judge is refused."""
        self.build(b"joe:{PLAIN}secret")
        for method in (Method.EXTERNAL, Method.NONE):
            self.assertEqual(self.login(b"joe", b"secret", method), DENIED)


class DigestLoginTests(AuthenticatorTestCase):
    """Logins with CRAM-MD5 and APOP."""

    def test_accepted(self) -> None:
        """A right digest gets the route, with the password that the file knows."""
        self.build(b"tim:{PLAIN}tanstaaftanstaaf::::::host=a")
        route = Route((Backend("a", 143),), b"tim", b"tanstaaftanstaaf")
        self.assertEqual(self.login(b"tim", b"b913a602c7eda7a495b4e6e7334d3890", Method.CRAM_MD5), route)
        self.assertEqual(self.login(b"TIM", b"B913A602C7EDA7A495B4E6E7334D3890", Method.CRAM_MD5), route)
        digest = hashlib.md5(SALT + b"tanstaaftanstaaf").hexdigest().encode()
        self.assertEqual(self.login(b"tim", digest, Method.APOP), route)

    def test_pass(self) -> None:
        """pass= goes to the backend here too."""
        self.build(b"tim:{PLAIN}tanstaaftanstaaf::::::pass=inner")
        route = self.login(b"tim", b"b913a602c7eda7a495b4e6e7334d3890", Method.CRAM_MD5)
        self.assertEqual(route, Route((DEFAULT,), b"tim", b"inner"))

    def test_refused(self) -> None:
        """A wrong digest, the password itself, an unknown user and a hashed entry get the same answer."""
        self.build(b"tim:{PLAIN}tanstaaftanstaaf", b"ann:" + SALTED, b"eve:" + SLOW, b"off:*")
        empty = hmac.new(b"", SALT, "md5").hexdigest().encode()
        for user, secret, reason in (
            (b"tim", b"0" * 32, "wrong password"),
            (b"tim", b"tanstaaftanstaaf", "wrong password"),
            (b"tim", empty, "wrong password"),
            (b"bob", b"b913a602c7eda7a495b4e6e7334d3890", "unknown user"),
            (b"ann", empty, "no PLAIN entry for CRAM-MD5"),
            (b"eve", b"secret", "no PLAIN entry for CRAM-MD5"),
            (b"off", b"b913a602c7eda7a495b4e6e7334d3890", "locked account"),
        ):
            self.assertEqual(self.login(user, secret, Method.CRAM_MD5), DENIED)
            self.assertTrue(self.logged()[0].endswith(f"refused: {reason}"), (user, reason))

    def test_restrictions(self) -> None:
        """nologin and allow_nets hold for digests too."""
        self.build(b"tim:{PLAIN}tanstaaftanstaaf::::::nologin", b"Tom:{PLAIN}tanstaaftanstaaf::::::allow_nets=::1")
        for user in (b"tim", b"tom"):
            self.assertEqual(self.login(user, b"b913a602c7eda7a495b4e6e7334d3890", Method.CRAM_MD5), DENIED)


class ThreadTests(AuthenticatorTestCase):
    """Hashes that take their time."""

    def test_inThread(self) -> None:
        """A slow hash is computed in a thread, and the login answered when that is done."""
        self.build(b"joe:" + SLOW)
        answer = self.start(b"joe", b"secret")
        self.assertNoResult(answer)
        self.assertEqual(self.reactor.work(), 1)
        self.assertEqual(self.successResultOf(answer), Route((DEFAULT,), b"joe", b"secret"))

    def test_fastNeedsNone(self) -> None:
        """PLAIN, salted digests, CRAM-MD5 and APOP are judged at once."""
        self.build(b"joe:{PLAIN}secret", b"ann:" + SALTED)
        self.successResultOf(self.start(b"joe", b"secret"))
        self.successResultOf(self.start(b"ann", b"secret"))
        self.successResultOf(self.start(b"joe", b"x", Method.CRAM_MD5))
        self.assertEqual(self.reactor.work(), 0)

    def test_unknownUserTakesAsLong(self) -> None:
        """An unknown user, a locked and a broken entry cost a hash of the file's commonest scheme, like a wrong one."""
        self.build(b"joe:" + SLOW, b"ann:" + SLOW, b"bob:{PLAIN}x", b"off:*", b"bad:{PLAIN}secret::::::port=x")
        for user in (b"ann", b"nobody", b"off", b"bad"):
            answer = self.start(user, b"wrong")
            self.assertNoResult(answer)
            self.assertEqual(self.reactor.work(), 1)
            self.assertEqual(self.successResultOf(answer), DENIED)

    def test_decoyLetsNobodyIn(self) -> None:
        """The password of the entry that an unknown user is compared with does not let one in."""
        for password in (SLOW, SALTED, b"{PLAIN}secret"):
            self.build(b"joe:" + password, b"off:*")
            for user in (b"nobody", b"off", b""):
                self.assertEqual(self.login(user, b"secret"), DENIED)
        digest = hmac.new(b"secret", SALT, "md5").hexdigest().encode()
        self.assertEqual(self.login(b"off", digest, Method.CRAM_MD5), DENIED)
        self.assertEqual(self.login(b"nobody", digest, Method.CRAM_MD5), DENIED)

    def test_bounded(self) -> None:
        """A few hashes are computed at once, some logins wait, and beyond that it is: try again later."""
        self.build(b"joe:" + SLOW)
        answers = [self.start(b"joe", b"wrong") for _ in range(AT_ONCE + WAITING)]
        self.assertEqual(len(self.reactor.held), AT_ONCE)
        for user in (b"joe", b"nobody"):
            self.assertEqual(self.successResultOf(self.start(user, b"secret")), Denial(Trouble.TEMPORARY))
        self.assertEqual(len(self.reactor.held), AT_ONCE)
        for answer in answers:
            self.assertNoResult(answer)
            answer.cancel()
            self.failureResultOf(answer, CancelledError)

    def test_impatient(self) -> None:
        """A login whose turn does not come in time is told to try again later."""
        self.build(b"joe:" + SLOW)
        answer = self.start(b"joe", b"secret")
        self.reactor.advance(PATIENCE - 0.1)
        self.assertNoResult(answer)
        self.reactor.advance(0.2)
        self.assertEqual(self.successResultOf(answer), Denial(Trouble.TEMPORARY))
        self.assertEqual(self.logged(), ["auth_file: too many logins wait for their passwords to be hashed"])

    def test_clientLeaves(self) -> None:
        """Cancelling a login ends it at once; what the thread finds out later goes nowhere."""
        self.build(b"joe:" + SLOW)
        answer = self.start(b"joe", b"secret")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.reactor.work()
        self.assertEqual(self.logged(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_defect(self) -> None:
        """What a library raises comes out as a failure, which is not taken for a refusal."""
        hashing = Hashing(self.reactor)
        answer = hashing.run(lambda: 1 // 0 == 0)
        self.reactor.work()
        self.failureResultOf(answer, ZeroDivisionError)


class HashingTests(SynchronousTestCase):
    """L{Hashing}: places for a few, a queue for some."""

    def setUp(self) -> None:
        """Threads that wait."""
        self.reactor = ThreadedClock()
        self.hashing = Hashing(self.reactor)

    def test_nextInTurn(self) -> None:
        """When one is done, the one that has waited longest starts."""
        order: list[int] = []

        def record(number: int) -> bool:
            order.append(number)
            return True

        for number in range(AT_ONCE + 2):
            self.hashing.run(partial(record, number))
        self.assertEqual(len(self.reactor.held), AT_ONCE)
        self.assertEqual(self.reactor.work(), AT_ONCE + 2)
        self.assertEqual(order, list(range(AT_ONCE + 2)))

    def test_cancelWaiting(self) -> None:
        """Who gives up while waiting makes room for another, and is never computed."""
        answers = [self.hashing.run(lambda: True) for _ in range(AT_ONCE + WAITING)]
        self.failureResultOf(self.hashing.run(lambda: True), Overloaded)
        answers[-1].cancel()
        self.failureResultOf(answers[-1], CancelledError)
        self.assertNoResult(self.hashing.run(lambda: True))
        self.assertEqual(self.reactor.work(), AT_ONCE + WAITING)

    def test_cancelStarted(self) -> None:
        """A thread that works for a client that has left keeps its place until it is done."""
        started = [self.hashing.run(lambda: True) for _ in range(AT_ONCE)]
        waiting = self.hashing.run(lambda: True)
        for answer in started:
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
        self.assertEqual(len(self.reactor.held), AT_ONCE)
        self.reactor.work()
        self.assertTrue(self.successResultOf(waiting))

    def test_placesComeBack(self) -> None:
        """Success, failure, cancelling and time-out all give their place back."""
        for check in (lambda: True, lambda: 1 // 0 == 0):
            for _ in range(AT_ONCE * 2):
                answer = self.hashing.run(check)
                self.reactor.work()
                answer.addErrback(lambda failure: failure.trap(ZeroDivisionError))
        for _ in range(AT_ONCE):
            answer = self.hashing.run(lambda: True)
            self.reactor.advance(PATIENCE)
            self.failureResultOf(answer, TimeoutError)
        self.reactor.work()
        answer = self.hashing.run(lambda: True)
        self.reactor.work()
        self.assertTrue(self.successResultOf(answer))
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class FileTests(AuthenticatorTestCase):
    """The file, and its changes."""

    def test_lines(self) -> None:
        """Comments, blank lines and a CR at the end of a line do not matter, nor does a missing last line end."""
        self.build(b"# the accounts", b"", b"  ", b"\t# none:{PLAIN}x", b"joe:{PLAIN}secret\r", b"ann:{PLAIN}a b ")
        with open(self.path, "ab") as file:
            file.write(b"bob:{PLAIN}secret")
        self.reactor.advance(1)
        self.assertIsInstance(self.login(b"joe", b"secret"), Route)
        self.assertIsInstance(self.login(b"ann", b"a b "), Route)
        self.assertIsInstance(self.login(b"bob", b"secret"), Route)
        self.assertEqual(self.login(b"ann", b"a b"), DENIED)

    def test_firstCounts(self) -> None:
        """Of two lines for one user the first counts, as in Dovecot."""
        self.build(b"joe:{PLAIN}first", b"JOE:{PLAIN}second")
        self.assertIsInstance(self.login(b"joe", b"first"), Route)
        self.assertEqual(self.login(b"joe", b"second"), DENIED)

    def test_change(self) -> None:
        """A changed file holds for the logins of a second later: who was added gets in, who was taken out does not."""
        self.build(b"joe:{PLAIN}secret")
        self.write(b"ann:{PLAIN}secret")
        self.assertIsInstance(self.login(b"joe", b"secret"), Route)
        self.reactor.advance(1)
        self.assertEqual(self.login(b"joe", b"secret"), DENIED)
        self.assertIsInstance(self.login(b"ann", b"secret"), Route)

    def test_sameSizeAndTime(self) -> None:
        """A file moved over the old one is noticed even with its size and time."""
        self.build(b"joe:{PLAIN}secret")
        status = os.stat(self.path)
        self.write(b"ann:{PLAIN}secret")
        os.utime(self.path, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.reactor.advance(1)
        self.assertIsInstance(self.login(b"ann", b"secret"), Route)

    def test_unchangedIsNotRead(self) -> None:
        """A file that has not changed is not read again, and within a second not even looked at."""
        self.build(b"joe:{PLAIN}secret")
        looks: list[str] = []

        def counted(name: str) -> None:
            original = getattr(os, name)

            def call(target: Any) -> Any:
                looks.append(name)
                return original(target)

            self.patch(os, name, call)

        counted("stat")
        counted("fstat")
        for _ in range(10):
            self.login(b"joe", b"secret")
        self.assertEqual(looks, [])
        self.reactor.advance(1)
        for _ in range(10):
            self.login(b"joe", b"secret")
        self.assertEqual(looks, ["stat"])

    def test_writtenWhileRead(self) -> None:
        """A file that is written to while it is read is read once more."""
        self.write(b"joe:{PLAIN}secret")
        fstat, calls = os.fstat, []

        def meanwhile(descriptor: int) -> os.stat_result:
            calls.append(descriptor)
            if len(calls) == 2:
                with open(self.path, "ab") as file:
                    file.write(b"ann:{PLAIN}secret\n")
            return fstat(descriptor)

        self.patch(os, "fstat", meanwhile)
        self.authenticator = KIND.build(self.settings(), DEFAULT, self.reactor, self.journal)
        self.assertEqual(self.login(b"ann", b"secret"), DENIED)
        self.reactor.advance(1)
        self.assertIsInstance(self.login(b"ann", b"secret"), Route)

    def test_unreadable(self) -> None:
        """While the file cannot be read the old accounts hold, and one error says so."""
        self.build(b"joe:{PLAIN}secret")
        for trouble in (lambda: os.remove(self.path), lambda: os.mkdir(self.path)):
            trouble()
            for _ in range(3):
                self.reactor.advance(1)
                self.assertIsInstance(self.login(b"joe", b"secret"), Route)
        self.assertEqual(self.logged(), [f"auth_file {self.path} cannot be read: No such file or directory"])

    def test_readableAgain(self) -> None:
        """A file that comes back is read, and its next trouble is logged anew."""
        self.build(b"joe:{PLAIN}secret")
        for user in (b"ann", b"bob"):
            os.remove(self.path)
            self.reactor.advance(1)
            self.login(b"x", b"x")
            self.assertEqual(len([text for text in self.logged() if "cannot be read" in text]), 1)
            self.write(user + b":{PLAIN}secret")
            self.reactor.advance(1)
            self.assertIsInstance(self.login(user, b"secret"), Route)

    def test_neverReadable(self) -> None:
        """While the file has never been readable nobody is told that a password is wrong."""
        self.authenticator = KIND.build(self.settings(), DEFAULT, self.reactor, self.journal)
        self.assertEqual(self.login(b"joe", b"secret"), Denial(Trouble.TEMPORARY))
        self.write(b"joe:{PLAIN}secret")
        self.reactor.advance(1)
        self.assertIsInstance(self.login(b"joe", b"secret"), Route)

    def test_fifo(self) -> None:
        """A FIFO, which would never end, is not waited for."""
        os.mkfifo(self.path)
        self.authenticator = KIND.build(self.settings(), DEFAULT, self.reactor, self.journal)
        self.assertEqual(self.logged(), [f"auth_file {self.path} cannot be read: it is no regular file"])

    def test_empty(self) -> None:
        """An empty file is a file: nobody gets in."""
        self.build()
        self.assertEqual(self.login(b"joe", b"secret"), DENIED)

    def test_tooLarge(self) -> None:
        """More than a bounded amount is not read."""
        self.patch(passwdfile, "LARGEST", 20)
        self.build(b"joe:{PLAIN}secret-of-joe")
        self.assertEqual(self.logged(), [f"auth_file {self.path} cannot be read: it is larger than 20 bytes"])


class ProblemTests(AuthenticatorTestCase):
    """What C{mailgate check} says of the file."""

    def problems(self, *lines: bytes, given: tuple[str, ...] = ("proxy_pass",), protocol: str = "imap") -> list[str]:
        """What is wrong with C{lines}."""
        self.write(*lines)
        return [problem.message for problem in self.found(given, protocol)]

    def found(self, given: tuple[str, ...] = ("proxy_pass",), protocol: str = "imap") -> list[Any]:
        """What is wrong with the file as it is."""
        server = self.settings(protocol, *given)
        return list(server[FileSettings].problems(server))

    def test_none(self) -> None:
        """A good file has no problems, with every scheme, comments and a locked account."""
        self.assertEqual(
            self.problems(b"# accounts", b"", b"joe:{PLAIN}x", b"ann:" + SLOW, b"bob:" + SALTED, b"off:!", b"eve:*"), []
        )

    def test_place(self) -> None:
        """A problem names the server, the option, the file and the line, comments counted."""
        self.write(b"# accounts", b"", b"joe:{PLAIN}x", b"ann:{PLIAN}x")
        (problem,) = self.found()
        self.assertEqual(
            str(problem),
            f"gateway.ini: [server test] auth_file = {self.path}: "
            "line 4 (ann): the password has the unknown scheme PLIAN; did you mean PLAIN?",
        )

    def test_each(self) -> None:
        """Every bad line is told of, each once."""
        self.assertEqual(
            [message.partition(":")[0] for message in self.problems(b"a:", b"b:{PLAIN}x", b"c", b"d:{MD5}x", b":x")],
            ["line 1 (a)", "line 3 (c)", "line 4 (d)", "line 5 ()"],
        )

    def test_duplicate(self) -> None:
        """A user who has a line already, in any case of letters, is a problem that names it."""
        self.assertEqual(
            self.problems(b"joe:{PLAIN}x", b"ann:{PLAIN}x", b"JOE:{PLAIN}x"),
            ["line 3 (JOE): the user is that of line 1 already"],
        )

    def test_noHost(self) -> None:
        """An account without a host is a problem only where the server has no proxy_pass."""
        lines = (b"joe:{PLAIN}x", b"ann:{PLAIN}x::::::host=a", b"bob:{PLAIN}x::::::ssl=no")
        self.assertEqual(self.problems(*lines), [])
        message = "host is missing, and the server has no proxy_pass for accounts without one"
        self.assertEqual(self.problems(*lines, given=()), [f"line 1 (joe): {message}", f"line 3 (bob): {message}"])

    def test_protocol(self) -> None:
        """A host without a port is a problem for a protocol that has none of its own."""
        self.assertEqual(self.problems(b"joe:{PLAIN}x::::::host=a", protocol="pop3"), [])
        (message,) = self.problems(b"joe:{PLAIN}x::::::host=a", protocol="sieve")
        self.assertIn("port is missing, and sieve has no port of its own", message)

    def test_library(self) -> None:
        """A scheme whose library is not installed says what to install."""
        present = sys.modules.pop("bcrypt", None)
        sys.modules["bcrypt"] = None  # type: ignore[assignment]

        def putBack() -> None:
            del sys.modules["bcrypt"]
            if present is not None:
                sys.modules["bcrypt"] = present

        self.addCleanup(putBack)
        (message,) = self.problems(b"joe:" + SLOW, b"ann:{PLAIN}x", b"bob:" + SALTED)
        self.assertIn('pip install "mailgate[passwdfile]"', message)

    def test_unreadable(self) -> None:
        """A file that cannot be read is one problem."""
        self.assertEqual([problem.message for problem in self.found()], ["cannot be read: No such file or directory"])

    def test_quotesNoSecret(self) -> None:
        """No problem quotes a password or a hash, and a name's control characters are escaped."""
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
