# -*- test-case-name: mailgate.test.integration.test_backendstate -*-
"""
Many IMAP clients that log in and out in a loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from types import TracebackType

__all__ = ["Crowd"]

_PATIENCE = 30.0


class Crowd:
    """
    Clients that log in and out until the end of the C{with} block. At its end all of them have left.

    @ivar answers: how often they got each answer to a login; other ends by their names.
    @ivar mark: the first part of the user's name, for the logins that begin from now on. Each client's number follows.
    @ivar rounds: how many logins each client has behind it.
    """

    def __init__(self, port: int, count: int, mark: str = "u") -> None:
        """
        @param port: the gateway's port of 127.0.0.1.
        @param count: how many clients.
        @param mark: as the attribute.
        """
        self.answers: Counter[str] = Counter()
        self.mark = mark
        self.rounds = [0] * count
        self._port = port
        self._isOver = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._isOver = True
        self._thread.join(2 * _PATIENCE)

    @property
    def refused(self) -> list[str]:
        """The answers and ends that no login should have."""
        return [f"{answer!r} {count} times" for answer, count in self.answers.items() if not answer.startswith("OK")]

    async def _all(self) -> None:
        await asyncio.gather(*map(self._client, range(len(self.rounds))))

    async def _client(self, number: int) -> None:
        while not self._isOver:
            try:
                answer = await asyncio.wait_for(self._login(f"{self.mark}{number}"), _PATIENCE)
            except (OSError, EOFError, asyncio.TimeoutError) as error:
                answer = repr(error)
            self.answers[answer] += 1
            self.rounds[number] += 1

    async def _login(self, user: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await reader.readline()
            writer.write(f"a LOGIN {user} wonderland\r\n".encode())
            answer = await reader.readline()
            while answer.startswith(b"*"):
                answer = await reader.readline()
            writer.write(b"q LOGOUT\r\n")
            await reader.read()
            return answer.decode("latin-1").strip().removeprefix("a ")
        finally:
            writer.close()
