# -*- test-case-name: mailgate.test.integration.test_limitstate -*-
"""
What the limits know, over workers, reloads, upgrades, restarts and the deaths of the keeper.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import stat

from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.gateway import WITH_KEEPER
from mailgate.test.integration.keeping import KeeperTestCase
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.reloading import USER
from mailgate.test.integration.upgrading import WORKERS

STRANGER = "mallory"
LIMITED = b"NO [UNAVAILABLE]"

RULES = "limit_exempt = none\nlimit_login_pair = delay=9 block=4\nauth_delay = 0\n"


class LimitStateCase(KeeperTestCase):
    """A gateway that blocks a pair after four failures."""

    def setUp(self):
        super().setUp()
        self.state = os.path.join(self.folder, "mailgate.limits")

    def ini(self, process: str = "", mail: str = "", more: str = "") -> str:
        return super().ini(process, mail or f"{RULES}state_file = {self.state}", more)

    def attempt(self, client: RawClient, password: str, user: str = STRANGER) -> bytes:
        return client.login(user, password)

    def guess(self, *numbers: int, at: RawClient | None = None) -> None:
        """Log in with wrong passwords, each once."""
        for number in numbers:
            reply = self.attempt(at or self.client("imap"), f"guess{number}")
            self.assertEqual((reply[:2], reply.startswith(LIMITED)), (b"NO", False), reply)

    def isBlocked(self, user: str = STRANGER) -> bool:
        """Whether a login is limited. The password is one that has failed, so that it counts no more."""
        return self.attempt(self.client("imap"), "guess1", user).startswith(LIMITED)

    def explained(self, user: str):
        """What the keeper knows of a login; nothing while it does not answer."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, answer = self.ask("/api/1/explain", {"user": user, "address": "127.0.0.1", "protocol": "imap"})
            if status == 200:
                return answer["limits"]
        return {"known": False, "pair": {"failures": -1}}

    def counted(self, failures: int) -> None:
        """Wait until the keeper knows of so many failures of the stranger."""
        waitUntil(lambda: self.explained(STRANGER)["pair"]["failures"] == failures, f"the keeper counts {failures}")


class WorkersTests(LimitStateCase):
    """With two workers, and a keeper in a process of its own."""

    processes = WORKERS + WITH_KEEPER

    def onBoth(self) -> list[RawClient]:
        """A client of each worker."""
        found: dict[object, RawClient] = {}
        clients: dict[int, RawClient] = {}

        def haveBoth() -> bool:
            client = self.client("imap")
            clients[client.socket.getsockname()[1]] = client
            for each in self.ask("/api/1/sessions")[1]["sessions"]:
                port = each["client"]["port"]
                if port in clients:
                    found.setdefault(each["worker"], clients[port])
            return len(found) == 2

        waitUntil(haveBoth, "both workers have a client")
        return list(found.values())

    def test_lives(self):
        """
        Failures at both workers are one sum. It is kept by a reload, by an upgrade, and, as far as it blocks, by a
        restart; so are known networks.
        """
        self.start()
        waitUntil(lambda: self.knows(*self.workers()), "the keeper knows the workers")
        self.loggedIn("imap").close()
        first, second = self.onBoth()
        self.guess(1, at=first)
        self.guess(2, at=second)
        self.counted(2)
        (keeper,) = self.keepers()
        self.reload()
        self.replaced(keeper)
        waitUntil(lambda: self.knows(*self.workers()), "the next keeper knows the workers")
        self.counted(2)
        self.guess(3)
        self.counted(3)
        self.upgraded()
        waitUntil(lambda: self.knows(*self.workers()), "the new keeper knows the new processes")
        self.counted(3)
        self.guess(4)
        waitUntil(self.isBlocked, "the fourth failure blocks")
        self.endAll()
        self.assertEqual(stat.S_IMODE(os.stat(self.state).st_mode), 0o600)
        with open(self.state, "rb") as opened:
            content = opened.read()
        for secret in (STRANGER.encode(), USER.encode(), b"127.0.0.1", b"guess"):
            self.assertNotIn(secret, content)
        self.start()
        waitUntil(lambda: self.isAnswering() and self.knows(*self.workers()), "the keeper knows the workers")
        # On a busy machine the keeper may answer too late, and then the worker decides alone.
        waitUntil(self.isBlocked, "the pair is still blocked")
        waitUntil(lambda: self.explained(USER)["known"], "the network is known")
        self.assertFalse(self.explained(STRANGER)["known"])
        self.assertServes(self.loggedIn("imap"))
        self.assertNoTraceback()

    def test_keeperDies(self):
        """A keeper that hangs, or is killed, refuses nobody; the workers count alone, and then together again."""
        self.start()
        waitUntil(lambda: self.knows(*self.workers()), "the keeper knows the workers")
        (keeper,) = self.keepers()
        os.kill(keeper, signal.SIGSTOP)
        # Without a deadline these would wait for ever.
        for _ in range(4):
            self.assertServes(self.loggedIn("imap"))
        self.told("the keeper has not answered about limits within 50 ms")
        os.kill(keeper, signal.SIGKILL)
        for _ in range(4):
            self.assertServes(self.loggedIn("imap"))
        self.replaced(keeper)
        waitUntil(lambda: self.knows(*self.workers()), "the next keeper knows the workers")
        self.guess(1)
        self.counted(1)
        waitUntil(lambda: self.explained(USER)["known"], "what the workers have counted alone is known")
        self.assertNoTraceback()


class SingleTests(LimitStateCase):
    """Without workers: the process itself has the tables."""

    def test_upgrade(self):
        """
        Counters are kept by an upgrade. L{mailgate.test.integration.test_attack} restarts such a process.
        """
        self.start()
        self.loggedIn("imap").close()
        self.guess(1, 2, 3)
        self.upgraded()
        waitUntil(self.isAnswering, "the new keeper answers")
        self.counted(3)
        self.guess(4)
        self.assertTrue(self.isBlocked())
        self.assertNotIn("state_file", self.gateway.log())
        self.assertNoTraceback()

    def test_otherFiles(self):
        """
        The file of a later release stays as it is. One that is damaged is renamed. A folder that is missing is one
        warning. The gateway serves in any case.
        """
        later = b"mailgate limits 99\n{}\n"
        with open(self.state, "wb") as opened:
            opened.write(later)
        self.start()
        self.told(f"state_file {self.state} was written by a later release of mailgate")
        self.assertServes(self.loggedIn("imap"))
        self.gateway.stop()
        with open(self.state, "rb") as opened:
            self.assertEqual(opened.read(), later)
        with open(self.state, "wb") as opened:
            opened.write(b"damaged")
        self.start()
        self.told(f"it is {self.state}.unreadable now")
        self.assertServes(self.loggedIn("imap"))
        self.gateway.stop()
        self.assertTrue(os.path.exists(f"{self.state}.unreadable"))
        self.state = os.path.join(self.folder, "missing", "limits")
        self.start()
        self.told(f"state_file {self.state} cannot be written: No such file or directory")
        self.assertServes(self.loggedIn("imap"))
        self.gateway.stop()
        self.assertEqual(self.gateway.log().count("cannot be written"), 1)
        self.assertNoTraceback()


del LimitStateCase
