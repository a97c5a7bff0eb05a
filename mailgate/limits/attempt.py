# -*- test-case-name: mailgate.test.limits.test_attempt -*-
"""
A login as the limits see it, what they say about it, and how it ended.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

from attrs import define, field, frozen

from mailgate.limits.policy import Mode, Rate
from mailgate.login import Credentials

__all__ = ["GO", "Action", "Attempt", "Block", "Kind", "Pass", "Result", "Rule", "Verdict"]


class Kind(Enum):
    """By which sort of credentials a client logs in."""

    PASSWORD = "password"
    """A repeat of the same password can be seen."""
    DIGEST = "digest"
    """APOP, CRAM-MD5, SCRAM: each response is another, so that each refused one counts."""
    TOKEN = "token"
    """OAuth: repeats can be seen, and a refused one never counts against the user."""
    EXTERNAL = "external"
    """A client certificate, or no login at all. Nothing counts."""


class Rule(Enum):
    """
    Which limit speaks. The log, C{mailgate explain} and metrics have the values.
    """

    ACCESS = "access"
    BLOCK = "block"
    """An operator's."""
    HOLD = "hold"
    """An operator's."""
    CONN_ADDRESS = "limit_conn address"
    CONN_USER = "limit_conn user"
    CONN_USER_ADDRESS = "limit_conn user_address"
    CONN_SERVER = "limit_conn server"
    REQ_CONNECTION = "limit_req connection"
    REQ_HANDSHAKE = "limit_req handshake"
    REQ_LOGIN = "limit_req login"
    PAIR_DELAY = "R1"
    PAIR_BLOCK = "R2"
    ADDRESS_DELAY = "R3"
    ADDRESS_BLOCK = "R4"
    NETWORK_DELAY = "R5"
    USER_SLOW = "R6"
    USER_REFUSE = "R7"
    EARLY_DROP = "R8"
    UNDECIDED = "undecided logins"
    HELD = "held logins"
    """So many logins are held back that no further one can be."""


class Action(Enum):
    """What a login must do."""

    GO = "go"
    WAIT = "wait"
    """Wait, and then check again with the ticket."""
    REFUSE = "refuse"


# Not frozen, although nothing changes it: making a frozen one takes three times as long.
@define
class Attempt:
    """
    A login, before the authenticator is asked.

    @ivar host: the client's address, canonical: an IPv4 address for IPv4-mapped and NAT64 addresses; C{unix:} for a
        unix socket, which has no limits by address.
    @ivar user: the name as the client wrote it, in the canonical form of L{mailgate.limits.keys.canonical}. The same
        form is used at check and at record. For a master login it is the master's name.
    @ivar kind: the sort of credentials.
    @ivar tag: keyed BLAKE2s of user, NUL and password or token: 16 bytes; empty for C{DIGEST} and C{EXTERNAL}, and
        before the login has failed.
    @ivar mode: C{limit_login} of the server.
    @ivar isExempt: whether the address is in C{limit_exempt}.
    @ivar rate: C{limit_req login} of the server; L{None} without.
    @ivar rateMode: whether C{rate} holds.
    @ivar protocol: C{imap}, C{pop3}, C{smtp} or C{sieve}.
    @ivar login: what L{mailgate.limits.defence.Defence} knows of such logins, once one has succeeded; L{None} before.
    @ivar pair: the key of user and address, once a login without a ticket has succeeded; L{None} before.
    """

    host: str
    user: bytes
    kind: Kind = Kind.PASSWORD
    tag: bytes = field(default=b"", repr=False)
    mode: Mode = Mode.ON
    isExempt: bool = False
    rate: Rate | None = None
    rateMode: Mode = Mode.ON
    protocol: str = "imap"
    login: Any = field(default=None, init=False, repr=False, eq=False)
    pair: int | None = field(default=None, init=False, repr=False, eq=False)


# As above.
@define
class Verdict:
    """
    What the limits say about a login.

    @ivar action: what it must do.
    @ivar ticket: names the login in the next check, and in the record of its end. Each login whose verdict has one
        ends with exactly one L{mailgate.limits.interfaces.ILimitStore.record}, unless it was refused. 0 after
        C{REFUSE}.
    @ivar seconds: with C{WAIT}: after how many to check again.
    @ivar rule: which limit speaks; L{None} for none.
    @ivar would: what limits with C{dry_run} would have done: C{RULE would WORDS} for each, with a semicolon and a blank
        between them; empty for nothing.
    @ivar elsewhere: with C{GO}: how many sessions the user has at other gateways that share a store.
    @ivar elsewhereAddress: how many of them are from the address of the client.
    """

    action: Action
    ticket: int = 0
    seconds: float = 0.0
    rule: Rule | None = None
    would: str = ""
    elsewhere: int = 0
    elsewhereAddress: int = 0


GO = Verdict(Action.GO)
"""Of a store that counts nothing."""


Pass: TypeAlias = tuple[Attempt, Any, Credentials]
"""
The pass of a login (L{mailgate.interfaces.ILoginGuard}): what the store has checked, the ticket of its verdict, and the
credentials for the tag.
"""


class Result(Enum):
    """How a login ended, for the limits."""

    ACCEPTED = "accepted"
    FAILED = "failed"
    """The credentials were refused."""
    FAILED_UNKNOWN = "failed unknown"
    """The same, and the service has said that there is no such user: it weighs double."""
    REPEATED = "repeated"
    """Refused out of C{auth_cache}: no new failure."""
    UNDECIDED = "undecided"
    """A temporary failure, or the client has left: nothing counts."""
    UNLIMITED = "unlimited"
    """The service has said C{Auth-Limit: none}: nothing counts."""


@frozen
class Block:
    """
    What may not log in, or not connect, for a time.

    @ivar id: names it in the API, such as C{b7}.
    @ivar thing: what is blocked, in words: an address or network in CIDR form, a user, or both as C{USER ADDRESS}.
        For blocks whose names are known as hashes alone, after a restart, the hash.
    @ivar rule: which limit has made it; C{Rule.BLOCK} and C{Rule.HOLD} are operators'.
    @ivar since: when it began, Unix time in seconds.
    @ivar until: when it ends, Unix time in seconds.
    @ivar reason: the operator's words, or those of the rule.
    @ivar count: how often it was blocked, so that the next time is longer.
    """

    id: str
    thing: str
    rule: Rule
    since: float
    until: float
    reason: str = ""
    count: int = 1
