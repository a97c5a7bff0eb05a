# -*- test-case-name: mailgate.test.test_login -*-
"""
The answers to a login: a route to backends, or a refusal.
"""

from __future__ import annotations

import re
from enum import Enum

from attrs import define, field, frozen

from mailgate.login.backend import BackendTLS, Destination
from mailgate.login.scram import ScramSecret

__all__ = ["Denial", "Refusal", "Route", "RouteOptions", "TLSOptions", "Trouble"]

_PASSING = re.compile(rb"4[0-5][0-9](?: [45]\.[0-9]{1,3}\.[0-9]{1,3})?|TRYLATER")
"""
Codes that mean a temporary failure: reply codes of SMTP (RFC 5321, section 4.2.1), with an optional enhanced status
code, and ManageSieve's response code (RFC 5804, section 1.3).
"""


@frozen
class TLSOptions:
    """
    The TLS of one login's connection to its backend, in place of the C{proxy_ssl…} directives. Its default values leave
    the directives as they are.

    @ivar mode: whether and how the connection uses TLS (C{proxy_ssl}).
    @ivar verify: whether the certificate is verified (C{proxy_ssl_verify}).
    @ivar name: the name that the certificate must be valid for (C{proxy_ssl_name}); empty for the directive's.
    @ivar pins: the digests of C{proxy_ssl_pin}, as the directive stores them.
    @ivar mayDisable: whether a C{mode} without TLS counts if the directives demand TLS. If not, the gateway does not
        connect.
    """

    mode: BackendTLS | None = None
    verify: bool | None = None
    name: str = ""
    pins: tuple[str, ...] | None = None
    mayDisable: bool = True


@frozen
class RouteOptions:
    """
    What an authenticator decides about the backend and the session of one login, in place of directives. Its default
    values leave the directives as they are.

    @ivar key: the key for C{hash} of the group of backends; L{None} for the directive's.
    @ivar tls: the TLS of the connection to the backend.
    @ivar method: how to log in there, a word of C{proxy_auth}; empty for the directive's.
    @ivar authid: the authentication identity of a master user for the backend, as bytes; L{None} for the directive's.
    @ivar authzid: the authorization identity for the backend, as bytes; L{None} for the name of the L{Route}.
    @ivar identifies: whether the backend receives the client's address (C{proxy_identity}).
    @ivar forward: additional fields about the client for the backend, as pairs of name and value, as bytes.
    @ivar hold: seconds to wait before the gateway connects to the backend.
    @ivar lifetime: seconds from the answer until the session must end; L{None} for no limit.
    @ivar isUnlimited: whether this login does not count for the rules against guessed passwords (C{limit_login}).
    """

    key: bytes | None = None
    tls: TLSOptions | None = None
    method: str = ""
    authid: bytes | None = None
    authzid: bytes | None = None
    identifies: bool = True
    forward: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    hold: float = 0.0
    lifetime: float | None = None
    isUnlimited: bool = False


@define(unsafe_hash=True)
class Route:
    """
    An authenticator's acceptance of a login: the backends of the account, and the credentials to log in there. It is a
    value: nothing changes it. (To enforce that, attrs needs twice the time to make it.)

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
    @ivar options: what the authenticator decides in place of directives; L{None} for nothing.
    @ivar scram: for a login by SCRAM: the user's secret. Without it the authenticator has accepted nothing: the gateway
        checks the client's proof with it, and refuses the login if the proof is wrong. L{None} for other methods.
    """

    backends: tuple[Destination, ...]
    user: bytes
    password: bytes | None = field(default=None, repr=False)
    judged: bool = True
    authzid: bytes | None = None
    options: RouteOptions | None = None
    scram: ScramSecret | None = field(default=None, repr=False)

    @property
    def isUnlimited(self) -> bool:
        """Whether the login does not count for the rules against guessed passwords (C{limit_login})."""
        return self.options is not None and self.options.isUnlimited

    def withPassword(self, password: bytes | None) -> Route:
        """
        Return this route with another password. It takes a fifth of the time of C{attrs.evolve}.

        @param password: the new password, as bytes, or L{None}.
        """
        return Route(self.backends, self.user, password, self.judged, self.authzid, self.options, self.scram)


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
    TOO_MANY = "too many connections"
    """The client's address has too many connections or opens them too fast, or the server has too many. It ends."""
    SESSIONS = "too many sessions"
    """The user has too many sessions (C{limit_conn}). The login is refused."""
    TOO_FAST = "too fast"
    """Logins come too fast. The credentials were not looked at, as with each member below."""
    BUSY = "busy"
    """The gateway must hold back the login, and cannot hold back more of them."""
    BLOCKED = "blocked"
    """The login is blocked, after failed ones or by an operator."""
    HELD = "held"
    """An operator holds the logins of the user, for a move."""


_LIMITS = (Trouble.TOO_MANY, Trouble.SESSIONS, Trouble.TOO_FAST, Trouble.BUSY, Trouble.BLOCKED, Trouble.HELD)
"""A tuple, because hashing an enumeration member runs Python code."""


@frozen
class Denial:
    """
    A refusal of a login.

    @ivar trouble: why. L{kind} takes C{code} into account as well.
    @ivar text: the text that the client receives with C{Trouble.DENIED}, as bytes; L{None} for the gateway's own text.
        It must be one line (see L{mailgate.login.fitText}); the gateway replaces any other by its own text.
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
    @ivar scram: for a login by SCRAM whose credentials are refused: the secret for the challenge that the client gets
        before the refusal, so that it cannot tell which users exist. L{None} for a fake of the gateway. For a temporary
        failure that concerns this account only: the account's secret. The client gets the failure after a right proof.
    @ivar isRepeat: whether this is the stored answer to an identical login (C{auth_cache_ttl}).
    @ivar isUnknownUser: whether the user does not exist. The client does not hear it, but the failure weighs double
        against its address in the rules against guessed passwords (C{limit_login}).
    @ivar isUnlimited: whether this login does not count for these rules.
    @ivar why: the cause in words for operators who ask later (C{mailgate explain}), if C{reason} is empty because the
        log has a line of its own about it.
    """

    trouble: Trouble
    text: bytes | None = None
    code: bytes | None = None
    wait: float = 0.0
    close: bool = False
    challenge: bytes | None = None
    reason: str = ""
    answer: bytes = b""
    scram: ScramSecret | None = field(default=None, repr=False)
    isRepeat: bool = field(default=False, eq=False)
    isUnknownUser: bool = False
    isUnlimited: bool = False
    why: str = field(default="", eq=False)

    @property
    def isLimit(self) -> bool:
        """Whether a limit of the gateway refuses the login. Then it is no failed login."""
        return self.trouble in _LIMITS

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
