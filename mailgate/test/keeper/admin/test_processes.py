"""
Tests for L{mailgate.keeper.admin.processes}: what the endpoints make of the answers of all processes.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from mailgate.keeper.keeper import Collected
from mailgate.test.support.admincase import AdminCase
from mailgate.test.support.adminsite import Connection, request


def backend(peer: str = "1.1", current: bool = True, **changes: Any) -> dict[str, Any]:
    """A row of the question C{backends}."""
    row = {
        "group": "g",
        "address": "10.0.0.1:143",
        "server": "",
        "state": "up",
        "reason": "",
        "seconds": None,
        "sessions": 3,
        "weight": 1,
        "peer": peer,
    }
    return {"current": current, "row": {**row, **changes}}


def service(**changes: Any) -> dict[str, Any]:
    """A row of the question C{services}."""
    row = {
        "service": "127.0.0.1:9000",
        "url": "http://127.0.0.1:9000/auth",
        "failing": False,
        "asking": 2,
        "waiting": 1,
    }
    return {**row, **changes}


def process(**changes: Any) -> dict[str, Any]:
    """A row of the question C{process}."""
    row = {
        "worker": "5g0qa",
        "pid": 7,
        "accepts": True,
        "generations": 1,
        "sessions": 3,
        "relayed": 2,
        "cpu": 1.5,
        "memory": 1000,
    }
    return {**row, **changes}


BROKEN: list[Any] = [None, 1, "x", [], {}, {"current": True}, {"current": True, "row": {"peer": 3}}, {"worker": 1}]


class ListTests(AdminCase):
    """Lists of the answers of processes, of which one may be of another release or taken over."""

    def test_backends(self) -> None:
        """A backend has the sessions of all processes and the most severe state. The other rows are left out."""
        rows = [backend("1.2", False, address="10.0.0.9:143"), backend(), backend("2.1", state="resting"), *BROKEN]
        self.keeper.found["backends"] = Collected(rows, ("process 9 did not answer",))
        found = self.ask("GET", "/api/1/backends").value
        self.assertEqual(found["missing"], ["process 9 did not answer"])
        listed = [(row["address"], row["state"], row["sessions"]) for row in found["backends"]]
        self.assertEqual(listed, [("10.0.0.1:143", "resting", 6), ("10.0.0.9:143", "up", 3)])
        self.assertNotIn("peer", found["backends"][0])

    def test_services(self) -> None:
        """A service has the questions of all processes; it fails if it does for one."""
        self.keeper.found["services"] = Collected([service(), service(failing=True), service(url="b"), *BROKEN])
        self.assertEqual(
            self.ask("GET", "/api/1/auth").value["services"],
            [
                {
                    "service": "127.0.0.1:9000",
                    "url": "http://127.0.0.1:9000/auth",
                    "state": "failing",
                    "asking": 4,
                    "waiting": 2,
                },
                {"service": "127.0.0.1:9000", "url": "b", "state": "up", "asking": 2, "waiting": 1},
            ],
        )

    def state(self, *rows: dict[str, Any]) -> str:
        self.keeper.found["services"] = Collected(rows)
        found = self.ask("GET", "/api/1/auth").value["services"]
        self.assertEqual(len(found), 1)
        state: str = found[0]["state"]
        return state

    def test_recovered(self) -> None:
        """The latest finding counts: a process that has had no login since the outage does not know that it is over."""
        failed, fine = service(failing=True, seconds=20.0), service(seconds=None)
        self.assertEqual(self.state(failed, fine), "failing")
        self.assertEqual(self.state(failed, service(seconds=10.0)), "up")
        self.assertEqual(self.state(service(seconds=10.0), failed, fine), "up")
        self.assertEqual(self.state(service(seconds=30.0), failed), "failing")
        self.assertEqual(self.state(service(failing=True, seconds=400.0)), "up")

    def test_servers(self) -> None:
        """A server has the connections of all processes and generations, and its certificates."""
        row = {
            "current": True,
            "name": "imap",
            "protocol": "imap",
            "listen": ["*:143", "*:993 ssl"],
            "connections": 3,
            "certificates": [["mail.example", 1800000000]],
        }
        old = {**row, "current": False, "connections": 1}
        gone = {**old, "name": "gone"}
        unused = {**gone, "name": "unused", "connections": 0}
        bad: list[Any] = [5, [], ["x"], ["x", "y"], ["x", -1], ["x", 1e300], ["x", None]]
        row = {**row, "certificates": [*bad, ["mail.example", 1800000000]]}
        self.keeper.found["servers"] = Collected([old, gone, unused, row, row, *BROKEN])
        found = self.ask("GET", "/api/1/servers").value["servers"]
        self.assertEqual([(each["name"], each["connections"]) for each in found], [("imap", 7), ("gone", 1)])
        self.assertEqual(found[0]["listen"], ["*:143", "*:993 ssl"])
        self.assertEqual(found[0]["certificates"], [{"name": "mail.example", "not_after": "2027-01-15T08:00:00Z"}])

    def test_workers(self) -> None:
        """Each process has a row; those that did not answer are named."""
        bad = [process(cpu="\x1b[2J"), process(memory=[]), process(cpu=None, memory="x")]
        rows = [process(), process(worker="x", pid=8, accepts=False, memory=None), *BROKEN, *bad]
        self.keeper.found["process"] = Collected(rows, ("process 9 did not answer",))
        found = self.ask("GET", "/api/1/workers").value
        self.assertEqual(found["workers"], [process(), process(worker="x", pid=8, accepts=False, memory=None)])
        self.assertEqual(found["missing"], ["process 9 did not answer"])


class HealthTests(AdminCase):
    """C{/healthz} and C{/readyz}."""

    def setUp(self) -> None:
        super().setUp()
        self.keeper.found = {
            "process": Collected([process()]),
            "services": Collected([service()]),
            "backends": Collected([backend()]),
        }

    def ready(self) -> tuple[int, list[str]]:
        self.clock.advance(10)
        answered = self.connect(isLocal=False).ask("GET", "/readyz")
        return answered.status, answered.value["reasons"]

    def test_health(self) -> None:
        """The process works, whatever the others do: none is asked."""
        answered = self.connect(isLocal=False).ask("GET", "/healthz")
        self.assertEqual((answered.status, answered.value), (200, {"status": "ok"}))
        self.assertEqual(self.keeper.asked, [])

    def test_ready(self) -> None:
        """It is ready while a process accepts, one of the services answers, and one of the backends is used."""
        self.assertEqual(self.ready(), (200, []))
        self.keeper.found["process"] = Collected([process(accepts=False), process()])
        self.keeper.found["services"] = Collected([service(failing=True), service(url="b")])
        self.keeper.found["backends"] = Collected([backend(state="down"), backend("1.2", address="b", state="resting")])
        self.assertEqual(self.ready(), (200, []))

    def test_few(self) -> None:
        """Without authentication services (C{auth_file}), or with backends that only they know, it is ready."""
        self.keeper.found["services"] = self.keeper.found["backends"] = Collected()
        self.assertEqual(self.ready(), (200, []))

    def test_notReady(self) -> None:
        """Each reason is named, without an address: everyone may ask."""
        self.keeper.found["process"] = Collected([process(accepts=False)], ("process 9 did not answer",))
        self.assertEqual(self.ready(), (503, ["no process accepts clients"]))
        self.keeper.found["services"] = Collected([service(failing=True)])
        self.keeper.found["backends"] = Collected([backend(state="down"), backend("1.2", address="b", state="drain")])
        self.assertEqual(
            self.ready(),
            (503, ["no process accepts clients", "no authentication service answers", "no backend is used"]),
        )
        self.keeper.found = {}
        self.assertEqual(self.ready(), (503, ["no process accepts clients"]))

    def test_triedAgain(self) -> None:
        """
        Without logins nothing finds out that the service answers again: after half a minute the gateway counts as
        ready, so that a load balancer sends logins.
        """
        self.keeper.found["services"] = Collected([service(failing=True, seconds=29.0)])
        self.assertEqual(self.ready(), (503, ["no authentication service answers"]))
        self.keeper.found["services"] = Collected([service(failing=True, seconds=31.0)])
        self.assertEqual(self.ready(), (200, []))

    def test_often(self) -> None:
        """However many ask, the processes are asked once a second."""
        self.keeper.found["process"] = waiting = Deferred[Collected]()
        connections = [self.connect() for _ in range(5)]
        for connection in connections:
            connection.send(request("GET", "/readyz"))
        waiting.callback(Collected([process()]))
        self.assertEqual([connection.take()[0].status for connection in connections], 5 * [200])
        self.assertEqual(self.ask("GET", "/readyz").status, 200)
        self.assertEqual(self.keeper.asked, ["process", "services", "backends"])

    def test_left(self) -> None:
        """A client that leaves does not keep the others from an answer."""
        self.keeper.found["process"] = waiting = Deferred[Collected]()
        leaving, staying = Connection(self.factory), self.connect()
        leaving.send(request("GET", "/readyz"))
        staying.send(request("GET", "/readyz"))
        leaving.lose()
        waiting.callback(Collected([process()]))
        self.assertEqual([answered.status for answered in staying.take()], [200])
