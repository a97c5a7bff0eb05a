# -*- test-case-name: mailgate.test.keeper.answers.test_kick -*-
"""
Ends sessions of one process, and forgets what authenticators have stored about their users.

The process does this by itself once it has the order: what is spread over a time goes on if the keeper exits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mailgate.frontend.kicking import MOST_SPREADS, Target
from mailgate.keeper.answers.walk import began, filterOf, walk
from mailgate.keeper.filters import Filter, userMatcher
from mailgate.keeper.view import ANSWERERS, ProcessView
from mailgate.session import Phase

__all__ = ["LONGEST_OVER", "MOST_USERS"]

MOST_USERS = 1000
"""The most users whose answers are forgotten one by one. Beyond them, the answers about all users are forgotten."""

LONGEST_OVER = 24 * 3600.0
"""The most seconds over which ends are spread."""

_LONGEST_REASON = 1200


def _users(view: ProcessView, arguments: Mapping[str, Any]) -> Iterator[Any]:
    """
    Name the users of sessions. The argument is C{filter}. Yields each user name once, L{None} for a pause, and after
    L{MOST_USERS} names no more.
    """
    return _named(walk(view, filterOf(arguments)))


def _named(steps: Iterator[list[Target]]) -> Iterator[str | None]:
    names: set[bytes] = set()
    for found in steps:
        for _, connection in found:
            user = connection.session.user
            if user and user not in names and len(names) <= MOST_USERS:
                names.add(user)
                yield user.decode("utf-8", "replace")
        yield None


def _forget(view: ProcessView, arguments: Mapping[str, Any]) -> Iterator[Any]:
    """
    Forget stored answers. The argument is either C{user}, a mask, or C{users}, a list of user names. Yields the numbers
    of answers that were forgotten.
    """
    mask, users = arguments.get("user"), arguments.get("users")
    if isinstance(mask, str) and users is None:
        matches = userMatcher(mask)
    elif mask is None and isinstance(users, list) and all(isinstance(user, str) for user in users):
        matches = _among(users)
    else:
        raise ValueError("user must be a mask, or users a list of names")
    return _forgotten(view, matches)


def _among(users: list[str]) -> Callable[[bytes], bool]:
    wanted = frozenset(user.lower() for user in users)
    return lambda user: user.decode("utf-8", "replace").lower() in wanted


def _forgotten(view: ProcessView, matches: Callable[[bytes], bool]) -> Iterator[int]:
    for gateway in view.gateways():
        yield from gateway.forgetUsers(matches)


def _kick(view: ProcessView, arguments: Mapping[str, Any]) -> Iterator[Any]:
    """
    End sessions. The arguments are C{filter}, C{reason} (for the log), C{over} (seconds) and C{dry_run}. Yields the
    numbers of sessions that end, now or within C{over}; their sum is the answer.
    """
    reason, over, isDry = arguments.get("reason", ""), arguments.get("over", 0.0), arguments.get("dry_run", False)
    if not isinstance(reason, str) or len(reason) > _LONGEST_REASON or not (reason.isprintable()):
        raise ValueError(f"reason must be one printable line of at most {_LONGEST_REASON} characters")
    if isinstance(over, bool) or not isinstance(over, int | float) or not 0 <= over <= LONGEST_OVER:
        raise ValueError(f"over must be from 0 to {LONGEST_OVER:.0f} seconds")
    if not isinstance(isDry, bool):
        raise ValueError("dry_run must be true or false")
    if over and not isDry and view.gateways()[0].state.kicks.isFull:
        raise ValueError(f"{MOST_SPREADS} kicks that are spread over a time are under way; try again without over")
    return _ended(view, filterOf(arguments), reason, float(over), isDry)


def _ended(view: ProcessView, filter: Filter, reason: str, over: float, isDry: bool) -> Iterator[int]:
    undecided = [] if isDry else list(_undecided(view, filter))
    found: list[Target] = []
    for step in walk(view, filter):
        found.extend(target for target in step if target[1].session.phase is not Phase.END)
        yield 0
    if not isDry:
        kicks = view.gateways()[0].state.kicks
        kicks.end(found, reason, over)
        if undecided:
            kicks.endLater(undecided, reason, _matcher(filter))
    yield len(found)


def _undecided(view: ProcessView, filter: Filter) -> Iterator[Target]:
    """Logins under way whose user may still become one that is kicked: the answer to their question is out."""
    if filter.user is None:
        return
    for gateway in view.gateways():
        for factory in gateway.factories:
            for connection in factory.connections:
                if connection.session.phase is Phase.AUTH:
                    yield factory, connection


def _matcher(filter: Filter) -> Callable[[Target], bool]:
    matches = filter.compiled()

    def isMeant(target: Target) -> bool:
        factory, connection = target
        now: float = factory.clock.seconds()
        return matches(connection.session, factory.settings.name, now, began(connection))

    return isMeant


ANSWERERS.update(kick=_kick, forget=_forget, users=_users)
