"""
Tests for L{mailgate.process.backends} and L{mailgate.process.queries}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailgate.process.answer import Answer
from mailgate.process.backends import Backends, combined, passedOrders, receiveOrders
from mailgate.process.queries import LIST_BACKENDS, Found
from mailgate.process.tables import standing
from mailgate.upstream.notices import Notices


def row(peer: str, address: str = "192.0.2.1:143", **more: Any) -> dict[str, Any]:
    """A server as a process answers."""
    found = {"group": "store", "address": address, "server": "", "state": "up", "reason": "", "seconds": None}
    return {**found, "sessions": 0, "weight": 1, "peer": peer, **more}


class FakeGenerations:
    """Answers with rows, and obeys orders."""

    def __init__(self) -> None:
        self.notices = Notices(Clock())
        self.notices.subscribe("order", self.obey)
        self.found: list[Found] = []
        self.asked: list[Any] = []

    def obey(self, address: str, body: Any, age: float) -> None:
        for each in self.found:
            for found in each.rows:
                if found["address"] == address:
                    found["state"] = {"drain": "drain", "down": "down"}.get(body["word"], "up")

    def ask(self, word: str, arguments: Mapping[str, Any]) -> Deferred[Sequence[Found]]:
        self.asked.append((word, arguments))
        return succeed(self.found)


class CombinedTests(SynchronousTestCase):
    """One list of several processes and generations."""

    def test_sums(self):
        """Sessions are added up, and the most severe state counts, with its reason and the longest time."""
        states = (("up", 90, ""), ("drain", 7, "ordered"), ("resting", 99, "refused"), ("drain", 8, "ordered"))
        found = [
            Found(number < 2, [row(f"{number}.1", state=state, seconds=since, reason=reason, sessions=number)])
            for number, (state, since, reason) in enumerate(states)
        ]
        (result,) = combined(found)
        values = (result["state"], result["seconds"], result["reason"], result["sessions"])
        self.assertEqual(values, ("drain", 8, "ordered", 6))

    def test_severity(self):
        """The order of the states."""
        states = ["up", "resting", "drain", "down"]
        for lower, upper in pairwise(states):
            for pair in ((lower, upper), (upper, lower)):
                rows = [row(f"{number}.1", state=state) for number, state in enumerate(pair)]
                self.assertEqual([each["state"] for each in combined([Found(True, rows)])], [upper])

    def test_order(self):
        """Servers have the order of the configuration; groups and names with the same address stay apart."""
        rows = [row("1.1"), row("1.2", group="other"), row("1.3", server="mail.test:143"), row("1.4", "192.0.2.9:143")]
        expected = [{name: value for name, value in each.items() if name != "peer"} for each in rows]
        self.assertEqual(combined([Found(True, rows)]), expected)

    def test_shared(self):
        """A server that two generations of one process share is counted once."""
        found = [Found(True, [row("1.1", sessions=3)]), Found(False, [row("1.1", sessions=3)])]
        self.assertEqual([each["sessions"] for each in combined(found)], [3])

    def test_malformed(self):
        """Rows that no worker of this release sends are left out, so that the others are still listed and ordered."""
        bad: list[Any] = [None, 1, "x", [], {}, {**row("1.1"), "more": 1}]
        bad += [row("1.1", state="well"), row("1.1", state=[]), row("1.1", reason=None), row("1.1", sessions="1")]
        bad += [row("1.1", seconds=1e300), row("1.1", seconds=10**400), row("1.1", weight=True), row("1.1", [])]
        expected = combined([Found(True, [row("2.1")])])
        self.assertEqual(combined([Found(True, bad), Found(True, [row("2.1")])]), expected)

    def test_removed(self):
        """A server that only older configurations have is listed while sessions are there."""
        older = [
            row("2.1", "192.0.2.8:143"),
            row("2.2", "192.0.2.9:143", sessions=1, reason="refused", state="down"),
            row("2.3", "192.0.2.10:143", sessions=1, group="-"),
        ]
        found = combined([Found(True, [row("1.1")]), Found(False, older)])
        self.assertEqual([each["address"] for each in found], ["192.0.2.1:143", "192.0.2.9:143", "192.0.2.10:143"])
        # The configuration does not name servers outside of groups.
        self.assertEqual([each["reason"] for each in found[1:]], ["not in the current configuration; refused", ""])


class BackendsTests(SynchronousTestCase):
    """Lists and orders."""

    def setUp(self) -> None:
        self.generations = FakeGenerations()
        self.backends = Backends(self.generations)

    def order(self, word: str, address: str) -> tuple[Answer, list[str | None]]:
        """The answer, and what is logged."""
        with capturedLogs() as events:
            answer = self.successResultOf(self.backends.order(word, address))
        return answer, [formatEvent(event) for event in events]

    def test_list(self) -> None:
        """What is known is listed; the reasons name the processes that have not answered."""
        self.generations.found = [Found(True, [row("1.1")]), Found(True, failure="worker 7 has not answered")]
        answer = self.successResultOf(self.backends.list())
        self.assertEqual((answer.done, answer.reasons), (True, ("worker 7 has not answered",)))
        self.assertEqual([each["address"] for each in answer.rows], ["192.0.2.1:143"])
        self.assertEqual(self.generations.asked, [(LIST_BACKENDS, {})])

    def test_order(self) -> None:
        """An order is published and logged once; the answer has what then holds for each server at the address."""
        self.generations.found = [
            Found(
                True,
                [
                    row("1.1", sessions=2),
                    row("1.2", group="other"),
                    row("1.3", "192.0.2.9:143"),
                    row("1.4", "192.0.2.9:143", group="other"),
                ],
            ),
            Found(True, [row("2.1", sessions=3)]),
        ]
        answer, logged = self.order("drain", "192.0.2.1:143")
        self.assertEqual(logged, ["backend 192.0.2.1:143: drain ordered; sessions there: 5"])
        self.assertEqual((answer.done, answer.reasons), (True, ()))
        rows = [(each["group"], each["state"], each["sessions"]) for each in answer.rows]
        self.assertEqual(rows, [("store", "drain", 5), ("other", "drain", 0)])
        notices = [(each.topic, each.key, each.body) for each in self.generations.notices.held()]
        self.assertEqual(notices, [("order", "192.0.2.1:143", {"word": "drain"})])

    def test_last(self) -> None:
        """The answer and the log say that no server of the group is left; not so outside of groups."""
        self.generations.found = [
            Found(True, [row("1.1"), row("1.2", "192.0.2.9:143", state="drain"), row("1.3", group="-")])
        ]
        answer, logged = self.order("drain", "192.0.2.1:143")
        self.assertEqual(
            logged[1:],
            [
                "upstream store: no server gets new sessions: logins get a temporary failure until an operator or a"
                " health check changes that"
            ],
        )
        first, second = map(standing, answer.rows)
        self.assertEqual(
            first,
            "192.0.2.1:143 (store): drain; 0 sessions continue; no server of store gets new sessions now, and its"
            " logins get a temporary failure",
        )
        self.assertEqual(second, "192.0.2.1:143 (outside of groups): drain; 0 sessions continue")

    def test_name(self) -> None:
        """The address as the configuration has it is known as well."""
        self.generations.found = [Found(True, [row("1.1", server="mail.test:143")])]
        self.assertTrue(self.order("down", "mail.test:143")[0].done)

    def test_unknown(self) -> None:
        """An unknown address is named, escaped, with those that are like it; nothing is published or logged."""
        rows = [row(f"1.{number}", f"192.0.2.{number}:143") for number in range(10, 20)]
        self.generations.found = [Found(True, rows), Found(True, failure="worker 7 has not answered")]
        answer, logged = self.order("drain", "192.0.2.1\u202e")
        self.assertEqual((answer.done, answer.isUnknown, logged), (False, True, []))
        first, second = answer.reasons
        self.assertTrue(first.startswith("no server has the address 192.0.2.1\\u202e; servers: 192.0.2.1"), first)
        self.assertTrue(first.endswith(", ..."), first)
        self.assertEqual(second, "worker 7 has not answered")
        self.assertEqual(list(self.generations.notices.held()), [])

    def test_noServers(self) -> None:
        """The same where no server is known."""
        (reason,) = self.order("up", "a:1")[0].reasons
        self.assertEqual(reason, "no server has the address a:1; servers: none")


class UpgradeTests(SynchronousTestCase):
    """Orders that an upgrade passes on."""

    def test_passed(self) -> None:
        """The new process has the orders, with their ages and in their order; other notices are not passed on."""
        clock = Clock()
        before, after = Notices(clock), Notices(clock)
        before.publish("order", "a:1", {"word": "drain"})
        before.publish("rest", "a:1", {})
        clock.advance(5)
        before.publish("order", "b:1", {"word": "resume"})
        receiveOrders(after, passedOrders(before))
        held = [(each.topic, each.key, each.body, after.age(each)) for each in after.held()]
        self.assertEqual(held, [("order", "a:1", {"word": "drain"}, 5), ("order", "b:1", {"word": "resume"}, 0)])

    def test_bound(self) -> None:
        """What fits into a variable of the environment is passed on: the latest orders."""
        notices = Notices(Clock())
        for number in range(5000):
            notices.publish("order", f"host{number}.example:143", {"word": "drain"})
        passed = passedOrders(notices)
        self.assertEqual(passed[-1][0], "host4999.example:143")
        self.assertTrue(100 < len(passed) < 5000)
        self.assertLess(len(str(passed)), 100000)

    def test_nonsense(self) -> None:
        """What another release has passed on and this one does not understand is ignored."""
        notices = Notices(Clock())
        invalid: list[Any] = [None, 7, "x", {}, [1], [["a:1", "dance", 1]], [["a:1", "drain"]], [[1, "drain", 1]]]
        for passed in invalid:
            receiveOrders(notices, passed)
        receiveOrders(notices, [["a:1", "drain", -1], ["a:1", "drain", "1"], ["a:1", ["drain"], 1]])
        self.assertEqual(list(notices.held()), [])
