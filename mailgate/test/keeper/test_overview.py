"""
Tests for L{mailgate.keeper.overview}.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.admin.examples import A_SESSION, AN_OVERVIEW, STATS
from mailgate.keeper.admin.page.render import shell, tables
from mailgate.keeper.keeper import Collected, Keeper
from mailgate.keeper.moments import LATEST
from mailgate.keeper.overview import FRESH, Overview, forLevel
from mailgate.limits.attempt import Rule
from mailgate.test.support.limitstore import StandInLimits
from mailgate.watch.metrics import named
from mailgate.watch.tokens import Level

BACKEND = {
    **{"group": "store", "address": "10.0.0.1:143", "server": "", "state": "up", "reason": "", "seconds": None},
    **{"sessions": 3, "weight": 1, "peer": "1.2"},
}
SERVICE = {
    **{"service": "127.0.0.1:9000", "url": "http://127.0.0.1:9000/auth", "failing": False, "seconds": None},
    **{"asking": 1, "waiting": 0, "error": ["refused the connection", 5.0]},
}
SERVER = {
    **{"current": True, "name": "imaps", "protocol": "imap", "listen": ["*:993 ssl"], "connections": 3},
    "certificates": [["imap.test", 4e9]],
}
PROCESS = {
    **{"worker": "a", "pid": 4711, "accepts": True, "generations": 1, "sessions": 3, "relayed": 2},
    **{"cpu": 1.5, "memory": 1000, "cpu_share": 0.04, "lag": 0.001},
}
STUCK = {**{name: value for name, value in A_SESSION.items() if name != "gateway"}, "worker": "a", "id": "g1.a.7k"}


def page(**changed: Any) -> list[Any]:
    """The rows of one process."""
    return [
        {"current": True, "row": {**BACKEND, **changed}, "table": "backends"},
        {**SERVICE, "table": "services"},
        {**SERVER, "table": "servers"},
        {**PROCESS, "table": "process"},
    ]


def histogram(name: str, seconds: float, count: int) -> list[float]:
    """So many observations of so many seconds."""
    buckets = named(name).buckets
    place = next(index for index, bound in enumerate(buckets) if bound >= seconds)
    return [count if index == place else 0 for index in range(len(buckets) + 1)] + [seconds * count]


class Process:
    """A process that answers what a test sets."""

    isRetiring = False
    slot = 0

    def __init__(self, name: str = "a") -> None:
        self.name = name
        self.pid = 4711
        self.rows: Any = page()
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    def ask(self, word: str, arguments: Mapping[str, Any], within: float) -> Deferred[Collected]:
        self.asked.append((word, arguments))
        if word == "report":
            return succeed(Collected())
        return self.rows if isinstance(self.rows, Deferred) else succeed(Collected(self.rows))


class OverviewTests(SynchronousTestCase):
    """L{Overview}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.keeper = Keeper(self.clock, "g1")
        self.process = Process()
        self.keeper.join(self.process)
        self.overview = Overview(self.keeper)

    def report(self, **totals: Any) -> None:
        self.keeper.reported(self.process, {f"mailgate_{name}": rows for name, rows in totals.items()}, [])

    def found(self) -> dict[str, Any]:
        self.clock.advance(1)
        found: dict[str, Any] = self.successResultOf(self.overview.collect())
        json.dumps(found, allow_nan=False)
        return found

    def test_shape(self) -> None:
        """It has the members of the example, in each row, too."""
        self.process.rows = [*page(), {**STUCK, "at": 5, "waiting": 7.5, "table": "stuck"}]
        found = self.found()
        self.assertEqual(list(found), list(AN_OVERVIEW))
        for name in ("backends", "auth", "servers", "workers", "stuck"):
            self.assertEqual(found[name][0].keys(), AN_OVERVIEW[name][0].keys(), name)
        self.assertEqual(found["stats"].keys(), STATS.keys())
        self.assertEqual((found["reload"], found["alarms"], found["missing"], found["more"]), (None, [], [], {}))

    def test_limits(self) -> None:
        """The blocks, the latest hundred of them; the connections that limits have refused at each server."""
        self.assertEqual(self.found()["blocks"], [])
        self.keeper.limits = limits = StandInLimits()
        for number in range(103):
            limits.add(f"192.0.2.{number}")
        self.report(connections_limited=[[["imaps"], 7]])
        found = self.found()
        self.assertEqual((found["blocks"][0]["thing"], found["blocks"][0]["rule"]), ("192.0.2.102", "R4"))
        self.assertEqual((len(found["blocks"]), found["more"]), (100, {"blocks": 3}))
        self.assertEqual(found["blocks"][0].keys(), AN_OVERVIEW["blocks"][0].keys())
        self.assertEqual(found["servers"][0]["refused"], 7)
        self.assertIsNone(forLevel(found, Level.READ)["blocks"])

    def test_attack(self) -> None:
        """A user whose passwords are guessed is an alarm while R6 acts. Below operate it has no name."""
        self.keeper.limits = limits = StandInLimits()
        limits.found = {"user": {"failures": 61, "limit": 50, "since": None}}
        self.keeper.limited(Rule.ADDRESS_BLOCK, "192.0.2.7", "100 failed logins")
        self.assertEqual(self.found()["alarms"], [])
        for user in ("joe", "jane"):
            self.keeper.limited(Rule.USER_SLOW, user, "50 failed logins from unknown networks")
        found = self.found()
        self.assertEqual(
            [(each["kind"], each["severity"], each["text"]) for each in found["alarms"]],
            [
                (
                    "user_under_attack",
                    "warning",
                    f"passwords are guessed from many networks for user {user}: R6 slows logins from unknown networks"
                    " down, or says in the log what it would do",
                )
                for user in ("jane", "joe")
            ],
        )
        (public,) = forLevel(found, Level.READ)["alarms"]
        self.assertEqual((public["id"], "joe" in str(public), "jane" in str(public)), ("attack", False, False))
        limits.found = {}
        self.assertEqual(self.found()["alarms"], [])
        limits.found = {"user": {"failures": 61, "limit": 50, "since": None}}
        self.assertEqual(self.found()["alarms"], [])

    def test_busy(self) -> None:
        """A limit that refuses more than a hundred clients a minute is an alarm; one that delays them is not."""
        for number in range(16):
            counts = [[["R8", "refused"], 20 * number], [["R1", "delayed"], 20 * number], [["R2", "refused"], number]]
            self.report(limited=counts)
            self.clock.advance(4)
        (found,) = self.found()["alarms"]
        self.assertEqual((found["id"], found["kind"], found["severity"]), ("limit R8", "limit", "warning"))
        self.assertIn("R8 refuses more than 100 clients a minute", found["text"])

    def test_backends(self) -> None:
        """Logins a second are those of the last seconds, quantiles and errors those of the last minute."""
        connect, login = "backend_connect_seconds", "backend_login_seconds"
        self.report(**{connect: [], login: []})
        self.clock.advance(10)
        address = BACKEND["address"]
        self.report(
            **{
                connect: [
                    [[address, "ok"], histogram(f"mailgate_{connect}", 0.002, 100)],
                    [[address, "timeout"], histogram(f"mailgate_{connect}", 30, 2)],
                ],
                login: [
                    [[address, "ok"], histogram(f"mailgate_{login}", 0.04, 30)],
                    [[address, "refused"], histogram(f"mailgate_{login}", 0.01, 1)],
                    [["10.0.0.9:143", "ok"], histogram(f"mailgate_{login}", 5, 100)],
                ],
            }
        )
        self.clock.advance(9)
        (row,) = self.found()["backends"]
        self.assertEqual(row["address"], address)
        self.assertEqual(row["logins_per_second"], 0.0)
        self.clock.advance(-5)
        (row,) = self.found()["backends"]
        self.assertEqual(row["logins_per_second"], round(30 / 16, 3))
        self.assertTrue(0.001 < row["connect_p95"] <= 0.0025)
        self.assertTrue(0.025 < row["login_p95"] <= 0.05)
        self.assertEqual(row["errors_per_minute"], {"timeout": 7.5, "refused": 3.8})

    def test_unknown(self) -> None:
        """Before there is anything to compare with, values are not known."""
        found = self.found()
        (row,) = found["backends"]
        self.assertEqual(
            [row[name] for name in ("logins_per_second", "connect_p95", "login_p95", "errors_per_minute")],
            [None, None, None, {}],
        )
        (row,) = found["auth"]
        self.assertEqual([row[name] for name in ("per_second", "p95", "cache_hits")], [None, None, None])
        (row,) = found["servers"]
        self.assertEqual([row[name] for name in ("tls", "resumed", "refused")], [{}, None, 0])

    def test_auth(self) -> None:
        """Questions, the cache, and the last error of all processes."""
        self.report(auth_seconds=[], auth_cache=[])
        self.clock.advance(9)
        self.report(
            auth_seconds=[
                [["127.0.0.1:9000", "accepted"], histogram("mailgate_auth_seconds", 0.02, 15)],
                [["127.0.0.1:9000", "denied"], histogram("mailgate_auth_seconds", 0.02, 5)],
            ],
            auth_cache=[[["hit"], 3], [["miss"], 1]],
        )
        later = {**SERVICE, "error": ["timed \x1b out", 9.0], "table": "services"}
        self.process.rows = [*page(), later, {**later, "error": "x"}, {**later, "error": [1, 2]}]
        (row,) = self.found()["auth"]
        self.assertEqual((row["per_second"], row["cache_hits"]), (2.0, 0.75))
        self.assertTrue(0.01 < row["p95"] <= 0.025)
        self.assertEqual(row["last_error"], {"text": "timed \\x1b out", "at": "1970-01-01T00:00:09Z"})

    def test_servers(self) -> None:
        """Shares of TLS versions and of resumed sessions, failed handshakes not counted."""
        self.report(
            tls_handshakes=[
                [["imaps", "TLSv1.3", "full"], 6],
                [["imaps", "TLSv1.3", "resumed"], 3],
                [["imaps", "TLSv1.2", "full"], 1],
                [["imaps", "none", "failed"], 50],
                [["other", "TLSv1.2", "full"], 50],
            ]
        )
        (row,) = self.found()["servers"]
        self.assertEqual((row["tls"], row["resumed"]), ({"TLSv1.2": 0.1, "TLSv1.3": 0.9}, 0.3))

    def test_workers(self) -> None:
        """Load and the age of the last report, in whole seconds; after five it is an alarm."""
        self.report()
        self.clock.advance(1.7)
        found = self.found()
        (row,) = found["workers"]
        self.assertEqual((row["cpu_share"], row["lag"], row["report_age"]), (0.04, 0.001, 2))
        self.assertEqual(found["alarms"], [])
        self.clock.advance(3)
        (alarm,) = self.found()["alarms"]
        self.assertEqual((alarm["kind"], alarm["id"]), ("report", "report a"))

    def test_alarms(self) -> None:
        """A backend that is down, no backend that is used, and a refused reload."""
        self.process.rows = page(state="down", reason="connection refused", seconds=9)
        self.keeper.happened("mailgate_reloads", ["refused"], ["line 3"])
        found = self.found()
        self.assertEqual([each["kind"] for each in found["alarms"]], ["backend", "backend", "reload"])
        self.assertEqual((found["reload"]["done"], found["reload"]["reasons"]), (False, ["line 3"]))

    def test_stuck(self) -> None:
        """The logins that take longest come first; what is too many is counted, what is not valid is left out."""
        rows = [{**STUCK, "id": f"g1.a.{n}", "at": 5, "waiting": n, "table": "stuck"} for n in range(150)]
        bad = [{**rows[0], "waiting": "x"}, {**rows[0], "id": 7}, {**rows[0], "worker": "other"}, 7, None, []]
        self.process.rows = [*page(), *rows, *bad, {"table": "more", "more": 7}, {"table": "more", "more": "x"}]
        found = self.found()
        self.assertEqual(self.process.asked[0], ("page", {"stuck": 5.0}))
        self.assertEqual((len(found["stuck"]), found["stuck"][0]["waiting"]), (100, 149))
        self.assertEqual(found["more"], {"stuck": 57})
        self.assertEqual(found["stuck"][0]["gateway"], "g1")
        self.assertNotIn("table", found["stuck"][0])

    def test_bounds(self) -> None:
        """A table has 100 rows at most."""
        several = [
            {"current": True, "row": {**BACKEND, "address": f"10.0.0.{n}:143", "peer": str(n)}, "table": "backends"}
            for n in range(130)
        ]
        self.process.rows = several
        found = self.found()
        self.assertEqual((len(found["backends"]), found["more"]), (100, {"backends": 30}))

    def test_failures(self) -> None:
        """The latest refused logins, at most 50, the latest first."""
        stories = [{"kind": "login", "at": f"2026-11-28T10:00:{n:02}Z", "user": f"u{n}"} for n in range(60)]
        self.keeper.reported(self.process, None, stories)
        found = self.found()["failures"]
        self.assertEqual((len(found), found[0]["user"], found[-1]["user"]), (50, "u59", "u10"))

    def test_leaving(self) -> None:
        """A caller that leaves, and comes back, does not have the processes asked again."""
        waiting: Deferred[Any] = Deferred()
        self.process.rows = waiting
        for _ in range(3):
            left = self.overview.collect()
            left.cancel()
            self.failureResultOf(left, CancelledError)
        stays = self.overview.collect()
        self.assertEqual([word for word, _ in self.process.asked], ["page", "report"])
        waiting.callback(Collected(page()))
        self.assertEqual(len(self.successResultOf(stays)["backends"]), 1)
        self.clock.advance(FRESH)
        self.process.rows = page()
        self.successResultOf(self.overview.collect())
        self.assertEqual(len(self.process.asked), 4)

    def test_shared(self) -> None:
        """Many who ask at once, or shortly after each other, cost one question."""
        self.process.rows = Deferred()
        waiting = [self.overview.collect() for _ in range(20)]
        gone = self.overview.collect()
        gone.cancel()
        self.failureResultOf(gone)
        self.assertEqual([word for word, _ in self.process.asked], ["page", "report"])
        rows, self.process.rows = self.process.rows, page()
        rows.callback(Collected(page(), ("worker 7",)))
        found = [self.successResultOf(each) for each in waiting]
        self.assertEqual({id(each) for each in found}, {id(found[0])})
        self.assertEqual(found[0]["missing"], ["worker 7"])
        self.successResultOf(self.overview.collect())
        self.assertEqual(len(self.process.asked), 2)
        self.clock.advance(FRESH)
        self.successResultOf(self.overview.collect())
        self.assertEqual(len(self.process.asked), 4)

    def test_levels(self) -> None:
        """Below operate neither users nor their failures are there."""
        found = self.found()
        self.assertEqual(forLevel(found, Level.ADMIN)["level"], "admin")
        self.assertEqual(forLevel(found, Level.OPERATE), {**found, "level": "operate"})
        shown = forLevel(found, Level.READ)
        self.assertEqual((shown["level"], shown["stuck"], shown["failures"]), ("read", None, None))


ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 1e300, 10**400, -(10**400), 2**63, 253402300800, "", "x", 5000 * "x", "\0"),
    *("\u202e", "\ud800", "2026-11-28T10:02:11Z", [], [1], ["a", 1e9], [["a"]], {}, {"a": 1}, {"user": {}}),
]
"""Values of JSON that fit nowhere."""


def mutated(value: Any, random_: random.Random) -> Any:
    """Return a value of JSON with another value in some place, or with a place less."""
    if isinstance(value, dict) and value and random_.random() < 0.9:
        name = random_.choice(list(value))
        if random_.random() < 0.1:
            return {each: kept for each, kept in value.items() if each != name}
        return {**value, name: mutated(value[name], random_)}
    if isinstance(value, list) and value and random_.random() < 0.8:
        place = random_.randrange(len(value))
        return [*value[:place], mutated(value[place], random_), *value[place + 1 :]]
    return random_.choice(ODD)


class OddTests(SynchronousTestCase):
    """A process that is taken over, or of another release, sends anything."""

    def test_mutated(self) -> None:
        """Whatever it sends: the overview is there, as JSON and as a document."""
        random_ = random.Random(18)
        metrics = {
            "mailgate_backend_connect_seconds": [["10.0.0.1:143", "ok"]],
            "mailgate_backend_login_seconds": [["10.0.0.1:143", "ok"]],
            "mailgate_auth_seconds": [["127.0.0.1:9000", "ok"]],
            "mailgate_login_seconds": [["imap"]],
        }
        totals: dict[str, Any] = {
            **{name: [[labels, histogram(name, 0.01, 3)] for labels in rows] for name, rows in metrics.items()},
            "mailgate_tls_handshakes": [[["imaps", "TLSv1.3", "full"], 4]],
            "mailgate_sessions": [[["imap", "relay"], 4]],
            "mailgate_logins": [[["imap", "plain", "accepted"], 4]],
        }
        story = {**A_SESSION, "kind": "login", "at": "2026-11-28T10:00:00Z", "reached": "auth", "trouble": "x"}
        for _ in range(40):
            clock = Clock()
            clock.advance(1_800_000_000)
            keeper, process = Keeper(clock, "g1"), Process()
            keeper.join(process)
            stuck = {**STUCK, "at": 5, "waiting": 7.5, "table": "stuck"}
            state = random_.choice(("up", "down", "resting", "drain"))
            rows = mutated([*page(state=state), stuck, {"table": "more", "more": 3}], random_)
            process.rows = rows if isinstance(rows, list) else [rows]
            keeper.reported(process, totals, [story])
            clock.advance(7)
            keeper.reported(process, mutated(totals, random_), [mutated(story, random_)])
            clock.advance(1)
            found = self.successResultOf(Overview(keeper).collect())
            json.dumps(found, allow_nan=False)
            json.dumps(keeper.plots.points("10m"), allow_nan=False)
            for render in (shell, tables):
                rendered = render(clock, found)
                clock.pump(10 * [0])
                self.assertIn(b"</html>", self.successResultOf(rendered))


class HandoverTests(SynchronousTestCase):
    """What a successor of the keeper shows."""

    def test_oddState(self) -> None:
        """Whatever a predecessor has written, the successor has an overview."""
        clock = Clock()
        clock.advance(1_800_000_000)
        before = Keeper(clock, "g1")
        before.happened("mailgate_reloads", ["refused"], ["line 3"])
        before.happened("mailgate_worker_restarts", ["exit"])
        before.incidents.since("worker restarts", 5)
        before.plots.spans["24h"].ring.put(30_000_000, {"logins.accepted": 1})
        head, _, rest = before.state().partition(b"\n")
        random_ = random.Random(18)
        for moment in (None, *ODD, 2**39):
            written = json.loads(head)
            if moment is None:
                written = mutated(written, random_)
            else:
                written.update(loaded=moment, began=moment)
                written["incidents"] = {"reload": [moment, False, [moment]], "since": {"reload 5": moment}}
                written["plots"]["24h"]["head"] = moment
            after = Keeper(clock, "g1")
            after.restore(json.dumps(written).encode("ascii") + b"\n" + rest)
            json.dumps(self.successResultOf(Overview(after).collect()), allow_nan=False)
            self.assertLess(after.plots.points("24h")[1], LATEST)

    def test_state(self) -> None:
        """The plots, the last reload and the refused logins are part of the state."""
        clock = Clock()
        clock.advance(1_800_000_000)
        before, after = Keeper(clock, "g1"), Keeper(clock, "g1")
        process = Process()
        before.join(process)
        for count in range(5):
            totals = {"mailgate_logins": [[["imap", "plain", "accepted"], 2 * count]]}
            before.reported(process, totals, [{"kind": "login", "at": f"2026-11-28T10:00:0{count}Z", "user": "joe"}])
            clock.advance(1)
        before.happened("mailgate_reloads", ["refused"], ["line 3"])
        self.assertEqual(before.plots.points("10m")[2]["logins.accepted"], [2, 2, 2, 2])
        after.restore(before.state())
        after.restore(before.state())
        self.assertEqual(after.plots.points("10m"), before.plots.points("10m"))
        self.assertEqual(after.incidents.reload, before.incidents.reload)
        self.assertEqual((after.stories.latest(), after.stories.refused), (before.stories.latest(), 0))
        self.assertEqual(before.reportAges(), {"a": (4711, 1.0)})
