"""
Tests for L{mailgate.auth.http.dialect}.
"""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.http.dialect import ESCAPES, NGINX, PROTOCOL_NAMES, VARIABLES, Dialect, Untellable
from mailgate.login import Client, Credentials, LoginRequest, Method, TLSDetails, TLSState
from mailgate.test.support.findings import askedOf

CLIENT = Client(
    "192.0.2.7",
    4711,
    TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
    local="198.51.100.1",
    localPort=993,
    session="7-abc",
    details=TLSDetails("mail.example.com"),
)
REQUEST = LoginRequest("imap", Credentials(Method.PLAIN, b"joe", b"sesame"), CLIENT)


def value(text: str, request: LoginRequest = REQUEST) -> bytes:
    """Return the value of a header with C{text} for C{request}."""
    ((name, said),) = fieldsOf(Dialect(((b"X", text.encode()),)), request)
    assert name == b"X"
    return said


def fieldsOf(dialect: Dialect, request: LoginRequest = REQUEST) -> list[tuple[bytes, ...]]:
    """Return names and values of the additional headers of C{dialect} for C{request}."""
    lines = dialect.form[0] % tuple(dialect.values(request))
    assert lines.endswith(b"\r\n") or not lines
    return [tuple(line.split(b": ", 1)) for line in lines.split(b"\r\n")[:-1]]


class EscapeTests(SynchronousTestCase):
    """How names and passwords are escaped."""

    everything = bytes(range(256))

    def test_nginx(self) -> None:
        """nginx escapes 0x00 to 0x20 and the percent sign, and nothing else."""
        escaped = b"".join(b"%%%02X" % byte if byte <= 0x20 or byte == 0x25 else bytes([byte]) for byte in range(256))
        self.assertEqual(ESCAPES["nginx"](self.everything), escaped)

    def test_url(self) -> None:
        """url escapes all but the unreserved characters of RFC 3986."""
        unreserved = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
        escaped = b"".join(bytes([byte]) if byte in unreserved else b"%%%02X" % byte for byte in range(256))
        self.assertEqual(ESCAPES["url"](self.everything), escaped)

    def test_none(self) -> None:
        """none sends the value unchanged, including spaces and control characters."""
        rest = bytes(byte for byte in range(1, 256) if byte not in b"\r\n")
        for raw in (b"", b"a b%20+", b"\xc3\xa4", b"x" + rest + b"x"):
            self.assertEqual(ESCAPES["none"](raw), raw)

    def test_noneRefuses(self) -> None:
        """A value that a header line would change or break is rejected."""
        for raw in (b"a\r", b"a\nb", b"a\0b", b" a", b"a ", b"\ta", b"a\t", b"a\r\nAuth-User: root"):
            self.assertRaises(Untellable, ESCAPES["none"], raw)

    def test_base64(self) -> None:
        """base64 is that of RFC 4648, padded, in one line; base64url has the other alphabet."""
        self.assertEqual(ESCAPES["base64"](b"a\xff\xfe?"), b"Yf/+Pw==")
        self.assertEqual(ESCAPES["base64url"](b"a\xff\xfe?"), b"Yf_-Pw==")
        self.assertNotIn(b"\n", ESCAPES["base64"](self.everything))
        self.assertEqual(ESCAPES["base64"](b""), b"")


class ProtocolNameTests(SynchronousTestCase):
    """The names of protocols."""

    def names(self, words: str, method: Method = Method.PLAIN) -> list[bytes]:
        """Return the names of IMAP, POP3 and SMTP, without and with TLS."""
        request = evolve(REQUEST, credentials=Credentials(method, b"joe"))
        clear = evolve(CLIENT, tls=None)
        return [
            PROTOCOL_NAMES[words](evolve(request, protocol=protocol, client=client))
            for protocol in ("imap", "pop3", "smtp")
            for client in (clear, CLIENT)
        ]

    def test_nginx(self) -> None:
        """nginx's names do not depend on TLS."""
        self.assertEqual(self.names("nginx"), [b"imap", b"imap", b"pop3", b"pop3", b"smtp", b"smtp"])

    def test_zimbra(self) -> None:
        """Zimbra has other names for IMAP and POP3 over TLS."""
        self.assertEqual(self.names("zimbra"), [b"imap", b"imapssl", b"pop3", b"pop3ssl", b"smtp", b"smtp"])

    def test_mailu(self) -> None:
        """Mailu calls SMTP with a login submission."""
        ordinary = [b"imap", b"imap", b"pop3", b"pop3"]
        self.assertEqual(self.names("mailu"), [*ordinary, b"submission", b"submission"])
        self.assertEqual(self.names("mailu", Method.NONE), [*ordinary, b"smtp", b"smtp"])


class VariableTests(SynchronousTestCase):
    """Variables in headers."""

    def test_values(self) -> None:
        """Each variable has its value, with and without braces."""
        for name, expected in (
            ("remote_addr", b"192.0.2.7"),
            ("remote_port", b"4711"),
            ("server_addr", b"198.51.100.1"),
            ("server_port", b"993"),
            ("ssl_server_name", b"mail.example.com"),
            ("session_id", b"7-abc"),
            ("protocol", b"imap"),
        ):
            self.assertEqual(value(f"${name}"), expected)
            self.assertEqual(value(f"a${{{name}}}b"), b"a%bb" % expected)
            self.assertIn(name, VARIABLES)
        self.assertEqual(len(VARIABLES), 7)

    def test_several(self) -> None:
        """One value can contain several variables, and percent signs."""
        self.assertEqual(value("%b [$remote_addr]:$remote_port 100%"), b"%b [192.0.2.7]:4711 100%")

    def test_literal(self) -> None:
        """Any other dollar sign is sent unchanged, also before a name that only begins like a variable's."""
        for text in (
            "$",
            "$$",
            "a$b",
            "$5",
            "${",
            "${}",
            "${nothing}",
            "$remote_address",
            "${remote_addr",
            "$ {protocol}",
        ):
            self.assertEqual(value(text), text.encode())
        self.assertEqual(value("$$protocol"), b"$imap")

    def test_dollar(self) -> None:
        """${dollar} is a dollar sign, whatever follows; without braces it is no variable."""
        self.assertEqual(value("${dollar}remote_addr"), b"$remote_addr")
        self.assertEqual(value("${dollar}{remote_addr}%${dollar}"), b"${remote_addr}%$")
        self.assertEqual(value("$dollar"), b"$dollar")

    def test_unknown(self) -> None:
        """Unknown values are empty: details of TLS that were not looked up, ports of unix sockets."""
        request = evolve(REQUEST, client=Client("unix:", 0))
        for name in ("remote_port", "server_addr", "server_port", "ssl_server_name", "session_id"):
            self.assertEqual(value(f"<${name}>", request), b"<>")
        self.assertEqual(value("$remote_addr", request), b"unix:")

    def test_noInjection(self) -> None:
        """A client cannot end a line through the name that it requests."""
        request = evolve(REQUEST, client=evolve(CLIENT, details=TLSDetails("a\r\nAuth-User: root\0")))
        self.assertEqual(value("$ssl_server_name", request), b"a%0D%0AAuth-User: root%00")

    def test_foundOut(self) -> None:
        """Only what a header uses is looked up, and only once."""
        for text, found in (
            ("$remote_addr $remote_port $protocol ${dollar}server_addr", []),
            ("$server_addr", ["local"]),
            ("$server_port", ["local"]),
            ("$ssl_server_name $ssl_server_name", ["details"]),
            ("x${session_id}", []),
            ("$session_id $server_addr $server_port", ["local"]),
        ):
            dialect = Dialect(((b"A", b""), (b"B", text.encode())))
            asked = askedOf(CLIENT, lambda client, by=dialect: by.values(evolve(REQUEST, client=client)))
            self.assertEqual(asked, found)

    def test_constant(self) -> None:
        """Constant headers are lines that are made once, and have no values for a login."""
        dialect = Dialect(((b"A", b"1"), (b"B", b"${dollar}x%b")))
        self.assertEqual(dialect.values(REQUEST), [])
        self.assertEqual(fieldsOf(dialect), [(b"A", b"1"), (b"B", b"$x%b")])
        self.assertEqual(fieldsOf(NGINX), [])

    def test_noInjectionByConfiguration(self) -> None:
        """A header that would become two headers, or end the head, is rejected."""
        for name, text in ((b"A", b"x\r\nB: y"), (b"A", b"x\n"), (b"A", b"\r"), (b"A", b"\0"), (b"A\r\nB", b"x")):
            self.assertRaises(ValueError, Dialect, ((b"First", b"1"), (name, text)))

    def test_order(self) -> None:
        """Headers with and without variables keep their order and spelling."""
        dialect = Dialect(((b"b", b"$protocol"), (b"A", b"1"), (b"B", b"${protocol}s")))
        self.assertEqual(fieldsOf(dialect), [(b"b", b"imap"), (b"A", b"1"), (b"B", b"imaps")])

    def test_told(self) -> None:
        """Only variables that can have the same value for another connection distinguish logins."""
        text = b"$remote_addr $remote_port $server_addr $server_port $ssl_server_name $session_id $protocol"
        self.assertEqual(Dialect(((b"A", text),)).told(REQUEST), ("198.51.100.1", "993", "mail.example.com"))
        self.assertEqual(NGINX.told(REQUEST), ())

    def test_noSecretShown(self) -> None:
        """The repr shows no values of headers."""
        self.assertNotIn("hush", repr(Dialect(((b"X-Key", b"hush$protocol"), (b"Y", b"hush")))))
