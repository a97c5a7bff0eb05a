# -*- test-case-name: mailgate.test.test_login -*-
"""
The values of a login: what a client sends (L{LoginRequest}), and the two answers of an authenticator (L{Route} and
L{Denial}).

All of them are immutable. They can be compared, and their C{repr} leaves out secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from attrs import field, frozen

__all__ = [
    "Backend",
    "BackendGroup",
    "BackendTLS",
    "Client",
    "ClientCertificate",
    "Credentials",
    "Denial",
    "Destination",
    "Envelope",
    "Findings",
    "LoginRequest",
    "Method",
    "ProxiedAddresses",
    "Refusal",
    "Route",
    "TLSDetails",
    "TLSState",
    "Trouble",
    "fitForWire",
    "fitText",
]

_FORBIDDEN = re.compile(rb"[\r\n\0]")
"""Bytes that end a line or a string in a mail protocol."""

_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Control characters, except for the tabulator."""

_PASSING = re.compile(rb"4[0-5][0-9](?: [45]\.[0-9]{1,3}\.[0-9]{1,3})?")
"""
Reply codes of SMTP that mean a temporary failure (RFC 5321, section 4.2.1), with an optional enhanced status code.
"""


def fitForWire(*texts: bytes | None) -> bool:
    """
    Check texts before they become part of a line of a mail protocol.

    @param texts: the texts; L{None} counts as empty.
    @return: whether no text holds CR, LF or NUL, which would end the line or the string too early.
    """
    return _FORBIDDEN.search(b"".join(filter(None, texts))) is None


def fitText(text: bytes) -> bytes | None:
    """
    Convert the text of another service or server for a line to a client.

    @param text: UTF-8 (RFC 9051, 6531, 6856). Other bytes are read as Latin-1.
    @return: the text in UTF-8, or L{None} if it holds a control character other than the tabulator.
    """
    if _UNFIT.search(text):
        return None
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1").encode("utf-8")
    return text


class Method(Enum):
    """How a client logs in. The values are those of nginx's C{Auth-Method} header, and of freenginx's for OAuth."""

    PLAIN = "plain"
    APOP = "apop"
    CRAM_MD5 = "cram-md5"
    EXTERNAL = "external"
    XOAUTH2 = "xoauth2"
    OAUTHBEARER = "oauthbearer"
    NONE = "none"

    @property
    def isDigest(self) -> bool:
        """Whether the secret is a digest over a challenge. The gateway does not learn the password then."""
        return self in (Method.APOP, Method.CRAM_MD5)

    @property
    def isOAuth(self) -> bool:
        """Whether the secret is an OAuth token. A backend may accept it in the place of a password."""
        return self in (Method.XOAUTH2, Method.OAUTHBEARER)


@frozen
class Credentials:
    """
    What a client sent to log in. C{user} and C{secret} are as received: they may hold any byte that the mechanism can
    carry, including CR, LF and NUL.

    @ivar method: the login method.
    @ivar user: the authentication identity, as bytes. Empty for C{Method.NONE}.
    @ivar secret: as bytes: the password (PLAIN), the hexadecimal digest (APOP, CRAM_MD5) or the token (XOAUTH2,
        OAUTHBEARER). Empty for EXTERNAL and NONE.
    @ivar salt: the challenge that a digest method signed, as bytes with its angle brackets. Empty for other methods.
    @ivar authzid: the authorization identity (RFC 4422, section 2), as bytes: the user whose mailbox the client wants
        to open. Empty if the client names none, or names C{user}.
    """

    method: Method
    user: bytes = b""
    secret: bytes = field(default=b"", repr=False)
    salt: bytes = b""
    authzid: bytes = b""


@frozen
class TLSState:
    """
    What a TLS handshake negotiated.

    @ivar protocol: OpenSSL's name of the version, such as C{TLSv1.3}.
    @ivar cipher: OpenSSL's name of the cipher suite, such as C{TLS_AES_256_GCM_SHA384}.
    """

    protocol: str
    cipher: str


@frozen
class ClientCertificate:
    """
    The certificate that a client presented. The text forms are those of nginx's C{Auth-SSL-…} headers.

    @ivar subject: the distinguished name by RFC 2253. Empty, as are C{issuer} and C{commonName}, if a name of the
        certificate is malformed.
    @ivar issuer: the issuer's distinguished name by RFC 2253.
    @ivar serial: the serial number in upper-case hexadecimal, two digits for each byte.
    @ivar fingerprint: the SHA-1 fingerprint in lower-case hexadecimal, without colons.
    @ivar commonName: the common name of the subject. Empty if it has none.
    @ivar pem: the certificate in PEM, as bytes.
    """

    subject: str
    issuer: str
    serial: str
    fingerprint: str
    commonName: str
    pem: bytes = field(repr=False)


@frozen
class TLSDetails:
    """
    More about the TLS of one client's connection.

    @ivar serverName: the host name that the client asked for (SNI). Empty without SNI.
    @ivar alpn: the protocol that ALPN negotiated. Empty without ALPN.
    @ivar verification: the value of nginx's C{Auth-SSL-Verify}: C{NONE}, C{SUCCESS} or C{FAILED:reason}. Empty if the
        server requests no certificates (C{ssl_verify_client = off}).
    @ivar verifyCode: OpenSSL's verification result, 0 for success (C{X509_V_…} of openssl-verification-options(1)).
    @ivar certificate: the client's certificate, or L{None} if it presented none.
    @ivar signature: the digest that signs the gateway's own certificate, as in TLVs of the PROXY protocol: C{SHA256}.
    @ivar key: algorithm and size of the key of the gateway's own certificate, as in these TLVs: C{RSA2048}.
    """

    serverName: str = ""
    alpn: str = ""
    verification: str = ""
    verifyCode: int = 0
    certificate: ClientCertificate | None = None
    signature: str = ""
    key: str = ""


@frozen
class ProxiedAddresses:
    """
    Both ends of a connection, as a PROXY header names them.

    @ivar source: the client's address, without brackets.
    @ivar sourcePort: the client's port.
    @ivar destination: the address that the client connected to, without brackets.
    @ivar destinationPort: the port that the client connected to.
    """

    source: str
    sourcePort: int
    destination: str
    destinationPort: int


class Findings(Protocol):
    """
    Looks up what a L{Client} does not know yet, as it costs a system call or work in OpenSSL. The methods raise nothing
    if the connection is closed: they return "not known".
    """

    def local(self) -> tuple[str, int]:
        """Return the address and the port that the client connected to; C{("", 0)} if they are not known."""

    def details(self) -> TLSDetails | None:
        """Return the details of the client's TLS; L{None} if they are not known."""


class _Found:
    """Looks up an attribute of L{Client} that is not set when it is first read, and sets it."""

    __slots__ = ("_findings",)

    _findings: Findings

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name in ("local", "localPort"):
                found = dict(zip(("local", "localPort"), self._findings.local(), strict=True))
            elif name == "details":
                found = {name: self._findings.details()}
            else:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            for attribute, value in found.items():
                object.__setattr__(self, attribute, value)
            return found[name]


@frozen
class Client(_Found):
    """
    The client of a connection.

    In a client that the gateway made, C{local}, C{localPort} and C{details} are looked up when they are first read, and
    do not change then. Read them in the reactor's thread, before you answer the login. Once the dialogue has ended or
    has handed its connection to the relay, attributes that were never read are "not known".

    @ivar host: its address without brackets, or C{unix:} for a unix socket. With C{set_real_ip_from} it is the address
        from the PROXY header.
    @ivar port: its port; 0 for a unix socket.
    @ivar tls: what the handshake negotiated; L{None} without TLS.
    @ivar name: its host name, as in nginx's C{Client-Host} header and in XCLIENT's C{NAME}; C{[UNAVAILABLE]} if it has
        no confirmed name, C{[TEMPUNAVAIL]} if the lookup failed for now. Only SMTP with C{resolver} looks it up.
    @ivar proxied: the addresses from the PROXY header; L{None} without a header, or if the header had no addresses.
    @ivar local: the address that it connected to, in the form of C{host}; empty if not known.
    @ivar localPort: the port that it connected to; 0 for a unix socket, or if not known.
    @ivar session: the id of its connection, the C{id} of L{mailgate.session.Session}; may be empty.
    @ivar details: more about its TLS; L{None} without TLS, or if not known.
    @ivar server: the address of the listener, the C{server} of L{mailgate.session.Session}; may be empty.
    """

    host: str
    port: int = 0
    tls: TLSState | None = None
    name: str = "[UNAVAILABLE]"
    proxied: ProxiedAddresses | None = None
    local: str = ""
    localPort: int = 0
    session: str = ""
    details: TLSDetails | None = None
    server: str = ""

    @classmethod
    def lazily(cls, findings: Findings, unknown: Iterable[str], *known: Any, **more: Any) -> Client:
        """
        Make a client that looks up some of its attributes when they are first read.

        @param findings: looks them up.
        @param unknown: their names: C{local} and C{localPort} together, C{details}, or all three.
        @param known: arguments for L{Client}.
        @param more: keyword arguments for L{Client}.
        """
        client = cls(*known, **more)
        object.__setattr__(client, "_findings", findings)
        for attribute in unknown:
            object.__delattr__(client, attribute)
        return client

    @property
    def knownLocal(self) -> tuple[str, int]:
        """C{local} and C{localPort} if they are already known; otherwise C{("", 0)}. It looks nothing up."""
        try:
            return object.__getattribute__(self, "local"), object.__getattribute__(self, "localPort")
        except AttributeError:
            return "", 0


@frozen
class Envelope:
    """
    What a client sent before the login, and the authenticator or the backend needs.

    @ivar helo: SMTP: the argument of HELO or EHLO, as bytes. Empty if the client sent neither.
    @ivar extended: SMTP: whether the client sent EHLO.
    @ivar mail: SMTP with C{Method.NONE}: the MAIL command as a line of bytes, from the command word on, without the
        line end. Otherwise empty.
    @ivar recipient: SMTP with C{Method.NONE}: the RCPT command, in the same form. Otherwise empty.
    @ivar fields: IMAP: the fields of the client's ID command (RFC 2971), each as bytes of the form C{"name" "value"} or
        C{"name" NIL}. See L{mailgate.backend.identity.fieldsOf}.
    """

    helo: bytes = b""
    extended: bool = False
    mail: bytes = b""
    recipient: bytes = b""
    fields: tuple[bytes, ...] = ()


@frozen
class LoginRequest:
    """
    One attempt to log in.

    @ivar protocol: C{imap}, C{pop3} or C{smtp}, as in nginx's C{Auth-Protocol} header.
    @ivar credentials: what the client sent to log in.
    @ivar client: the client.
    @ivar attempt: the number of the attempt on this connection; the first is 1.
    @ivar tag: IMAP: the tag of the command, as bytes. Empty for other protocols.
    @ivar envelope: what the client sent before the login.
    """

    protocol: str
    credentials: Credentials
    client: Client
    attempt: int = 1
    tag: bytes = b""
    envelope: Envelope = Envelope()


class BackendTLS(Enum):
    """How the gateway protects its connection to a backend, as the fields C{ssl} and C{starttls} of an account file."""

    OFF = "off"
    IMPLICIT = "ssl"
    STARTTLS = "starttls"


@frozen
class Backend:
    """
    A mail server behind the gateway. C{str} of it is C{host:port}, C{[address]:port} for IPv6, or C{unix:/path}.

    @ivar host: an address without brackets, a host name, or C{unix:/path}.
    @ivar port: its port; 0 for a unix socket.
    @ivar tls: whether and how the connection to it uses TLS; L{None} for C{proxy_ssl}.
    @ivar verify: whether its certificate must be valid for its name. C{proxy_ssl_verify = off} overrides it. Without
        TLS it has no effect.
    @ivar name: the name that its certificate must be valid for; empty for C{proxy_ssl_name} or else C{host}.
    """

    host: str
    port: int
    tls: BackendTLS | None = None
    verify: bool = True
    name: str = ""

    def __str__(self) -> str:
        if self.host.startswith("unix:"):
            return self.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@frozen
class BackendGroup:
    """
    Backends that C{gateway.ini} chooses among.

    @ivar text: the name of an C{[upstream NAME]} section, or a text with variables (C{$pool}) that stands for such a
        name, or for C{host:port}.
    """

    text: str

    def __str__(self) -> str:
        return self.text


Destination: TypeAlias = Backend | BackendGroup
"""Where an account lives: a server, or a group of servers."""


@frozen
class Route:
    """
    An authenticator's acceptance of a login: the backends of the account, and the credentials to log in there.

    @ivar backends: the backends, in the order in which the gateway tries them. If there are none, the login ends with
        a temporary failure.
    @ivar user: the user name for the backend, as bytes. It may be empty for C{Method.NONE} only.
    @ivar password: the password for the backend, as bytes; for a login by OAuth it is the token. L{None} if the
        authenticator does not know it, as with a digest method.
    @ivar judged: whether the authenticator checked the credentials. If it is false, the backend checks them, and its
        refusal is the answer to the login.
    @ivar authzid: matters only if the C{authzid} of the request is not empty. As bytes: the authorization identity that
        the gateway passes to the backend, which decides on it; empty if C{user} already stands for it. L{None} means
        that the authenticator does not support authorization identities: the gateway refuses the login.
    """

    backends: tuple[Destination, ...]
    user: bytes
    password: bytes | None = field(default=None, repr=False)
    judged: bool = True
    authzid: bytes | None = None

    def withPassword(self, password: bytes | None) -> Route:
        """
        Return this route with another password. It takes a fifth of the time of C{attrs.evolve}.

        @param password: the new password, as bytes, or L{None}.
        """
        return Route(self.backends, self.user, password, self.judged, self.authzid)


class Trouble(Enum):
    """
    Why the gateway refuses a login or ends a connection. Each protocol has its own reply for each member.

    Authenticators use C{DENIED}, C{UNAUTHORIZED}, C{TEMPORARY} and C{PERMANENT}. The log has the values.
    """

    DENIED = "denied"
    """The credentials are wrong."""
    UNAUTHORIZED = "not authorized"
    """The user may not log in with this authorization identity (SASL)."""
    FAILURES = "too many failed logins"
    """The client had C{max_auth_failures} refused logins. The connection ends."""
    TEMPORARY = "temporary"
    """The credentials could not be checked, or no backend could be used. The client may try again later."""
    PERMANENT = "permanent"
    """The account cannot log in for a reason other than its credentials, and waiting does not help."""
    REFUSED = "refused"
    """The login was refused. The connection ends."""
    ERRORS = "too many invalid commands"
    """The client sent too many invalid commands. The connection ends, as with each member below."""
    COMMANDS = "too many commands"
    TOO_LONG = "too long command"
    ENDLESS = "no end of data"
    """A refused command was followed by data, and the gateway cannot know where the data end."""
    EARLY = "client spoke before the greeting"
    INTERNAL = "internal"
    """A defect of the gateway."""
    TIMEOUT = "timeout"
    """The client sent nothing for too long."""
    CERTIFICATE = "certificate"
    """The client's certificate failed the verification."""
    NO_CERTIFICATE = "no certificate"
    """The client presented no certificate, and the server requires one."""
    STOPPING = "stopping"
    """The gateway shuts down."""


@frozen
class Denial:
    """
    A refusal of a login.

    @ivar trouble: why. L{kind} takes C{code} into account as well.
    @ivar text: the text that the client receives with C{Trouble.DENIED}, as bytes; L{None} for the gateway's own text.
        It must be one line (see L{fitText}); the gateway replaces any other by its own text.
    @ivar code: as bytes: for SMTP the reply code, with an optional enhanced status code, such as C{535 5.7.8}; L{None}
        for the gateway's own. Other protocols do not send it, but a code of a temporary failure counts in all
        (L{kind}).
    @ivar wait: seconds until the client receives the refusal. C{auth_delay} applies as well; the longer one counts.
    @ivar close: whether the connection ends after the refusal.
    @ivar challenge: for a login by OAuth: the error that the client receives as a challenge before the refusal, as
        bytes in base64 (RFC 7628, section 3.2.2). L{None} for none. Other methods ignore it.
    @ivar reason: the cause in words for the log. The client never receives it.
    @ivar answer: the refusal of a backend as the client's protocol writes it, as bytes without tag and line end
        (L{mailgate.backend.reply}). If it is not empty, the client receives it in the place of C{text} and C{code}.
        Authenticators leave it empty.
    """

    trouble: Trouble
    text: bytes | None = None
    code: bytes | None = None
    wait: float = 0.0
    close: bool = False
    challenge: bytes | None = None
    reason: str = ""
    answer: bytes = b""

    @property
    def refusesCredentials(self) -> bool:
        """
        Whether this refuses the credentials or the authorization identity. The client may be guessing then, so
        C{auth_delay} and C{max_auth_failures} apply. It is false for temporary and permanent failures.
        """
        return self.kind in (Trouble.DENIED, Trouble.UNAUTHORIZED)

    @property
    def kind(self) -> Trouble:
        """
        What the refusal means: C{trouble}, but C{TEMPORARY} where C{trouble} is C{DENIED} and C{code} says 4xx.
        """
        isPassing = self.code is not None and _PASSING.fullmatch(self.code)
        return Trouble.TEMPORARY if isPassing and self.trouble is Trouble.DENIED else self.trouble


@frozen
class Refusal:
    """
    A backend's refusal of a login, which the client receives as it is (C{proxy_pass_error_message}).

    @ivar reply: the whole reply of the backend, as bytes with its line ends.
    @ivar temporary: whether the reply means a temporary failure.
    """

    reply: bytes
    temporary: bool = False
