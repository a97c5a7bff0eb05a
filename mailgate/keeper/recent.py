# -*- test-case-name: mailgate.test.keeper.test_recent -*-
"""
The stories of connections and logins that have ended: why a login failed, when the user calls.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import define

from mailgate.system.fields import checkDepth

__all__ = ["LATEST", "LOGINS", "MOST_ENDS", "MOST_USERS", "Recent"]

MOST_ENDS = 2000
"""Ended connections that are kept, by default."""

MOST_USERS = 500
"""Users whose refused logins are kept, at most."""

LOGINS = 10
"""Refused logins that are kept of each of these users."""

LATEST = 50
"""Refused logins that are kept of all users together."""

_LONGEST_TEXT = 200
_LONGEST_STORY = 4000
_write = json.JSONEncoder(allow_nan=False).encode
"""C{json.dumps} would make an encoder for each story."""

_TYPES: Mapping[Any, Any] = {
    **dict.fromkeys(("id", "protocol", "server", "backend", "method", "reached", "outcome", "reason"), str),
    **dict.fromkeys(("trouble", "text"), str),
    **dict.fromkeys(("client", "tls", "times"), dict),
    **dict.fromkeys(("attempts", "received", "sent"), int),
    "seconds": (int, float),
}
"""The types of the values of a story. Each of them may be L{None}."""

_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


@define
class _Story:
    """
    One story. As text it takes a third of the memory, and is ready for a successor. It does not change.

    @ivar at: the time of the end, RFC 3339.
    @ivar user: the user name, in lower case.
    @ivar isLogin: whether it is a login, and not a connection.
    @ivar text: the story as JSON.
    """

    at: str
    user: str
    isLogin: bool
    text: str

    @classmethod
    def of(cls, story: Any) -> _Story | None:
        """Return a story that a process has reported; L{None} if it is not valid."""
        if not isinstance(story, dict) or story.get("kind") not in ("login", "connection"):
            return None
        at, user = story.get("at"), story.get("user") or ""
        if not isinstance(at, str) or not _AT.fullmatch(at) or not isinstance(user, str):
            return None
        if any(value is not None and not isinstance(value, _TYPES.get(name, object)) for name, value in story.items()):
            return None
        short = {
            name: value[:_LONGEST_TEXT] if type(value) is str else value
            for name, value in story.items()
            if type(name) is str
        }
        try:
            checkDepth(short)
            text = _write(short)
        except (ValueError, TypeError):
            return None
        if len(text) > _LONGEST_STORY:
            return None
        return cls(at, user[:_LONGEST_TEXT].casefold(), story["kind"] == "login", text)

    @classmethod
    def own(cls, story: Mapping[str, Any]) -> _Story | None:
        """Return a story that this process has made; L{None} if it is too long."""
        text = _write(story)
        if len(text) > _LONGEST_STORY:
            return None
        return cls(story["at"], story["user"].casefold(), story["kind"] == "login", text)


class Recent:
    """
    Keeps the latest stories.

    @param most: as that of L{limit}.
    @ivar refused: how many refused logins were added.
    """

    def __init__(self, most: int = MOST_ENDS) -> None:
        self.refused = 0
        self._latest: deque[_Story] = deque(maxlen=LATEST)
        self._ends: deque[_Story] = deque()
        self._logins: OrderedDict[str, deque[_Story]] = OrderedDict()
        self.limit(most)

    def limit(self, most: int) -> None:
        """
        Keep so many stories from now on (C{explain_memory}).

        @param most: how many ended connections; 0: nothing is kept. No more users have refused logins that are kept.
        """
        self._ends = deque(self._ends, maxlen=most)
        self._mostUsers = min(most, MOST_USERS)
        while len(self._logins) > self._mostUsers:
            self._logins.popitem(last=False)
        if not self._mostUsers:
            self._latest.clear()

    def add(self, stories: Iterable[Any], areOwn: bool = False) -> None:
        """
        Keep further stories.

        @param stories: the stories, the earliest first. Those that are not valid are ignored.
        @param areOwn: whether this process has made them (L{mailgate.watch.stories}), so that all are valid.
        """
        if self._mostUsers:
            for story in map(_Story.own if areOwn else _Story.of, stories):
                if story is not None:
                    self._keep(story)

    def _keep(self, story: _Story) -> None:
        if not story.isLogin:
            self._ends.append(story)
            return
        logins = self._logins.get(story.user)
        if logins is None:
            logins = self._logins[story.user] = deque(maxlen=LOGINS)
            if len(self._logins) > self._mostUsers:
                self._logins.popitem(last=False)
        logins.append(story)
        self._logins.move_to_end(story.user)
        self._latest.append(story)
        self.refused += 1

    def latest(self, most: int = LATEST) -> list[Mapping[str, Any]]:
        """
        Return the latest refused logins of all users, the latest first.

        @param most: how many at most.
        """
        return [json.loads(each.text) for each in [*self._latest][: -most - 1 : -1]] if most > 0 else []

    def _all(self) -> Iterator[_Story]:
        yield from self._ends
        for logins in self._logins.values():
            yield from logins

    def stories(self, user: str | None = None) -> Sequence[Mapping[str, Any]]:
        """
        Return the stories, the latest first.

        @param user: the user name, in whatever case; L{None}: the stories of all.
        """
        found: Iterable[_Story] = self._all()
        if user is not None:
            name = user[:_LONGEST_TEXT].casefold()
            found = [*(each for each in self._ends if each.user == name), *self._logins.get(name, ())]
        return [json.loads(each.text) for each in sorted(found, key=lambda each: each.at, reverse=True)]

    def lines(self) -> Iterator[str]:
        """
        Yield the stories as JSON: the connections, the latest first, and then the logins of one user after another.
        """
        for story in reversed(self._ends):
            yield story.text
        for logins in reversed(self._logins.values()):
            for story in logins:
                yield story.text

    def restore(self, stories: Iterable[Any]) -> None:
        """
        Add the stories of a predecessor. Those that are kept already are not added again.

        @param stories: the stories, in whatever order. Those that are not valid are ignored.
        """
        if not self._mostUsers:
            return
        known = {each.text: each for each in self._all()}
        for story in map(_Story.of, stories):
            if story is not None:
                known.setdefault(story.text, story)
        self._ends.clear()
        self._logins.clear()
        self._latest.clear()
        # None of them is new.
        refused = self.refused
        for story in sorted(known.values(), key=lambda each: each.at):
            self._keep(story)
        self.refused = refused
