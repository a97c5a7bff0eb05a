"""
A gateway with a keeper, asked over its admin socket.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import Any

from mailgate.test.integration.adminclient import AdminClient
from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.procfs import children, runs
from mailgate.test.integration.upgrading import UpgradeTestCase

__all__ = ["KeeperTestCase"]

_ZYGOTE = b"mailgate.process.keeper.zygote"


class KeeperTestCase(UpgradeTestCase):
    """A gateway with a keeper, and a pid file beside which its sockets are."""

    def socketFiles(self) -> list[str]:
        """The files of the keeper's sockets."""
        return [f"{self.pidFile}.{name}" for name in ("admin", "keeper")]

    def isUp(self) -> bool:
        return super().isUp() and self.isAnswering()

    def isAnswering(self) -> bool:
        """Whether the admin server answers."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            return self.ask("/api/1/")[0] == 200
        return False

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request to the admin server; return its status and the JSON of the answer."""
        status, text = AdminClient(f"{self.pidFile}.admin").ask("GET" if body is None else "POST", path, body)
        return status, json.loads(text)

    def members(self) -> list[int]:
        """The pids of the processes that the keeper knows."""
        status, answer = self.ask("/api/1/workers")
        self.assertEqual(status, 200, answer)
        return sorted(each["pid"] for each in answer["workers"])

    def knows(self, *pids: int) -> bool:
        """Whether the keeper knows these processes."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return set(pids) <= set(self.members())
        return False

    def zygote(self, master: int = 0) -> int:
        """The zygote of the keeper of a master; 0 if there is none."""
        return next((pid for pid in children(master or self.running()) if _ZYGOTE in commandOf(pid)), 0)

    def keepers(self, master: int = 0) -> list[int]:
        """The keepers of a master, the youngest last."""
        zygote = self.zygote(master)
        return [pid for pid in children(zygote) if runs(pid)] if zygote else []

    def workers(self, master: int = 0) -> list[int]:
        """The workers of a master, of all generations."""
        others = [pid for pid in children(master or self.running()) if _ZYGOTE not in commandOf(pid)]
        return [pid for zygote in others for pid in children(zygote)]

    def replaced(self, keeper: int) -> int:
        """Wait until another keeper than C{keeper} answers, alone; return it."""
        waitUntil(lambda: len(self.keepers()) == 1 and self.keepers() != [keeper], "another keeper runs")
        waitUntil(self.isAnswering, "it answers")
        return self.keepers()[0]


def commandOf(pid: int) -> bytes:
    """The command line of C{pid}; empty if there is no such process."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/cmdline", "rb") as opened:
        return opened.read()
    return b""
