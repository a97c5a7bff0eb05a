# -*- test-case-name: mailgate.test.test_login -*-
"""
The words of a login: what a client brings, what is asked of an authenticator, and the two answers it may give.

Everything here is a frozen value that passes between the stages; no stage reaches back into an earlier one.
Secrets are left out of every C{repr}.
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
"""The bytes that no credential and no text of another service may carry onto a line-based wire."""

_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""The bytes that no text for a client may hold: controls but the tabulator."""

_PASSING = re.compile(rb"4[0-5][0-9](?: [45]\.[0-9]{1,3}\.[0-9]{1,3})?")
"""The codes of a service, or server, whose trouble will pass (RFC 5321, section 4.2.1)."""


def fitForWire(*texts: bytes | None) -> bool:
    """Whether none of C{texts} holds CR, LF or NUL, which would end a line, or a string, before its time."""
    return _FORBIDDEN.search(b"".join(filter(None, texts))) is None


def fitText(text: bytes) -> bytes | None:
    """
    C{text} for a line of a mail protocol; L{None} if it holds what no such line may. It is UTF-8 (RFC 9051, 6531,
    6856); what is not is taken for Latin-1.
    """
    if _UNFIT.search(text):
        return None
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1").encode("utf-8")
    return text


class Method(Enum):
    """How a client proves who it is, by the name that nginx's C{Auth-Method} header gives it."""

    PLAIN = "plain"
    APOP = "apop"
    CRAM_MD5 = "cram-md5"
    EXTERNAL = "external"
    XOAUTH2 = "xoauth2"
    OAUTHBEARER = "oauthbearer"
    NONE = "none"

    @property
    def isDigest(self) -> bool:
        """Whether the secret is a digest over a challenge, from which the password cannot be had."""
        return self in (Method.APOP, Method.CRAM_MD5)

    @property
    def isOAuth(self) -> bool:
        """Whether the secret is a token, which a backend may take for a password."""
        return self in (Method.XOAUTH2, Method.OAUTHBEARER)


@frozen
class Credentials:
    """
    What a client gave to log in.

    C{user} is the authentication identity as received; C{secret} the password, OAuth's token, the hexadecimal digest
    of a digest method, or empty (EXTERNAL, NONE); C{salt} the whole challenge, angle brackets included, of a digest
    method. Both may hold any byte, CR, LF and NUL too, where the mechanism can carry them.

    C{authzid} is the authorization identity (RFC 4422, section 2), whose mailbox is to be opened, where that is another
    than C{user}'s; otherwise it is empty.
    """

    method: Method
    user: bytes = b""
    secret: bytes = field(default=b"", repr=False)
    salt: bytes = b""
    authzid: bytes = b""


@frozen
class TLSState:
    """What was negotiated, by OpenSSL's names: C{TLSv1.3}, C{TLS_AES_256_GCM_SHA384}."""

    protocol: str
    cipher: str


@frozen
class ClientCertificate:
    """
    The certificate that a client has shown, in the forms in which nginx's C{Auth-SSL-…} headers tell of it: C{subject}
    and C{issuer} by RFC 2253, C{serial} in upper-case, the SHA-1 C{fingerprint} in lower-case hexadecimal. The
    C{commonName} is the subject's, empty where it has none.
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
    What of a client's TLS differs from connection to connection: the C{serverName} that it asked for (SNI) and the
    protocol of ALPN, empty where it did not; its C{certificate}.

    C{verification} is C{NONE}, C{SUCCESS} or C{FAILED:reason}, as C{Auth-SSL-Verify} has it, and empty where no
    certificate is asked for; C{verifyCode} is OpenSSL's. C{signature} and C{key} name the algorithms of our own
    certificate as PROXY's TLVs do (C{SHA256}, C{RSA2048}).
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
    """Both ends of a connection as a PROXY header gives them: addresses without brackets, and ports."""

    source: str
    sourcePort: int
    destination: str
    destinationPort: int


class Findings(Protocol):
    """
    Finds out of a client's connection what costs a system call, or work of TLS. That the connection is gone is no
    reason to raise anything: then nothing is known.
    """

    def local(self) -> tuple[str, int]:
        """The address and port that the client has connected to; C{("", 0)} if that is not known."""

    def details(self) -> TLSDetails | None:
        """Those of its TLS; L{None} if they are not known."""


class _Found:
    """What of a L{Client} has not been set is found out when it is first read, and set then."""

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
    Who is at the other end of the connection.

    C{host} is an address without brackets, or C{unix:}; C{port} is 0 for a unix socket. C{name} is what SMTP's
    C{Client-Host} and XCLIENT's C{NAME} say of it. C{proxied} is what the PROXY header said, where one came with
    addresses. C{session} is the id of the connection, and C{server} where it came in
    (L{mailgate.session.Session}).

    C{local} and C{localPort} are the address that it has connected to, in the forms of C{host} and C{port};
    C{details} are those of its TLS. In a client that a dialogue has made they are found out when they are first read,
    and stay as they are then. Read them in the reactor's thread, and before the answer to the login: once the dialogue
    has ended, or has left its connection to the relay, what has not been read is not known any more.
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
        A client of which C{findings} finds out what is C{unknown}, when it is first read: C{local} and C{localPort}, or
        C{details}, or all three. The other arguments are those of L{Client}.
        """
        client = cls(*known, **more)
        object.__setattr__(client, "_findings", findings)
        for attribute in unknown:
            object.__delattr__(client, attribute)
        return client

    @property
    def knownLocal(self) -> tuple[str, int]:
        """C{local} and C{localPort}, if they are known without asking the system; otherwise C{("", 0)}."""
        try:
            return object.__getattribute__(self, "local"), object.__getattribute__(self, "localPort")
        except AttributeError:
            return "", 0


@frozen
class Envelope:
    """
    What a client said before the login that the login is about, or that the backend has to hear.

    Of SMTP: the name it greeted with (empty: it has not), whether by EHLO, and, for C{smtp_auth none}, its MAIL and
    RCPT lines from the command word on, without the line end. Of IMAP: the C{fields} of its ID, as of
    L{mailgate.backend.identity.fieldsOf}.
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

    @ivar attempt: counts from 1 within a connection.
    @ivar tag: IMAP's.
    @ivar hops: through how many gateways the login may still go, where the client is a gateway that has said so.
    """

    protocol: str
    credentials: Credentials
    client: Client
    attempt: int = 1
    tag: bytes = b""
    envelope: Envelope = Envelope()
    hops: int | None = None


class BackendTLS(Enum):
    """How a connection to a backend is protected."""

    OFF = "off"
    IMPLICIT = "ssl"
    STARTTLS = "starttls"


@frozen
class Backend:
    """
    A server that holds mailboxes, or takes mail.

    @ivar host: an address without brackets, a host name, or C{unix:/path}.
    @ivar port: 0 for a unix socket.
    @ivar tls: how the connection is protected; L{None} is as C{proxy_ssl} says.
    @ivar verify: whether its certificate must be good; C{proxy_ssl_verify = off} says no for all backends.
    @ivar name: the name that its certificate must be good for; empty is as C{proxy_ssl_name} says, or else C{host}.
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
    An acceptance: where the account lives, the first choice first, and what to log in there with.

    C{password} is L{None} where nobody knows it (a digest method and no C{Auth-Pass}). C{judged} is false where no
    authenticator has looked at the password: the backend's refusal then is the answer to the login.

    C{authzid} answers for the authorization identity of the request, where that has one: it is what the backend is to
    decide on, or empty where C{user} stands for it already. L{None} is no answer, and refuses such a login.
    """

    backends: tuple[Destination, ...]
    user: bytes
    password: bytes | None = field(default=None, repr=False)
    judged: bool = True
    authzid: bytes | None = None

    def withPassword(self, password: bytes | None) -> Route:
        """This, with another password. It takes a fifth of the time of C{attrs.evolve}."""
        return Route(self.backends, self.user, password, self.judged, self.authzid)


class Trouble(Enum):
    """Why a client is sent a refusal or a goodbye. Each protocol words every one of them."""

    DENIED = "denied"
    """The credentials are wrong."""
    UNAUTHORIZED = "not authorized"
    """The user may not log in as another one (the authorization identity of SASL)."""
    FAILURES = "too many failed logins"
    """So many logins were refused that the connection ends."""
    TEMPORARY = "temporary"
    """It could not be found out whether they are right, or the backend did not answer: try again later."""
    PERMANENT = "permanent"
    """The backend refuses the login for a reason that is not the credentials, and that will not pass by itself."""
    REFUSED = "refused"
    """What was asked for was refused, and the connection ends with it."""
    ERRORS = "too many invalid commands"
    """The connection ends with it, as with each of the following."""
    COMMANDS = "too many commands"
    TOO_LONG = "too long command"
    ENDLESS = "no end of data"
    """A refused command came with data behind it whose end cannot be known."""
    EARLY = "client spoke before the greeting"
    INTERNAL = "internal"
    """A defect of ours. The connection ends with it."""
    TIMEOUT = "timeout"
    """The client said nothing for too long. The connection ends with it."""
    CERTIFICATE = "certificate"
    """The client's certificate will not do. The connection ends with it."""
    NO_CERTIFICATE = "no certificate"
    """The client has shown none, and has to. The connection ends with it."""
    STOPPING = "stopping"
    """The gateway goes down. The connection ends with it."""


@frozen
class Denial:
    """
    A refusal of a login. L{refusesCredentials} tells one that says something of the credentials from a passing failure.

    C{text} and C{code} are the authentication service's words for the client, used where they fit its protocol (C{code}
    by SMTP alone; L{kind} heeds it in all). C{wait} seconds pass before the client is told; with C{close} the
    connection then ends. C{challenge}, in base64, is what a client that tried OAuth is sent first, and has to answer.
    C{reason} is for the log alone: which of the things that the client is not told it was. C{answer} is the backend's
    refusal, made fit for the client's protocol (L{mailgate.backend.reply}), without tag and line end; it goes before
    all other words.
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
        """Whether this is the answer to a guess: the credentials, or what they are used for, were looked at."""
        return self.kind in (Trouble.DENIED, Trouble.UNAUTHORIZED)

    @property
    def kind(self) -> Trouble:
        """What the refusal is: where the service's code is one of passing trouble, it is that and no wrong password."""
        isPassing = self.code is not None and _PASSING.fullmatch(self.code)
        return Trouble.TEMPORARY if isPassing and self.trouble is Trouble.DENIED else self.trouble


@frozen
class Refusal:
    """A backend's "no" to a login: all it said, line ends included, and whether it called that a passing trouble."""

    reply: bytes
    temporary: bool = False
