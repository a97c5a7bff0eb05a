"""
Tests for L{mailgate.keeper.whereabouts}, L{mailgate.keeper.answers.sticky} and the places of L{mailgate.keeper.users}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.explainedplaces import addPlaces
from mailgate.keeper.filters import userMatcher
from mailgate.keeper.users import showUser
from mailgate.keeper.whereabouts import Pool, masksOf, relaysOf, stickyPools
from mailgate.session import Phase
from mailgate.test.support.processes import Processes
from mailgate.test.support.stickygroups import stickyGroups
from mailgate.test.support.stores import SwitchedStore


class WhereaboutsTests(SynchronousTestCase):
    """Two processes."""

    def setUp(self) -> None:
        self.processes = Processes("aaaaa", "bbbbb")
        self.keeper: Any = self.processes
        self.placing = stickyGroups(self.processes)

    def result(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def test_pools(self) -> None:
        """Sticky groups of all processes, by pools; a process that is taken over adds none that is not valid."""
        good = {"group": "g", "pool": "p", "ttl": 60, "backends": ["a:1"]}
        self.processes.lies = [7, {}, *({**good, name: None} for name in good), {**good, "ttl": 0}]
        imap, far = self.result(stickyPools(self.keeper))
        self.assertEqual(far, Pool("far", 3600, {"far": ["10.9.0.1:143"]}))
        self.assertEqual((imap.name, imap.title), ("imap", "imap, pop3"))
        self.assertEqual(imap.groups["pop3"], ["10.0.0.1:110", "10.0.0.2:110"])

    def test_draining(self) -> None:
        """A generation that drains does not count."""
        for gateways in self.processes.gateways.values():
            gateways[0].isDraining = True
        self.assertEqual(self.result(stickyPools(self.keeper)), [])

    def test_relays(self) -> None:
        """Sessions at backends and on the way there, under all spellings, with the gateways that are missing."""
        for user in (b"joe@x.org", b"Joe+a@x.org", b"joe@x.org*master"):
            self.processes.session(user=user)
        self.processes.session("bbbbb", b"joe@x.org", phase=Phase.BACKEND_LOGIN)
        for user in (b"joey@x.org", b"joe@y.org", b"joe+a@y.org", b"joe", b"j.joe@x.org"):
            self.processes.session(user=user)
        # Its logins are held.
        self.processes.session("bbbbb", b"joe@x.org", phase=Phase.AUTH, backend="")
        rows, missing = self.result(relaysOf(self.keeper, "JOE@x.org"))
        users = ["Joe+a@x.org", "joe@x.org", "joe@x.org", "joe@x.org*master"]
        self.assertEqual((sorted(row["user"] for row in rows), missing), (users, []))
        self.processes.late.add("bbbbb")
        rows, missing = self.result(relaysOf(self.keeper, "joe@x.org"))
        self.assertEqual((len(rows), missing), (3, ["gateway g1: bbbbb has not answered"]))

    def test_masks(self) -> None:
        """Wildcards in a name mean themselves."""
        for user, names, others in (
            ("j?e@x.org", ("j?e@x.org", "j?e+b@x.org", "j?e@x.org*m"), ("joe@x.org", "j?e@y.org", "joe+b@x.org")),
            ("joe", ("joe", "joe+b", "joe*m"), ("joel", "joe@x.org")),
        ):
            matching = [userMatcher(mask) for mask in masksOf(user)]
            for name in (*names, *others):
                self.assertEqual(any(matches(name.encode()) for matches in matching), name in names, name)

    def test_user(self) -> None:
        """What is known of a user has his places, and the numbers of his sessions at each backend."""
        for backend in ("10.0.0.1:143", "10.0.0.2:143", "10.0.0.1:143"):
            self.processes.session(user=b"joe", backend=backend)
        self.result(self.placing.move("imap", b"joe", "10.0.0.2:143", 60))
        where = self.successResultOf(showUser(self.keeper, "joe"))["where"]
        self.assertEqual(
            where,
            {
                "places": [
                    {"groups": ["imap", "pop3"], "backend": "10.0.0.2:143"},
                    {"groups": ["far"], "backend": None},
                ],
                "sessions": [
                    {"gateway": "g1", "backend": "10.0.0.1:143", "sessions": 2},
                    {"gateway": "g1", "backend": "10.0.0.2:143", "sessions": 1},
                ],
            },
        )

    def explained(self, group: str = "imap", method: str = "sticky, hash of the user", **states: str) -> dict[str, Any]:
        """What the explanation of a login to a group becomes."""
        addresses = ["10.0.0.1:143", "10.0.0.2:143"]
        servers = [{"address": each, "state": states.get(each[:8].replace(".", "_"), "up")} for each in addresses]
        goes = {"group": group, "method": method, "servers": servers, "order": addresses, "why": "the hash"}
        self.result(
            addPlaces(self.keeper, {"user": "Joe", "would": [{"goes": [{"group": None, "method": None}, goes]}]})
        )
        return goes

    def test_explained(self) -> None:
        """A login would go to the user's place first; if that cannot be used, the explanation says so."""
        self.assertEqual(self.explained()["why"], "the hash")
        self.result(self.placing.move("imap", b"joe", "10.0.0.2:110", 60))
        goes = self.explained()
        self.assertEqual((goes["first"], goes["order"]), (["10.0.0.2:143"], ["10.0.0.2:143", "10.0.0.1:143"]))
        self.assertEqual(goes["why"], "the place of the user")
        self.assertEqual(self.explained(method="least_conn")["why"], "the hash")
        self.assertEqual(self.explained("far")["why"], "the hash")
        goes = self.explained(**{"10_0_0_2": "resting"})
        self.assertEqual(goes["why"], "the place of the user, 10.0.0.2:110, cannot be used; the hash")
        self.assertEqual(goes["order"], ["10.0.0.1:143", "10.0.0.2:143"])
        self.processes.placing = None
        self.assertEqual(self.explained()["why"], "the hash; this gateway keeps no places")

    def test_down(self) -> None:
        """Without the store, or without anything that knows places, they are not known."""
        store = SwitchedStore(self.processes.clock)
        self.placing._store = store
        store.switch(False)
        self.assertIsNone(self.successResultOf(showUser(self.keeper, "joe"))["where"]["places"])
        self.processes.placing = None
        self.assertIsNone(self.successResultOf(showUser(self.keeper, "joe"))["where"]["places"])
