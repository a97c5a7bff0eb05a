# -*- test-case-name: mailgate.test.test_login -*-
"""
What a client sends to log in.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from attrs import define, field, frozen

from mailgate.login.client import Client

__all__ = ["Credentials", "Envelope", "LoginRequest", "Method"]


class Method(Enum):
    """How a client logs in. The values are those of nginx's C{Auth-Method} header, and of freenginx's for OAuth."""

    PLAIN = "plain"
    APOP = "apop"
    CRAM_MD5 = "cram-md5"
    EXTERNAL = "external"
    XOAUTH2 = "xoauth2"
    OAUTHBEARER = "oauthbearer"
    SCRAM_SHA_256 = "scram-sha-256"
    SCRAM_SHA_1 = "scram-sha-1"
    NONE = "none"

    isDigest: bool
    """Whether the secret is a digest over a challenge. The gateway does not learn the password then."""
    isOAuth: bool
    """Whether the secret is an OAuth token. A backend may accept it in the place of a password."""
    isScram: bool
    """
    Whether the gateway itself checks the client's proof (RFC 5802). An authenticator gets the name only, and returns a
    secret for the check.
    """

    # That of Enum is Python code. Members are equal only to themselves.
    __hash__ = object.__hash__


for _method in Method:
    _method.isDigest = _method in (Method.APOP, Method.CRAM_MD5)
    _method.isOAuth = _method in (Method.XOAUTH2, Method.OAUTHBEARER)
    _method.isScram = _method in (Method.SCRAM_SHA_256, Method.SCRAM_SHA_1)

# Each login makes one Credentials and one LoginRequest. They are values, and nothing changes them; but to enforce that,
# attrs needs twice the time to make them.


@define(unsafe_hash=True)
class Credentials:
    """
    What a client sent to log in. It is a value: nothing changes it. C{user} and C{secret} are as received: they may
    hold any byte that the mechanism can carry, including CR, LF and NUL.

    @ivar method: the login method.
    @ivar user: the authentication identity, as bytes. Empty for C{Method.NONE}.
    @ivar secret: as bytes: the password (PLAIN), the hexadecimal digest (APOP, CRAM_MD5) or the token (XOAUTH2,
        OAUTHBEARER). Empty for EXTERNAL, SCRAM and NONE.
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
    @ivar listed: IMAP: whether the client has got a list of the backends' capabilities, which those after the login
        must replace.
    @ivar chunks: SMTP: whether the gateway has announced CHUNKING (RFC 3030) because the backends have it. A backend
        that does not have it any more takes the chunks of messages for commands, and must not get the client.
    """

    helo: bytes = b""
    extended: bool = False
    mail: bytes = b""
    recipient: bytes = b""
    fields: tuple[bytes, ...] = ()
    listed: bool = False
    chunks: bool = False


@define(unsafe_hash=True)
class LoginRequest:
    """
    One attempt to log in. It is a value: nothing changes it.

    @ivar protocol: C{imap}, C{pop3}, C{smtp} or C{sieve}, as in nginx's C{Auth-Protocol} header.
    @ivar credentials: what the client sent to log in.
    @ivar client: the client.
    @ivar attempt: the number of the attempt on this connection; the first is 1.
    @ivar tag: IMAP: the tag of the command, as bytes. Empty for other protocols.
    @ivar envelope: what the client sent before the login.
    @ivar hops: through how many gateways the login may still go, if the client is a gateway that says so.
    @ivar trace: the trace id of the connection for C{auth_http_traceparent}, 32 hexadecimal digits; may be empty.
    @ivar step: C{step(format, **fields)} logs a step of this login at level debug. C{format} is one of
        L{mailgate.log.connection}; C{fields} are those that only this line has, texts from the network by
        L{mailgate.log.journal.printable}. L{None} if that level is not logged for this connection.
    """

    protocol: str
    credentials: Credentials
    client: Client
    attempt: int = 1
    tag: bytes = b""
    envelope: Envelope = Envelope()
    hops: int | None = None
    trace: str = ""
    step: Callable[..., object] | None = field(default=None, repr=False, eq=False)
