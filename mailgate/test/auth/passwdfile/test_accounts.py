"""
Tests of L{mailgate.auth.passwdfile.accounts}. The meaning of the lines was verified with Dovecot 2.3.19 and C{doveadm
auth test}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.passwdfile.accounts import Account, BadLine, parseAccount
from mailgate.login import Backend, BackendTLS
from mailgate.test.support.passwdfiles import PORTS


def accountOf(line: bytes, protocol: str = "imap") -> Account:
    """Return the account that C{line} is for a server of C{protocol}."""
    return parseAccount(line, protocol, PORTS.get(protocol, (0, 0)))


class LineTests(SynchronousTestCase):
    """L{parseAccount}: the grammar of a line."""

    def bad(self, line: bytes, protocol: str = "imap") -> str:
        """Return why C{line} is invalid."""
        return str(self.assertRaises(BadLine, accountOf, line, protocol))

    def backend(self, extra: bytes, protocol: str = "imap") -> Backend | None:
        """Return the backend that the extra fields name."""
        return accountOf(b"joe:{PLAIN}secret::::::" + extra, protocol).backend

    def test_shortest(self) -> None:
        """A name and a password are enough; the backend is then that of proxy_pass."""
        account = accountOf(b"joe:{PLAIN}secret")
        self.assertEqual((account.user, account.backend, account.destUser), (b"joe", None, b""))

    def test_allFields(self) -> None:
        """The fields between the password and the extra fields are ignored."""
        account = accountOf(b"joe:{PLAIN}secret:1000:1000:host=a:/home/joe:/bin/sh:host=b pass=x destuser=y")
        self.assertEqual(account.backend, Backend("b", 143))
        self.assertEqual((account.destUser, account.backendPassword), (b"y", b"x"))

    def test_colons(self) -> None:
        """A colon ends the password; the extra fields may contain any number."""
        account = accountOf(b"joe:{PLAIN}se:cret")
        assert account.password is not None
        self.assertTrue(account.password.matches(b"se"))
        self.assertEqual(self.backend(b"host=2001:db8::1"), Backend("2001:db8::1", 143))
        self.assertEqual(self.backend(b"host=[2001:db8::1]"), Backend("2001:db8::1", 143))
        self.assertEqual(self.backend(b"host=mail_backend"), Backend("mail_backend", 143))

    def test_blanksAreNotEscaped(self) -> None:
        """Spaces separate the extra fields; as in Dovecot, they cannot be escaped."""
        account = accountOf(rb"joe:{PLAIN}secret::::::  pass=a\ b   destuser=c ")
        self.assertEqual((account.backendPassword, account.destUser), (b"a\\", b"c"))

    def test_unknownFields(self) -> None:
        """Fields that do not concern a proxy, and those of the userdb, are ignored."""
        extra = b"host=a userdb_host=b userdb_port=x quota_rule=*:bytes=5 nopassword nodelay=y HOST=c a=%z"
        self.assertEqual(self.backend(extra), Backend("a", 143))

    def test_ports(self) -> None:
        """Without a port, it is the default of the protocol, with or without implicit TLS."""
        for protocol, plain, implicit in (("imap", 143, 993), ("pop3", 110, 995), ("smtp", 25, 465)):
            self.assertEqual(self.backend(b"host=a", protocol), Backend("a", plain))
            self.assertEqual(self.backend(b"host=a ssl=yes", protocol), Backend("a", implicit, BackendTLS.IMPLICIT))
            self.assertEqual(
                self.backend(b"host=a starttls=yes", protocol), Backend("a", plain, BackendTLS.STARTTLS, True)
            )
            self.assertEqual(self.backend(b"host=a port=1 ssl=yes", protocol), Backend("a", 1, BackendTLS.IMPLICIT))

    def test_portsOfTLS(self) -> None:
        """With proxy_ssl = on the default is the port for TLS, unless the line asks for STARTTLS."""
        for extra, port in ((b"", 993), (b" ssl=yes", 993), (b" starttls=yes", 143), (b" port=1", 1)):
            backend = parseAccount(b"joe:{PLAIN}secret::::::host=a" + extra, "imap", (143, 993), True).backend
            assert backend is not None
            self.assertEqual(backend.port, port, extra)

    def test_unknownProtocol(self) -> None:
        """A protocol without a default port needs one."""
        self.assertEqual(self.backend(b"host=a port=4190", "nntp"), Backend("a", 4190))
        self.assertIn("port is missing", self.bad(b"joe:{PLAIN}secret::::::host=a", "nntp"))

    def test_tls(self) -> None:
        """yes requires a valid certificate, any-cert does not, no means no TLS; the bare word means yes."""
        for name, tls in ((b"ssl", BackendTLS.IMPLICIT), (b"starttls", BackendTLS.STARTTLS)):
            self.assertEqual(self.backend(b"host=a port=1 " + name + b"=yes"), Backend("a", 1, tls, True))
            self.assertEqual(self.backend(b"host=a port=1 " + name), Backend("a", 1, tls, True))
            self.assertEqual(self.backend(b"host=a port=1 " + name + b"=any-cert"), Backend("a", 1, tls, False))
            self.assertEqual(self.backend(b"host=a port=1 " + name + b"=no"), Backend("a", 1))
            self.assertIn("must be yes", self.bad(b"joe:{PLAIN}secret::::::host=a " + name + b"=on"))
        self.assertIn("conflicts with starttls", self.bad(b"joe:{PLAIN}secret::::::host=a ssl=yes starttls=any-cert"))
        self.assertEqual(self.backend(b"host=a ssl=no starttls=yes"), Backend("a", 143, BackendTLS.STARTTLS))

    def test_variables(self) -> None:
        """%u, %n and %d are the user, the part before @ and the part after it; %% is a percent sign."""
        line = b"joe@example.com:{PLAIN}secret::::::host=%d destuser=%n+%u pass=100%%u"
        account = accountOf(line)
        self.assertEqual(account.backend, Backend("example.com", 143))
        self.assertEqual((account.destUser, account.backendPassword), (b"joe+joe@example.com", b"100%u"))
        for wrong in (b"pass=100%", b"pass=100%w", b"pass=%{user}", b"destuser=%s"):
            self.assertIn("%%", self.bad(b"joe:{PLAIN}secret::::::" + wrong))

    def test_badValues(self) -> None:
        """An invalid value makes the line invalid, even if the field is not needed."""
        for wrong in (b"0", b"65536", b"-1", b"1e3", b"", b"143 port=144", b"\xd9\xa1"):
            self.assertIn("port", self.bad(b"joe:{PLAIN}secret::::::host=a port=" + wrong))
            self.assertIn("port", self.bad(b"joe:{PLAIN}secret::::::port=" + wrong))
        for wrong in (b"a:143", b"", b"a/b", b"::g", b"-a", b"a\tb", b"\xe4", b"[1.2.3.4]", b"a host=a", b"unix:/x"):
            self.assertIn("host", self.bad(b"joe:{PLAIN}secret::::::host=" + wrong))
        for wrong in (b"destuser=", b"pass=", b"pass", b"host"):
            self.assertIn("has no value", self.bad(b"joe:{PLAIN}secret::::::" + wrong))

    def test_noAccount(self) -> None:
        """A line without a name or without a password field is invalid."""
        for line in (b"joe", b":{PLAIN}secret", b"just some words"):
            self.assertIn("must start with USER:PASSWORD", self.bad(line))

    def test_controlCharacters(self) -> None:
        """A line with a character that ends a protocol line is invalid, also in an encoded password."""
        for line in (b"jo\re:{PLAIN}x", b"joe:{PLAIN}x\0", b"joe:{PLAIN}x::::::pass=a\rQUIT", b"joe:{PLAIN.HEX}610a62"):
            self.assertIn("CR", self.bad(line))

    def test_password(self) -> None:
        """An invalid password is reported with its own reason."""
        self.assertEqual(
            self.bad(b"joe:{SSHA-256}x"), "the password has the unknown scheme SSHA-256; did you mean SSHA256?"
        )
        self.assertIn("the password is empty", self.bad(b"joe:::::::nopassword"))

    def test_allowNets(self) -> None:
        """allow_nets admits only its networks, including IPv6 and mapped addresses."""
        account = accountOf(b"joe:{PLAIN}x::::::allow_nets=10.1.2.3/8,192.168.1.5,2001:db8::/32")
        for host in ("10.0.0.1", "192.168.1.5", "2001:db8::7", "::ffff:10.0.0.1"):
            self.assertTrue(account.admits(host), host)
        for host in ("11.0.0.1", "192.168.1.6", "2001:db9::1", "::ffff:11.0.0.1", "unix:", "", "nonsense", "::"):
            self.assertFalse(account.admits(host), host)
        self.assertTrue(accountOf(b"joe:{PLAIN}x").admits("nonsense"))

    def test_allowNetsLocal(self) -> None:
        """The word local in allow_nets admits clients at a unix socket, but not 127.0.0.1."""
        account = accountOf(b"joe:{PLAIN}x::::::allow_nets=local")
        self.assertTrue(account.admits("unix:"))
        self.assertFalse(account.admits("127.0.0.1"))

    def test_allowNetsWrong(self) -> None:
        """An invalid list of networks makes the line invalid."""
        for wrong in (b"", b"foo", b"10.0.0.0/8,", b"10.0.0.0/33", b"10.0.0.0/8 allow_nets=::/0"):
            self.assertIn("allow_nets", self.bad(b"joe:{PLAIN}x::::::allow_nets=" + wrong))
        self.assertIn("not supported", self.bad(b"joe:{PLAIN}x::::::allow_real_nets=10.0.0.0/8"))

    def test_barred(self) -> None:
        """nologin and fail forbid logins, whatever their value; with proxy, as in Dovecot, nologin does not."""
        for extra, barred in (
            (b"nologin", "nologin"),
            (b"nologin=no host=a", "nologin"),
            (b"fail=no", "fail"),
            (b"nologin proxy host=a", ""),
            (b"nologin proxy_maybe=y host=a", ""),
            (b"fail proxy host=a", "fail"),
            (b"proxy=y", ""),
        ):
            self.assertEqual(accountOf(b"joe:{PLAIN}x::::::" + extra).barred, barred, extra)

    def test_repr(self) -> None:
        """The repr of an account shows no password."""
        shown = repr(accountOf(b"joe:{PLAIN}sesame::::::pass=hunter2 host=a"))
        self.assertNotIn("sesame", shown)
        self.assertNotIn("hunter2", shown)
        self.assertIn("joe", shown)
