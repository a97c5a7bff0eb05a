"""Tests for L{mailgate.keeper.explain} and L{mailgate.keeper.answers.explain}."""

from __future__ import annotations

import gc
import os
import random
import shutil
from collections.abc import Callable
from types import FunctionType, MethodType, ModuleType
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.keeper.answers.explain import explain as answer
from mailgate.keeper.explain import explain
from mailgate.keeper.keeper import Collected
from mailgate.keeper.view import ANSWERERS, ProcessView
from mailgate.login import Backend
from mailgate.service import Gateway
from mailgate.test.integration.daemon import newFolder
from mailgate.upstream.peer import Peer

HEAD = """
[mailgate]
use = reactor
[upstream store]
server =
    10.0.0.1:143
    10.0.0.2:143 weight=2
    10.0.0.3:143 backup
"""
IMAP = "[server imap]\nprotocol = imap\nlisten = 127.0.0.1:11143\n"
POP3 = "[server pop]\nprotocol = pop3\nlisten = 127.0.0.1:11110\n"


def state(*roots: Any) -> dict[int, Any]:
    """
    All that can be reached from C{roots}: each object with what it holds. Objects among that count by their identity,
    numbers and texts by their value. Classes, modules and functions are not followed.
    """
    found: dict[int, Any] = {}
    waiting = list(roots)
    while waiting:
        each = waiting.pop()
        if id(each) in found or isinstance(each, type | ModuleType | FunctionType | MethodType):
            continue
        parts = gc.get_referents(each)
        values = [part if isinstance(part, int | float | str | bytes | None) else id(part) for part in parts]
        # The object itself, so that no other one takes its identity.
        found[id(each)] = (each, values)
        waiting += [part for part in parts if gc.is_tracked(part)]
    return found


def changed(before: dict[int, Any], after: dict[int, Any]) -> list[Any]:
    """The objects that hold something else than before."""
    return [before[key][0] for key in before.keys() & after.keys() if before[key][1] != after[key][1]]


class ExplainCase(SynchronousTestCase):
    """Gateways, and what a process with them answers."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.clock.advance(1000)
        self.gateways: list[Gateway] = []

    def make(self, text: str) -> Gateway:
        gateway = Gateway(parse(HEAD + text), self.clock)
        self.addCleanup(gateway.stopService)
        self.gateways.insert(0, gateway)
        return gateway

    def rows(self, user: str = "joe@example.org", address: str | None = None, protocol: str | None = None) -> list[Any]:
        view = ProcessView("5g0qa", None, lambda: self.gateways)  # type: ignore[arg-type]
        return list(answer(view, {"user": user, "address": address, "protocol": protocol}))

    def peers(self) -> dict[str, Peer]:
        return {str(peer.backend): peer for _, peer in self.gateways[0].upstreams.everyPeer()}


class AnswerTests(ExplainCase):
    """What one process answers."""

    def test_registered(self) -> None:
        """The keeper can ask it."""
        self.assertIs(ANSWERERS["explain"], answer)

    def test_servers(self) -> None:
        """Each server of the protocol has a row, also one with several addresses."""
        self.make(f"{IMAP}    127.0.0.1:11144\nproxy_pass = store\n{POP3}proxy_pass = 10.0.0.9:110\n")
        self.assertEqual([row["server"] for row in self.rows()], ["imap", "pop"])
        (row,) = self.rows(protocol="pop3")
        self.assertEqual((row["server"], row["protocol"], row["by"]), ("pop", "pop3", "proxy_pass"))
        self.assertEqual(row["asks"], [{"kind": "proxy_pass"}])
        self.assertEqual(self.rows(protocol="smtp"), [])

    def test_services(self) -> None:
        """The services in order, without what may be a secret in their URLs; which rest; and the cache."""
        service = (
            "auth_http =\n    http://a.example:9000/auth?key=secret\n    https://b.example/\nauth_cache_ttl = 1m\n"
        )
        self.make(f"{IMAP}{service}")
        (row,) = self.rows()
        self.assertNotIn("secret", repr(row))
        ((ask),) = row["asks"]
        self.assertEqual(
            [each["url"] for each in ask["services"]], ["http://a.example:9000/auth", "https://b.example:443/"]
        )
        self.assertEqual([each["rests"] for each in ask["services"]], [0.0, 0.0])
        self.assertEqual(ask["cache"]["ttl"], 60.0)
        self.assertEqual((row["goes"], row["named"]), ([], True))
        authenticator: Any = self.gateways[0].factories[0].authenticator
        authenticator.inner._services[0].restsUntil = self.clock.seconds() + 7
        (row,) = self.rows()
        self.assertEqual([each["rests"] for each in row["asks"][0]["services"]], [7.0, 0.0])

    def test_lone(self) -> None:
        """A service that is alone never rests, and without a cache there is none."""
        self.make(f"{IMAP}auth_http = http://a.example:9000/auth\nproxy_pass = store\n")
        authenticator: Any = self.gateways[0].factories[0].authenticator
        authenticator._services[0].restsUntil = self.clock.seconds() + 7
        (row,) = self.rows()
        self.assertEqual(row["asks"][0]["services"][0]["rests"], 0.0)
        self.assertIsNone(row["asks"][0]["cache"])
        self.assertEqual(row["goes"][0]["group"], "store")

    def test_file(self) -> None:
        """The account decides about the backend; each objection is named; a changed file is said and not read."""
        folder = newFolder("explain")
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "accounts")
        lines = (
            "joe:{PLAIN}x::::::host=10.0.0.8",
            "eve:{PLAIN}x::::::nologin",
            "net:{PLAIN}x::::::allow_nets=10.0.0.0/8",
        )

        def write(*more: str) -> None:
            with open(path, "w", encoding="ascii") as file:
                file.write("\n".join((*lines, *more, "")))

        write()
        self.make(f"{IMAP}auth_file = {path}\nproxy_pass = store\n")
        (row,) = self.rows("joe")
        self.assertEqual(row["asks"], [{"kind": "auth_file", "file": path, "objection": "", "changed": False}])
        self.assertEqual(row["goes"][0]["order"], ["10.0.0.8:143"])
        for user, address, expected in (
            ("eve", None, "nologin"),
            ("ann", None, "unknown user"),
            ("net", "192.0.2.1", "address outside allow_nets"),
            ("net", "10.1.2.3", ""),
            ("net", None, ""),
        ):
            (row,) = self.rows(user, address)
            self.assertEqual(row["asks"][0]["objection"], expected, user)
        self.assertEqual(row["goes"][0]["group"], "store")
        write("ann:{PLAIN}x")
        (row,) = self.rows("ann")
        self.assertEqual((row["asks"][0]["objection"], row["asks"][0]["changed"]), ("unknown user", True))

    def test_turns(self) -> None:
        """The server whose turn it is is first, and the backup is last."""
        gateway = self.make(f"{IMAP}proxy_pass = store\n")
        group = gateway.upstreams.groups[0]
        for _ in range(5):
            (row,) = self.rows()
            (goes,) = row["goes"]
            self.assertEqual(sorted(goes["order"]), ["10.0.0.1:143", "10.0.0.2:143", "10.0.0.3:143"])
            self.assertEqual(goes["order"][2], "10.0.0.3:143")
            self.assertEqual((goes["group"], goes["method"], goes["why"]), ("store", "round robin", "round robin"))
            # That was true.
            peer = group.attempts(None).next()  # type: ignore[arg-type]
            self.assertEqual(str(peer and peer.backend), goes["order"][0])

    def test_states(self) -> None:
        """The state of each server, with its reason; those that cannot be used are not in the order."""
        self.make(f"{IMAP}proxy_pass = store\n")
        peers = self.peers()
        peers["10.0.0.1:143"].order, peers["10.0.0.1:143"].reason = "drain", "mailgate backend drain"
        peers["10.0.0.2:143"].failed(int(self.clock.seconds()), "refused the connection")
        peers["10.0.0.3:143"].connections = 4
        (goes,) = self.rows()[0]["goes"]
        self.assertEqual(goes["order"], ["10.0.0.3:143"])
        self.assertEqual(goes["why"], "no other server can be used; it is a backup")
        self.assertEqual(
            [(row["state"], row["reason"], row["sessions"], row["backup"]) for row in goes["servers"]],
            [
                ("drain", "mailgate backend drain", 0, False),
                ("resting", "refused the connection", 0, False),
                ("up", "", 4, True),
            ],
        )
        peers["10.0.0.2:143"].order = "down"
        peers["10.0.0.3:143"].isFailing = True
        (goes,) = self.rows()[0]["goes"]
        self.assertEqual(
            (goes["order"], goes["why"]), ([], "no server can be used: all are down, full or rest after failures")
        )

    def test_rests(self) -> None:
        """Where all rest, the one whose rest ends first is tried."""
        self.make(f"{IMAP}proxy_pass = store\n")
        for number, peer in enumerate(self.peers().values()):
            peer.failed(int(self.clock.seconds()) - 2 + number, "x")
        (goes,) = self.rows()[0]["goes"]
        self.assertEqual(goes["order"], ["10.0.0.1:143"])
        self.assertEqual(goes["why"], "all others are down or rest after failures; its rest ends first")

    def test_methods(self) -> None:
        """A method that depends on the address needs it; chance cannot be foreseen; a hash of the user can."""
        for method, address, hasOrder in (
            ("ip_hash = on", None, False),
            ("ip_hash = on", "192.0.2.7", True),
            ("hash = $remote_addr", None, False),
            ("hash = $remote_addr", "192.0.2.7", True),
            ("hash = $user consistent", None, True),
            ("random = on", "192.0.2.7", False),
            ("random = two", "192.0.2.7", False),
            ("least_conn = on", None, True),
        ):
            group = f"[upstream other]\nserver =\n    10.0.1.1:143\n    10.0.1.2:143\n{method}\n"
            self.make(f"{group}{IMAP}proxy_pass = other\n")
            (goes,) = self.rows(address=address)[0]["goes"]
            self.assertEqual(bool(goes["order"]), hasOrder, method)
            self.assertTrue(goes["why"])

    def test_rules(self) -> None:
        """A text with variables leads to the group; without an address that may be a guess."""
        geo = "[geo place]\nsource = $remote_addr\ndefault = store\n10.0.0.0/8 = 10.9.9.9:143\n"
        self.make(f"{geo}{IMAP}proxy_pass = $place\n")
        for address, expected, isGuessed in (
            (None, "store", True),
            ("192.0.2.7", "store", False),
            ("10.1.1.1", None, False),
        ):
            (goes,) = self.rows(address=address)[0]["goes"]
            self.assertEqual((goes["group"], goes["guessed"]), (expected, isGuessed))
        self.assertEqual(goes["order"], ["10.9.9.9:143"])

    def test_draining(self) -> None:
        """A process that accepts no clients has no row; neither has a process without a gateway."""
        self.make(f"{IMAP}proxy_pass = store\n").drain(False, None)
        self.assertEqual(self.rows(), [])
        self.gateways.clear()
        self.assertEqual(self.rows(), [])

    def test_arguments(self) -> None:
        """Arguments of another kind are refused before anything is looked at."""
        for arguments in (
            {},
            {"user": ""},
            {"user": 1},
            {"user": "joe", "address": 1},
            {"user": "joe", "protocol": []},
        ):
            self.assertRaises(ValueError, answer, None, arguments)


class SideEffectTests(ExplainCase):
    """Nothing changes."""

    def test_nothing(self) -> None:
        """
        Every attribute of every object of the gateway is the same before and after, for each method and authenticator;
        no connection is made, no timer is set, and the random numbers stay.
        """
        folder = newFolder("explain")
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "accounts")
        with open(path, "w", encoding="ascii") as file:
            file.write("joe:{PLAIN}x\n")
        groups = "".join(
            f"[upstream {name}]\nserver =\n    10.0.1.1:143\n    10.0.1.2:143 max_conns=3\n{method}\n"
            for name, method in (
                ("a", "least_conn = on"),
                ("b", "ip_hash = on"),
                ("c", "hash = $user consistent"),
                ("d", "random = two"),
            )
        )
        services = "auth_http =\n    http://a.example/\n    http://b.example/"
        servers = "".join(
            f"[server {number}]\nprotocol = imap\nlisten = 127.0.0.1:{11150 + number}\n{how}\n"
            for number, how in enumerate(
                (
                    "proxy_pass = store",
                    "proxy_pass = a",
                    "proxy_pass = b",
                    "proxy_pass = c",
                    "proxy_pass = d",
                    "proxy_pass = 10.0.0.7:143",
                    f"auth_file = {path}\nproxy_pass = store",
                    f"{services}\nauth_cache_ttl = 1m\nproxy_pass = store",
                )
            )
        )
        gateway = self.make(groups + servers)
        self.peers()["10.0.0.2:143"].failed(int(self.clock.seconds()), "x")
        # Lazily made objects, such as interned texts and caches of zope.interface, are there after a first answer.
        first = self.rows("joe", "192.0.2.7"), self.rows("jim", None)
        randomness = random.getstate()
        before, timers, connections = state(gateway), list(self.clock.calls), len(self.clock.tcpClients)
        for _ in range(3):
            self.assertEqual((self.rows("joe", "192.0.2.7"), self.rows("jim", None)), first)
        after = state(gateway)
        seen = [*self.peers().values(), *(factory.authenticator for factory in gateway.factories)]
        self.assertLessEqual({id(each) for each in seen}, before.keys())
        self.assertEqual([repr(each)[:300] for each in changed(before, after)], [])
        self.assertEqual(random.getstate(), randomness)
        self.assertEqual((list(self.clock.calls), len(self.clock.tcpClients)), (timers, connections))
        self.assertNotIn(Backend("10.0.0.7", 143), gateway.upstreams._lone)

    def test_check(self) -> None:
        """The comparison finds a single turn of round robin."""
        gateway = self.make(f"{IMAP}proxy_pass = store\n")
        before = state(gateway)
        gateway.upstreams.groups[0].attempts(None).next()  # type: ignore[arg-type]
        after = state(gateway)
        self.assertIn(Peer, [type(each) for each in changed(before, after)])


class FakeKeeper:
    """Answers with the rows of the test, and has its stories."""

    limits: Any = None
    others: Any = None
    registry: Any = None

    def __init__(self, *rows: Any, missing: tuple[str, ...] = (), stories: tuple[Any, ...] = ()) -> None:
        self.asked: list[Any] = []
        self._found = Collected(rows, missing)
        self._stories = stories

    def ask(self, word: str, arguments: Any, within: float = 2.0) -> Deferred[Collected]:
        self.asked.append((word, dict(arguments)))
        return succeed(self._found)

    def recent(self, user: str | None = None) -> tuple[Any, ...]:
        return self._stories


class KeeperTests(ExplainCase):
    """One answer of those of all processes."""

    def explained(self, *rows: Any, **more: Any) -> dict[str, Any]:
        keeper: Any = FakeKeeper(*rows, **more)
        found = self.successResultOf(explain(keeper, "joe", None, "imap"))
        self.assertEqual(keeper.asked, [("explain", {"user": "joe", "address": None, "protocol": "imap"})])
        return found

    def both(self, change: Callable[[], object]) -> dict[str, Any]:
        """The rows before and after a change, as two processes answer."""
        first = self.rows()
        change()
        return self.explained(*first, *self.rows())

    def test_sum(self) -> None:
        """Sessions are added up, and the worst state counts."""
        self.make(f"{IMAP}proxy_pass = store\n")
        peer = self.peers()["10.0.0.1:143"]
        peer.connections = 3

        def change() -> None:
            peer.failed(int(self.clock.seconds()), "refused the connection")
            peer.connections = 4

        found = self.both(change)
        (server,) = found["would"]
        self.assertEqual(server["processes"], 2)
        row = server["goes"][0]["servers"][0]
        self.assertEqual((row["address"], row["sessions"], row["state"]), ("10.0.0.1:143", 7, "resting"))
        self.assertEqual(row["reason"], "refused the connection")

    def test_turns(self) -> None:
        """Where the turns of the processes differ, all first servers are named, and there is no order."""
        gateway = self.make(f"{IMAP}proxy_pass = store\n")
        found = self.both(lambda: gateway.upstreams.groups[0].attempts(None).next())  # type: ignore[arg-type]
        (goes,) = found["would"][0]["goes"]
        self.assertEqual((sorted(goes["first"]), goes["order"]), (["10.0.0.1:143", "10.0.0.2:143"], []))

    def test_services(self) -> None:
        """A service may rest in one process alone."""
        self.make(f"{IMAP}auth_http =\n    http://a.example/\n    http://b.example/\n")
        authenticator: Any = self.gateways[0].factories[0].authenticator

        def change() -> None:
            authenticator._services[0].restsUntil = self.clock.seconds() + 7

        (ask,) = self.both(change)["would"][0]["asks"]
        self.assertEqual([(each["resting"], each["rests"]) for each in ask["services"]], [(1, 7.0), (0, 0.0)])

    def test_otherConfiguration(self) -> None:
        """During a reload a process may have another configuration: its answer is left out."""
        self.make(f"{IMAP}proxy_pass = store\n")
        found = self.both(lambda: self.make(f"{IMAP}proxy_pass = 10.0.0.9:143\n"))
        (server,) = found["would"]
        self.assertEqual([goes["group"] for goes in server["goes"]], ["store"])

    def test_notValid(self) -> None:
        """Rows that are not valid do not keep operators from the others."""
        self.make(f"{IMAP}proxy_pass = store\n")
        (good,) = self.rows()
        (place,) = good["goes"]
        hostile = {
            **good,
            "server": "z",
            "goes": [{**place, "servers": [{**place["servers"][0], "weight": "\x1b[2J"}]}],
        }
        bad: list[Any] = [
            hostile,
            None,
            1,
            {},
            {"server": 1},
            {"server": "x"},
            {"server": "y", "asks": 1, "goes": [[]]},
        ]
        found = self.explained(*self.rows(), *bad, missing=("process 4711 has not answered",))
        self.assertEqual([server["server"] for server in found["would"]], ["imap"])
        expected = [
            "process 4711 has not answered",
            *(f"an answer about server {name} was not valid" for name in "zxy"),
        ]
        self.assertEqual(found["missing"], expected)

    def test_unknown(self) -> None:
        """An address or a protocol that no login has is an error: nothing is explained for it."""
        keeper: Any = FakeKeeper()
        for address, protocol, expected in (
            ("192.0.2.0/24", None, "address must be the address of a client"),
            ("nope", "imap", "address must be the address of a client"),
            ("", None, "address must be the address of a client"),
            (None, "impa", "did you mean imap?"),
            ("192.0.2.7", "", "protocol must be a text that is not empty"),
        ):
            error = self.assertRaises(ValueError, explain, keeper, "joe", address, protocol)
            self.assertIn(expected, str(error))
        self.assertEqual(keeper.asked, [])

    def test_written(self) -> None:
        """Addresses of both families and of unix sockets are valid, and protocols in upper and lower case."""
        for address in ("192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "fe80::7%eth0", "unix:"):
            keeper: Any = FakeKeeper()
            found = self.successResultOf(explain(keeper, "joe", address, "IMAP"))
            self.assertEqual((found["address"], found["protocol"]), (address, "imap"))
            self.assertEqual(keeper.asked, [("explain", {"user": "joe", "address": address, "protocol": "imap"})])

    def test_recent(self) -> None:
        """The latest ten stories of the protocol."""
        stories = [{"protocol": "pop3"}, *({"protocol": "imap", "id": number} for number in range(12))]
        found = self.explained(stories=tuple(stories))
        self.assertEqual([story["id"] for story in found["recent"]], list(range(10)))
        self.assertEqual((found["user"], found["address"], found["protocol"]), ("joe", None, "imap"))
