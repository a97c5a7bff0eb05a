"""
A test case with an admin server, without sockets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.admin.channel import AdminFactory
from mailgate.keeper.admin.endpoints import ENDPOINTS, Endpoint
from mailgate.keeper.admin.site import Desk
from mailgate.test.support.adminsite import (
    TOKENS,
    Answered,
    Connection,
    Operator,
    StandInKeeper,
    StandIns,
    adminSettings,
)
from mailgate.watch.settings import AdminAddress

__all__ = ["AdminCase", "writeTokens"]


def writeTokens(path: str, lines: Sequence[str] = (), mode: int = 0o600) -> str:
    """Write a file of tokens, by default L{TOKENS} with the names C{r}, C{o} and C{a}. Return its absolute path."""
    path = os.path.abspath(path)
    lines = lines or [f"{word[0]} {word} {token}" for word, token in TOKENS.items()]
    with open(path, "w", encoding="utf-8") as opened:
        opened.write("\n".join(lines) + "\n")
    os.chmod(path, mode)
    return path


class AdminCase(SynchronousTestCase):
    """
    An admin server with stand-ins behind it.

    @ivar desk: what answers.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1e9)
        self.keeper = StandInKeeper(self.clock)
        self.operator = Operator()
        self.keeper.operator = self.operator
        self.stands = StandIns()
        self.tokenFile = writeTokens(self.mktemp())
        self.factory = self.make()

    def make(self, endpoints: Sequence[Endpoint] = ENDPOINTS, isOpen: bool = False, **given: Any) -> AdminFactory:
        """Return a server with this configuration."""
        given = {"admin": AdminAddress(None, "127.0.0.1", 9143), "tokenFile": self.tokenFile, **given}
        settings = adminSettings(**given)
        self.desk = Desk(
            self.keeper,
            settings,
            self.clock,
            given["admin"],
            endpoints,
            (os.geteuid(),),
            self.stands.functions,
            isOpen,
        )
        return AdminFactory(self.desk.answer, self.clock)

    def connect(self, isLocal: bool = True, **given: Any) -> Connection:
        """Return a new connection."""
        connection = Connection(self.factory, isLocal, **given)
        self.addCleanup(connection.lose)
        return connection

    def ask(self, method: str, path: str, *fields: str, token: str | None = None, **given: Any) -> Answered:
        """
        Send a request on a new connection: over TCP if C{token}, the word of a level, is given, and of this process at
        a unix socket if not. Return the answer.
        """
        if method in ("POST", "DELETE") and not any(each.startswith("Content-Type") for each in fields):
            fields = (*fields, "Content-Type: application/json")
        if token:
            fields = (*fields, f"Authorization: Bearer {TOKENS[token]}")
        return self.connect(isLocal=token is None).ask(method, path, *fields, **given)
