"""
Tests for L{mailgate.keeper.alarms}.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.alarms import Seen, alarms
from mailgate.keeper.incidents import Incidents
from mailgate.keeper.moments import moment
from mailgate.keeper.rows import NO_BACKEND

NOW = 1_800_000_000.0
DAY = 86_400

BACKEND = {"group": "store", "address": "10.0.0.3:143", "server": "", "state": "up", "reason": "", "seconds": 240}
SERVICE = {"service": "127.0.0.1:9000", "url": "http://127.0.0.1:9000/auth", "state": "up", "last_error": None}


def server(left: float) -> dict[str, Any]:
    """A server whose certificate ends in so many seconds."""
    return {"name": "imaps", "certificates": [{"name": "imap.test", "not_after": moment(NOW + left)}]}


class AlarmsTests(SynchronousTestCase):
    """L{alarms}."""

    def setUp(self) -> None:
        self.incidents = Incidents()

    def found(self, now: float = NOW, **seen: Any) -> list[dict[str, Any]]:
        return alarms(Seen(now, **seen), self.incidents)

    def shown(self, **seen: Any) -> list[tuple[str, str, str]]:
        return [(each["severity"], each["kind"], each["text"]) for each in self.found(**seen)]

    def test_none(self) -> None:
        """A gateway that works has no alarm."""
        seen: dict[str, Any] = {
            "backends": [BACKEND, {**BACKEND, "state": "drain"}],
            "auth": [SERVICE],
            "servers": [server(20 * DAY)],
        }
        self.assertEqual(self.found(**seen, ages={"a": (7, 4.9)}), [])
        self.incidents.happened(NOW - 5, "mailgate_reloads", ["ok"], [])
        self.assertEqual(self.found(), [])

    def test_backend(self) -> None:
        """A backend that is down is critical unless an operator has ordered it; one that rests is a warning."""
        down = {**BACKEND, "state": "down", "reason": "connection refused"}
        (found,) = self.found(backends=[down])
        self.assertEqual(
            found,
            {
                "id": "backend store 10.0.0.3:143",
                "severity": "critical",
                "kind": "backend",
                "text": "backend 10.0.0.3:143 is down: connection refused",
                "since": moment(NOW - 240),
            },
        )
        # It stays the same while it lasts, also if a process finds out later.
        self.assertEqual(self.found(NOW + 10, backends=[{**down, "seconds": 3}]), [found])
        self.assertEqual(
            self.shown(backends=[{**down, "reason": "mailgate backend down"}]),
            [("warning", "backend", "backend 10.0.0.3:143 is down: mailgate backend down")],
        )
        self.assertEqual(
            self.shown(backends=[{**BACKEND, "state": "resting", "seconds": None}]),
            [("warning", "backend", "backend 10.0.0.3:143 rests after failures")],
        )

    def test_service(self) -> None:
        """A service without an answer is critical if there is no other one."""
        down = {**SERVICE, "state": "failing", "last_error": {"text": "refused the\nconnection", "at": ""}}
        text = "authentication service 127.0.0.1:9000 does not answer: it refused the\\nconnection"
        self.assertEqual(self.shown(auth=[down]), [("critical", "auth", text)])
        self.assertEqual(self.shown(auth=[down, {**SERVICE, "url": "x"}]), [("warning", "auth", text)])

    def test_certificate(self) -> None:
        """It is a warning for 14 days, and critical in the last three, and when it has ended."""
        name = "certificate imap.test of server imaps"
        for left, severity, text in (
            (14 * DAY - 1, "warning", "ends in 13 days"),
            (3 * DAY + 1, "warning", "ends in 3 days"),
            (3 * DAY - 1, "critical", "ends in 2 days"),
            (DAY + 1, "critical", "ends in 1 day"),
            (100, "critical", "ends within a day"),
            (-1, "critical", "has ended"),
        ):
            self.assertEqual(self.shown(servers=[server(left)]), [(severity, "certificate", f"{name} {text}")])

    def test_restarts(self) -> None:
        """Workers that are started anew three times in ten minutes are one."""
        for ago in (700, 599, 10):
            self.incidents.happened(NOW - ago, "mailgate_worker_restarts", ["signal"], [])
        self.assertEqual(self.found(), [])
        self.incidents.happened(NOW - 1, "mailgate_worker_restarts", ["signal"], [])
        (found,) = self.found()
        self.assertEqual((found["kind"], found["since"]), ("worker", moment(NOW - 599)))

    def test_reload(self) -> None:
        """A refused reload is one until another one succeeds."""
        self.incidents.happened(NOW - 9, "mailgate_reloads", ["refused"], ["gateway.ini:3: x\x1b[2J is unknown"])
        self.assertEqual(
            [(each["text"], each["since"]) for each in self.found()],
            [
                (
                    "reload refused: gateway.ini:3: x\\x1b[2J is unknown; the previous configuration stays active",
                    moment(NOW - 9),
                )
            ],
        )
        self.incidents.happened(NOW, "mailgate_reloads", ["ok"], [])
        self.assertEqual(self.found(), [])

    def test_report(self) -> None:
        """A process that does not report is one, whose text does not change every second."""
        first = self.found(ages={"a": (4711, 6.0), "b": (4712, 1.0)})
        self.assertEqual(
            [(each["id"], each["text"], each["since"]) for each in first],
            [("report a", "process 4711 does not report; its numbers are out of date", moment(NOW - 6))],
        )
        self.assertEqual(self.found(NOW + 1, ages={"a": (4711, 7.0)}), first)
        self.assertEqual(self.found(), [])
        (again,) = self.found(NOW + 100, ages={"a": (4711, 6.0)})
        self.assertEqual(again["since"], moment(NOW + 94))

    def test_notReady(self) -> None:
        """Why clients cannot log in is critical, and the first."""
        down = {**BACKEND, "state": "down", "reason": "mailgate backend down"}
        found = self.shown(backends=[down], notReady=[NO_BACKEND])
        self.assertEqual(found[0], ("critical", "backend", "clients cannot log in: no backend is used"))
        self.assertEqual(len(found), 2)

    def test_bounds(self) -> None:
        """There are a hundred at most, the critical ones first."""
        many = [{**BACKEND, "address": f"10.0.0.{n}:143", "state": "resting"} for n in range(200)]
        found = self.found(backends=many, notReady=[NO_BACKEND])
        self.assertEqual((len(found), found[0]["severity"]), (100, "critical"))


class StoreTests(SynchronousTestCase):
    """The store, and the gateways that share it."""

    def shown(self, **store: Any) -> list[tuple[str, str, str]]:
        given = {"up": True, "since": moment(NOW - 60), "reason": "", "gateways": [{"name": "g1", "age": 0.0}], **store}
        found = alarms(Seen(NOW, store=given), Incidents())
        return [(each["severity"], each["text"], each["since"]) for each in found]

    def test_good(self) -> None:
        """A store that is up, and gateways that were heard of lately, are none."""
        self.assertEqual(self.shown(gateways=[{"name": "g1", "age": 0.0}, {"name": "g2", "age": 41.0}]), [])

    def test_down(self) -> None:
        """The store is down since it has failed; nothing is known of the gateways meanwhile."""
        (found,) = self.shown(up=False, reason="at s:1 hangs", gateways=[{"name": "g2", "age": 100.0}])
        text = "the store at s:1 hangs; each gateway decides by itself, and lists lack the others"
        self.assertEqual(found, ("warning", text, moment(NOW - 60)))
        self.assertIn("the store cannot be used; ", self.shown(up=False)[0][1])

    def test_silent(self) -> None:
        """A gateway that has gone without saying goodbye."""
        (found,) = self.shown(gateways=[{"name": "g1", "age": 0.0}, {"name": "g2", "age": 50.0}])
        self.assertEqual(found, ("warning", "gateway g2 is silent; its sessions are in no list", moment(NOW - 50)))
