# -*- test-case-name: mailgate.test.process.keeper.test_linking -*-
"""
The link of a process that serves clients to the keeper.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from twisted.internet.endpoints import UNIXClientEndpoint

from mailgate.keeper import answers
from mailgate.keeper.limits import KeeperStore
from mailgate.keeper.link import KeeperLink
from mailgate.keeper.places import ProcessPlaces
from mailgate.keeper.view import ProcessView
from mailgate.service import Gateway, ProcessState

__all__ = ["linkTo", "viewOf"]

# What reports need of Python's own files: after the change of user they may not be readable.
codecs.lookup("ascii")
for _each in iter_modules(answers.__path__):
    # Each registers what answers a question of the keeper.
    import_module(f"{answers.__name__}.{_each.name}")


def viewOf(state: ProcessState, gateways: Callable[[], Sequence[Gateway]]) -> ProcessView | None:
    """
    Return what the keeper can learn of this process.

    @param state: what the gateways of this process share.
    @param gateways: returns them: first the one that accepts new clients, then those that drain.
    @return: L{None} if connections are not watched.
    """
    if state.watcher is None:
        return None
    return ProcessView(state.ids.member, state.watcher, gateways)


def linkTo(
    path: str,
    view: ProcessView | None,
    reactor: Any,
    slot: int = 0,
    limits: KeeperStore | None = None,
    places: ProcessPlaces | None = None,
) -> KeeperLink | None:
    """
    Return the link to the keeper, which is not started.

    @param path: the path of the keeper's socket.
    @param view: what the keeper can learn of this process; L{None} if connections are not watched.
    @param reactor: the reactor.
    @param slot: the number of the worker, from 0.
    @param limits: asks the keeper about logins; L{None} if this process decides alone.
    @param places: asks the keeper for the places of users; L{None} if nothing here does.
    @return: L{None} if connections are not watched.
    """
    if view is None:
        return None
    return KeeperLink(view, UNIXClientEndpoint(reactor, path), reactor, slot, limits=limits, places=places)
