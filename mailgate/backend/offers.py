# -*- test-case-name: mailgate.test.backend.test_offers -*-
"""
What backends offer before the login, as far as the gateway has learned it, and what the gateway announces to its own
clients because of that. All processes and generations of a gateway know the same, through L{Notices
<mailgate.upstream.notices.Notices>} of the topic C{capabilities}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from math import inf
from time import monotonic
from typing import Any, TypeAlias

from attrs import Factory, define

from mailgate.log.journal import Journal
from mailgate.login import Backend, BackendTLS
from mailgate.upstream.notices import Notices

__all__ = ["UNKNOWN", "Announcement", "Known", "Learnable", "Offers", "addressOf", "keyOf"]

Learnable: TypeAlias = Callable[[Sequence[tuple[bytes, ...]]], tuple[bytes, ...]]
"""As C{learnable} of L{mailgate.frontend.protocol.MailProtocol}."""

TOPIC = "capabilities"

_NO_ANSWER = "no answer"
"""The body of a notice about a backend that has been asked, and of which nothing is known."""

_ITEM = re.compile(rb"[!-~]([ -~]{0,198}[!-~])?")
_MOST_ITEMS = 200
"""What is kept of one backend: so many items, each of at most 200 bytes of printable ASCII."""

_SETTLING = 600.0
"""
Seconds after a change in which greetings change nothing: one address may stand for servers that differ, which would
otherwise change it with every login. Then what is asked counts.
"""

_MOST_KNOWN = 4096
"""Backends that are remembered. The DNS may name any number."""


@lru_cache(_MOST_KNOWN)
def keyOf(protocol: str, backend: Backend) -> str:
    """
    Return the name of a backend in notices: what it offers depends on the protocol and on its TLS.

    @param protocol: the name of the protocol.
    @param backend: the backend, as it is connected to.
    """
    return f"{protocol} {backend} {(backend.tls or BackendTLS.OFF).value}"


def addressOf(key: str) -> str:
    """
    Return the address of a backend.

    @param key: its key (L{keyOf}).
    """
    return key.split(" ", 1)[1].rpartition(" ")[0]


class Known:
    """
    What is known of one backend. It is read at each login there.

    @ivar items: what it offers before the login; L{None} while that is not known.
    @ivar greeted: the C{items}, separated by blanks. IMAP clients compare it with the greeting of the backend.
    @ivar isAsked: whether it has been asked, so that the others need not wait for its answer.
    @ivar changed: when C{items} changed last, as a time of the clock.
    """

    __slots__ = ("_differs", "changed", "greeted", "isAsked", "items")

    def __init__(self, differs: Callable[[Known, tuple[bytes, ...]], object] | None = None) -> None:
        """
        @param differs: called with this object and the items of a greeting that differs from C{greeted}.
        """
        self.items: tuple[bytes, ...] | None = None
        self.greeted = b""
        self.isAsked = False
        self.changed = -inf
        self._differs = differs

    def heard(self, greeted: bytes, separator: bytes | None = None) -> None:
        """
        Take the capabilities of a greeting, which cost nothing to learn.

        @param greeted: the words, separated by blanks, as they were received.
        @param separator: what separates them instead of blanks.
        """
        if self._differs is not None:
            self.greeted = greeted
            self._differs(self, tuple(greeted.split(separator)))


UNKNOWN = Known()
"""Stands for a backend about which nothing is to be learned."""


@define(eq=False)
class Announcement:
    """
    What the clients of one server receive before the login. It changes when something is learned.

    @ivar words: the capabilities, without those that the gateway announces by its own state, such as STARTTLS.
    @ivar isLearned: whether they are what the backends offer, and not the configured ones.
    @ivar isClosed: whether all logins go to the backends that are asked. An authentication service or an account file
        may name others.
    @ivar isComplete: whether it is known of all backends what they offer.
    @ivar greetings: IMAP: greetings that were made of C{words}, by whether the connection is in the clear.
    """

    words: tuple[bytes, ...] = ()
    isLearned: bool = False
    isClosed: bool = False
    isComplete: bool = False
    greetings: dict[bool, bytes] = Factory(dict)

    def change(self, words: tuple[bytes, ...], isLearned: bool) -> None:
        """
        Announce other capabilities from now on.

        @param words: as the attribute.
        @param isLearned: as the attribute.
        """
        if (words, isLearned) != (self.words, self.isLearned):
            self.words, self.isLearned, self.greetings = words, isLearned, {}


@define(eq=False)
class _Follower:
    """
    A server that announces what its backends offer.

    @ivar protocol: the name of its protocol.
    @ivar announcement: what it announces.
    @ivar fallback: what it announces while nothing is known.
    @ivar learnable: selects what it may announce.
    @ivar keys: returns the keys of its backends, in the order of the configuration.
    """

    protocol: str
    announcement: Announcement
    fallback: tuple[bytes, ...]
    learnable: Learnable
    keys: Callable[[], Iterable[str]]

    def refresh(self, known: dict[str, Known]) -> None:
        """
        Announce what is C{known} of the backends, once all of them have been asked. One that is added later is waited
        for no more.
        """
        keys = list(self.keys())
        found = [known[key] for key in keys if key in known]
        lists = [each.items for each in found if each.items is not None]
        self.announcement.isComplete = self.announcement.isClosed and len(lists) == len(keys)
        isReady = self.announcement.isLearned or (len(found) == len(keys) and all(each.isAsked for each in found))
        if lists and isReady:
            self.announcement.change(self.learnable(lists), True)
        else:
            self.announcement.change(self.fallback, False)


class Offers:
    """
    What has been learned from the backends of a gateway.

    @param notices: what the processes of the gateway tell each other.
    @param journal: where changes are logged, by the process that finds them.
    @param now: the time in seconds.
    """

    def __init__(self, notices: Notices, journal: Journal, now: Callable[[], float] = monotonic) -> None:
        self._notices = notices
        self._journal = journal
        self._now = now
        self._known: dict[str, Known] = {}
        self._keys: dict[Known, str] = {}
        self._followers: list[_Follower] = []
        self._hasBegun = False
        self.open()

    def open(self) -> None:
        """Follow notices, from the beginning or again after L{close}."""
        self._notices.subscribe(TOPIC, self._received)

    def close(self) -> None:
        """The gateway has no sessions left: follow no more notices."""
        self._notices.unsubscribe(self._received)

    def follow(
        self,
        protocol: str,
        announcement: Announcement,
        learnable: Learnable,
        keys: Callable[[], Iterable[str]],
    ) -> None:
        """
        Keep what a server announces up to date.

        @param protocol: the name of its protocol.
        @param announcement: what it announces; its words are those for the time in which nothing is known.
        @param learnable: selects what may be announced.
        @param keys: returns the keys of its backends (L{keyOf}), in the order of the configuration.
        """
        self._followers.append(_Follower(protocol, announcement, announcement.words, learnable, keys))

    def refresh(self) -> None:
        """
        Announce what is known of the backends of now. The first call begins with that: before the gateway starts, its
        groups may still take over servers of an earlier configuration.
        """
        self._hasBegun = True
        for follower in self._followers:
            follower.refresh(self._known)

    def find(self, key: str) -> Known:
        """
        Return what is known of a backend; L{UNKNOWN} if it has not been asked.

        @param key: its key (L{keyOf}).
        """
        return self._known.get(key, UNKNOWN)

    def known(self, key: str) -> Known:
        """
        Return what is known of a backend that is asked.

        @param key: its key (L{keyOf}).
        """
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                return UNKNOWN
            known = self._known[key] = Known(self._differs)
            self._keys[known] = key
        return known

    def learn(self, key: str, items: Iterable[bytes]) -> None:
        """
        A backend offers C{items}. If that is new, all processes of the gateway get it, and a line is logged.

        @param key: its key (L{keyOf}).
        @param items: what L{mailgate.backend.client.ProxyClient.offered} has returned.
        """
        offered = _clean(items)
        before = self.known(key).items
        if before == offered:
            return
        protocol, address = key.split(" ", 1)[0], addressOf(key)
        if before is None:
            self._journal.info(
                "{protocol} backend {backend} offers {words}",
                protocol=protocol,
                backend=address,
                words=_inWords(offered),
            )
        else:
            self._journal.notice(
                "{protocol} backend {backend} changed what it offers: new: {new}; gone: {gone}",
                protocol=protocol,
                backend=address,
                new=_inWords(item for item in offered if item not in before),
                gone=_inWords(item for item in before if item not in offered),
            )
        self._notices.publish(TOPIC, key, [item.decode("ascii") for item in offered])

    def unanswered(self, key: str) -> None:
        """
        A backend has been asked and did not answer, or is not to be asked now. What is known of it stays.

        @param key: its key (L{keyOf}).
        """
        if not self.known(key).isAsked:
            self._notices.publish(TOPIC, key, _NO_ANSWER)

    def _differs(self, known: Known, items: tuple[bytes, ...]) -> None:
        """A login has found a greeting that lists other words than those that are C{known}."""
        key, offered = self._keys[known], _clean(items)
        if known.items is not None:
            if self._now() - known.changed < _SETTLING:
                return
            protocol = key.partition(" ")[0]
            select = next((each.learnable for each in self._followers if each.protocol == protocol), None)
            if select is None or set(select([offered])) == set(select([known.items])):
                # The difference is what the gateway does not announce, such as AUTH= and the words of one client.
                return
        self.learn(key, offered)

    def _received(self, key: str, body: Any, age: float) -> None:
        isList = isinstance(body, list) and all(isinstance(item, str) for item in body)
        known = self.known(key)
        if known is UNKNOWN or not (isList or body == _NO_ANSWER):
            return
        known.isAsked = True
        if isList:
            if known.items is not None:
                known.changed = self._now()
            known.items = _clean(item.encode("ascii", "replace") for item in body)
            known.greeted = b" ".join(known.items)
        if self._hasBegun:
            self.refresh()


def _clean(items: Iterable[bytes]) -> tuple[bytes, ...]:
    """The items that may be kept, each once, in the order of the first; case is ignored."""
    kept: dict[bytes, bytes] = {}
    for item in items:
        if len(kept) < _MOST_ITEMS and _ITEM.fullmatch(item):
            kept.setdefault(item.upper(), item)
    return tuple(kept.values())


def _inWords(items: Iterable[bytes]) -> str:
    return ", ".join(item.decode("ascii") for item in items) or "nothing"
