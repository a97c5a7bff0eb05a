# -*- test-case-name: mailgate.test.store.test_contract -*-
"""
What a store keeps for all gateways. house.md calls it IStore.

The store knows no names: users, addresses and networks are digests (L{mailgate.store.keys}), values are sealed
(L{mailgate.store.seal}). Everything in it has an end. Times are its own, so that the clocks of the gateways do not
matter: what goes in and out are seconds from now, and ages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

__all__ = [
    "COUNTED",
    "DEAD",
    "MOST_NOTES",
    "Beat",
    "Failure",
    "Guess",
    "IStore",
    "Mark",
    "Question",
    "Standing",
    "StoreUnavailable",
    "Success",
    "whyUnused",
]

DEAD = 42.0
"""
After so many seconds without a L{Beat}, a gateway is dead: its sessions and counts are no more. Beats come every 15
seconds at least, and a list that waits for the gateway takes two more: within 45 seconds, nothing of it is left.
"""

COUNTED = 3600.0
"""For how many seconds the counts of a L{Beat} are kept. Saying all of them at each beat would be most of the load."""

MOST_NOTES = 10000
"""How many notes a shelf has. Those go first that would end first."""


def whyUnused(reason: str) -> str:
    """Say for operators why the store is not asked. C{reason} is that of the store, in words; it may be empty."""
    return f"the store {reason or 'cannot be used'}"


class StoreUnavailable(Exception):
    """
    The store has not answered in time, has answered with an error, or is left alone because it has failed before. Its
    text is for the log and has no secret.
    """


# Not frozen, although nothing changes it: making a frozen one takes three times as long.
@define
class Question:
    """
    A login, before it is decided.

    @ivar user: the digest of the user.
    @ivar address: that of the client's address; empty if the rules of addresses do not concern it.
    @ivar network: that of its network, also where C{address} is empty.
    @ivar pair: the digest of user and address, also where C{address} is empty.
    @ivar protocol: the two bytes that say in L{Beat.counts} which sessions C{limit_conn} counts together with it.
    @ivar interval: of C{limit_req login}: seconds between two logins of the address at the rate. 0: it does not count,
        because it was counted before, or has no rate. The store divides it by the allowance of the address. A login
        does not count from a network that is known to the user.
    @ivar burst: of C{limit_req login}: how many may come too early.
    @ivar mostAllowance: the largest allowance.
    @ivar pairWindow: for how many seconds failures count for pair, address and network.
    @ivar userWindow: for how many seconds they count for the user.
    @ivar goodFor: for how many seconds successes count for the allowance.
    """

    user: bytes
    address: bytes = b""
    network: bytes = b""
    pair: bytes = b""
    protocol: bytes = b""
    interval: float = 0.0
    burst: int = 0
    mostAllowance: int = 10
    pairWindow: float = 3600.0
    userWindow: float = 86400.0
    goodFor: float = 7 * 86400.0


@frozen
class Guess:
    """
    A failure of a pair.

    @ivar tag: two bytes; empty for one whose repeats cannot be told.
    @ivar age: seconds since it was seen last.
    @ivar weight: 60 for a failure with a password (C{mailgate.limits.windows.UNIT}); 0 if it was forgiven.
    """

    tag: bytes
    age: float
    weight: int


@frozen
class Mark:
    """
    A block of a rule.

    @ivar thing: the digest of what is blocked: a pair, an address, or a user.
    @ivar rule: the value of the C{mailgate.limits.attempt.Rule}.
    @ivar seconds: until it ends. Below 0 if it has ended, and only makes the next one longer.
    @ivar count: how often it was blocked.
    @ivar name: sealed: what is blocked, in words.
    @ivar parts: digests of the user, the address and the network that it belongs to. If one of them is cleared, the
        block ends. Not told by the store.
    """

    thing: bytes
    rule: str
    seconds: float
    count: int
    name: bytes = field(default=b"", repr=False)
    parts: Sequence[bytes] = ()


# As above.
@define
class Standing:
    """
    What the store knows about a login, of all gateways together.

    @ivar guesses: the failures of the pair.
    @ivar atAddress: what the failures of the address weigh, in units.
    @ivar atNetwork: those of its network.
    @ivar ofUser: those of the user from unknown networks.
    @ivar failedUsers: how many users have failed at the address.
    @ivar lastSuccess: seconds since the user has succeeded from the network; L{None} for never.
    @ivar goods: the users who have succeeded at the address: the first two bytes of the digest, and the age in seconds.
    @ivar marks: blocks of the pair, the address and the user.
    @ivar wait: seconds for which C{limit_req login} holds the login back; below 0: it is refused.
    @ivar turn: seconds until the next login of the user from unknown networks may pass (R6); 0: now.
    @ivar sessions: how many sessions of the protocol the user has at each other gateway, and how many of them from the
        address. Gateways without, and those that have not beaten lately, are left out.
    """

    guesses: Sequence[Guess] = ()
    atAddress: int = 0
    atNetwork: int = 0
    ofUser: int = 0
    failedUsers: int = 0
    lastSuccess: float | None = None
    goods: Sequence[tuple[bytes, float]] = ()
    marks: Sequence[Mark] = ()
    wait: float = 0.0
    turn: float = 0.0
    sessions: Mapping[str, tuple[int, int]] = field(factory=dict)

    @property
    def elsewhere(self) -> tuple[int, int]:
        """The sums of C{sessions}."""
        counts = self.sessions.values()
        return sum([total for total, _ in counts]), sum([part for _, part in counts])


# As above.
@define
class Failure:
    """
    A login was refused for its credentials.

    @ivar user: the digest of the user.
    @ivar address: that of the address; empty if the rules of addresses do not concern it.
    @ivar network: that of the network, also where C{address} is empty: then it does not count there.
    @ivar pair: the digest of user and address, also where C{address} is empty.
    @ivar tag: two bytes; empty: no other failure is the same.
    @ivar weight: what it weighs for the pair and the user, in units. 0: it is a repeat that the gateway has recognised
        itself. Then it is seen again, or is new and forgiven, and counts nothing.
    @ivar addressWeight: what it weighs for address and network.
    @ivar countsForUser: whether it counts for the user, and so R6.
    @ivar pairWindow: for how many seconds it counts for pair, address and network.
    @ivar userWindow: for how many seconds it counts for the user.
    @ivar mostGuesses: how many failures of a pair are kept.
    @ivar mostUsers: how many failed users of an address are kept.
    """

    user: bytes
    address: bytes
    network: bytes
    pair: bytes
    tag: bytes
    weight: int
    addressWeight: int
    countsForUser: bool
    pairWindow: float = 3600.0
    userWindow: float = 86400.0
    mostGuesses: int = 16
    mostUsers: int = 21


# As above.
@define
class Success:
    """
    A login was accepted.

    @ivar user: the digest of the user.
    @ivar address: that of the address; empty if it gets no allowance.
    @ivar network: that of the network.
    @ivar pair: the digest of user and address, also where C{address} is empty.
    @ivar knownFor: for how many seconds the network is known to the user.
    @ivar goodFor: for how many seconds it counts for the allowance of the address.
    """

    user: bytes
    address: bytes
    network: bytes
    pair: bytes
    knownFor: float = 30 * 86400.0
    goodFor: float = 7 * 86400.0


@frozen
class Beat:
    """
    What a gateway says about itself, some times a second if anything has changed, else every few seconds: after L{DEAD}
    seconds without it is dead.

    @ivar gateway: its name.
    @ivar run: names what it has said since the last beat with C{isAll}, which takes a new one. Sessions and counts of
        another run are void.
    @ivar began: sealed records of sessions that have begun, by session id.
    @ivar ended: the ids of sessions that have ended.
    @ivar isAll: whether C{began} has all sessions, so that others that the store knows are gone.
    @ivar counts: for each digest of a user whose sessions have changed, how many there are now, by protocol and address
        (L{mailgate.store.counts}). Empty: none any more. They are kept for L{COUNTED} seconds: until then, those that
        have not changed are said again.
    """

    gateway: str
    run: str
    began: Mapping[str, bytes] = field(factory=dict)
    ended: Sequence[str] = ()
    isAll: bool = False
    counts: Mapping[bytes, bytes] = field(factory=dict)


class IStore(Protocol):
    """
    The store. L{mailgate.store.redis.store.RedisStore} and L{mailgate.store.memory.MemoryStore} pass the same tests.

    Each Deferred fires within C{store_timeout}, or fails with L{StoreUnavailable}; while the store is left alone, it
    fails at once. Nothing is sent again later.

    @ivar isUp: whether it is asked at all now.
    @ivar heard: called with the channel and the bytes of each message of L{publish}, those of this gateway, too.
    @ivar resumed: called when messages are heard, at the start and after a break: some may have been missed.
    @ivar changed: called with C{isUp} when that changes.
    """

    heard: Callable[[str, bytes], object]
    resumed: Callable[[], object]
    changed: Callable[[bool], object]

    @property
    def isUp(self) -> bool: ...

    # Logins.

    def check(self, question: Question) -> Deferred[Standing]:
        """Say what all gateways know about a login, and count it for C{limit_req login}. C{question} is the login."""

    def checkKnown(self, questions: Sequence[Question]) -> Deferred[Sequence[Standing | None]]:
        """
        Say what concerns logins of known pairs, many together: failures, blocks, and sessions at other gateways.
        Nothing is counted by this.

        @param questions: the logins, one at least. The windows of the first hold for all.
        @return: fires with what is known of each; L{None} for nothing.
        """

    def failed(self, failure: Failure) -> Deferred[bool]:
        """
        Count a failure. A repeat counts nothing.

        @param failure: the failure.
        @return: fires with whether it was new.
        """

    def succeeded(self, success: Success) -> Deferred[None]:
        """Remember a success, and forgive the failures of its pair. C{success} is the login."""

    def mark(self, mark: Mark, keep: float) -> Deferred[None]:
        """
        A rule has blocked something.

        @param mark: the block.
        @param keep: for how many seconds after its end it makes the next one longer.
        """

    def clear(self, things: Sequence[bytes]) -> Deferred[None]:
        """
        Forget failures and blocks.

        @param things: digests of users, addresses, networks and pairs. With a user or an address, the failures of their
            pairs count no more, either.
        """

    def lease(self, name: bytes, seconds: float) -> Deferred[bool]:
        """
        Take what only one may have at a time, such as a turn under R6.

        @param name: what it is: the digest of a user, or other bytes without names.
        @param seconds: for how long.
        @return: fires with whether it was free.
        """

    # Notes: few values that each gateway reads, such as blocks of operators.

    def put(self, shelf: str, id: str, value: bytes, seconds: float) -> Deferred[None]:
        """
        Keep a value.

        @param shelf: on which shelf: a word.
        @param id: its name there, which names no person.
        @param value: sealed.
        @param seconds: for how long.
        """

    def take(self, shelf: str, ids: Sequence[str]) -> Deferred[None]:
        """Drop values. C{shelf} and C{ids} as for L{put}."""

    def notes(self, shelf: str) -> Deferred[Mapping[str, tuple[bytes, float]]]:
        """Return the values of a shelf, and for how many seconds more they are kept, by id. C{shelf} is a word."""

    # Places: which backend has a user.

    def place(self, key: bytes, backend: bytes, seconds: float, instead: bytes | None = None) -> Deferred[bytes]:
        """
        Give a user a place, unless he has one.

        @param key: the digest of the user and the group.
        @param backend: its address and port, in ASCII: those of no person.
        @param seconds: for how long.
        @param instead: the place that he must not have any more; L{None} for none; empty: whatever it is.
        @return: fires with the place that he has now. That it had is prolonged.
        """

    def placeOf(self, key: bytes) -> Deferred[bytes]:
        """Return the place of a user; empty for none. C{key} as for L{place}."""

    def retain(self, keys: Sequence[bytes], seconds: float) -> Deferred[None]:
        """
        The places of users last so long from now.

        @param keys: as for L{place}.
        @param seconds: for how long; 0: not any more.
        """

    # The registry.

    def beat(self, beat: Beat) -> Deferred[bool]:
        """
        Say that a gateway lives, and what has changed. There is one at a time. One with many sessions is said in parts,
        and takes longer than C{store_timeout}.

        @param beat: what it says. The first one has all sessions.
        @return: fires with whether the store still knew the gateway. If not, nothing was kept, and the next one must
            have all sessions.
        """

    def leave(self, gateway: str, run: str) -> Deferred[None]:
        """A gateway stops: forget its sessions and counts. C{gateway} and C{run} as in L{Beat}."""

    def gateways(self) -> Deferred[Mapping[str, tuple[str, float]]]:
        """
        Return the run of each gateway and the seconds since it has beaten, by name. Those that have died within the
        last hour are among them.
        """

    def sessionsAt(self, gateway: str, most: int) -> Deferred[Mapping[str, bytes]]:
        """
        Return sealed records by session id. Many take longer than C{store_timeout}.

        @param gateway: the name of the gateway.
        @param most: how many at most.
        """

    def sessionsOf(self, user: bytes) -> Deferred[Mapping[str, int]]:
        """Return how many sessions a user has at each gateway that lives. C{user} is the digest."""

    # Messages.

    def publish(self, channel: str, message: bytes) -> Deferred[int]:
        """
        Send a message to all gateways that listen. It is not kept.

        @param channel: a word, or C{to:GATEWAY}, which only that gateway hears.
        @param message: sealed.
        @return: fires with the number of those that have got it.
        """

    # Life.

    def start(self) -> None:
        """Connect."""

    def stop(self) -> Deferred[None]:
        """Disconnect. What waits for an answer fails."""
