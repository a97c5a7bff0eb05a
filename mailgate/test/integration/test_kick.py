"""
Lists and kicks with a gateway in the process of the tests, over both kinds of transports.
"""

from __future__ import annotations

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import cooperate, deferLater

from mailgate.keeper.answers import kick as answers
from mailgate.keeper.answers import sticky
from mailgate.keeper.filters import Filter
from mailgate.keeper.keeper import Collected
from mailgate.keeper.kick import kick
from mailgate.keeper.sessions import countSessions, listSessions
from mailgate.keeper.users import showUser
from mailgate.keeper.view import ProcessView
from mailgate.service import Gateway
from mailgate.test.integration.daemon import slowness
from mailgate.test.support.gatewaycase import SANDBOX, TEXT, GatewayCase

assert answers and sticky

CACHED = TEXT.replace("auth_http =", "auth_cache_ttl = 5m\nauth_http =").replace(
    "[mailgate]", "[mailgate]\ngateway_name = g1"
)


class OneProcess:
    """The keeper of one process, which asks it directly."""

    name = "g1"
    limits = placing = others = registry = None

    def __init__(self, *gateways):
        state = gateways[0].state
        self.view = ProcessView(state.ids.member, state.watcher, lambda: gateways)

    def ask(self, word, arguments, within=2.0):
        rows = []
        done = cooperate(map(rows.append, self.view.answer(word, arguments))).whenDone()
        return done.addCallback(lambda _: Collected([row for row in rows if row is not None]))

    def recent(self, user=None):
        return []


class KickTests(GatewayCase):
    """Over mailgate's own transports."""

    def setUp(self):
        super().setUp()
        self.make(CACHED + SANDBOX)
        self.start()
        self.keeper = OneProcess(self.gateway)

    async def until(self, condition):
        """Wait for C{condition}; the time limit of the test is the deadline."""
        while not condition():
            await deferLater(self.reactor, 0.01)

    async def page(self, **filter):
        return (await listSessions(self.keeper, Filter.fromJSON(filter)))["sessions"]

    def test_list(self):
        """Sessions in all phases are listed, with live counters."""
        return ensureDeferred(self._list())

    async def _list(self):
        relayed = await self.loggedIn()
        await (await self.client("pop3")).hears(b"+OK")
        await relayed.asks(b"b NOOP", b"\r\nb OK")
        first, second = await self.page()
        self.assertRegex(first["id"], rf"^g1\.{self.keeper.view.member}\.[0-9a-v]+$")
        self.assertEqual((first["protocol"], first["server"], first["phase"]), ("imap", "imap", "relay"))
        self.assertEqual((second["protocol"], second["server"], second["phase"]), ("pop3", "pop3", "command"))
        self.assertEqual(first["received"], len(b"b NOOP\r\n"))
        self.assertGreater(first["sent"], 0)
        self.assertLess(first["idle"], 30)
        self.assertEqual((first["method"], first["gateway"]), ("plain", "g1"))
        self.assertEqual((second["user"], second["backend"], second["idle"]), ("", None, None))
        self.assertEqual(len(await self.page(address="127.0.0.0/8")), 2)
        self.assertEqual(len(await self.page(protocol="pop3")), 1)
        self.assertEqual(len(await self.page(user="ALI*")), 1)
        self.assertEqual((await self.page(id=second["id"]))[0]["id"], second["id"])
        counted = await countSessions(self.keeper, Filter(), "backend")
        self.assertCountEqual([each["backend"] for each in counted["counts"]], [first["backend"], None])
        shown = await showUser(self.keeper, first["user"])
        self.assertEqual([row["id"] for row in shown["sessions"]], [first["id"]])
        self.assertEqual(shown["backends"], [first["backend"]])

    def test_kick(self):
        """A kick ends the user's sessions, forgets the cached answer, and the user can log in again."""
        return ensureDeferred(self._kick())

    async def _kick(self):
        first, second = await self.loggedIn(), await self.loggedIn()
        other = await self.client("pop3")
        await other.hears(b"+OK")
        heard = [len(each.heard) for each in (first, second)]
        (user,) = {row["user"] for row in await self.page(phase="relay")}
        began = self.reactor.seconds()
        answer = await kick(self.keeper, Filter.fromJSON({"user": user}), "password changed", "uid 0")
        self.assertEqual((answer["ended"], answer["forgotten"]), (2, 1))
        await first.lost
        await second.lost
        self.assertLess(self.reactor.seconds() - began, slowness())
        # Not a byte was written into the relayed streams.
        self.assertEqual([len(each.heard) for each in (first, second)], heard)
        await self.until(lambda: len(self.gateway.connections) == 1)
        self.assertEqual((await kick(self.keeper, Filter.fromJSON({"user": user})))["forgotten"], 0)
        await self.loggedIn()
        answer = await kick(self.keeper, Filter.fromJSON({"protocol": "imap"}))
        self.assertEqual((answer["ended"], answer["forgotten"]), (1, 1))
        await other.asks(b"CAPA", b"\r\n.\r\n")

    def test_kickBefore(self):
        """Before the login a client hears the goodbye."""
        return ensureDeferred(self._kickBefore())

    async def _kickBefore(self):
        client = await self.client()
        await client.hears(b"* OK IMAP4 ready\r\n")
        (row,) = await self.page()
        self.assertEqual((await kick(self.keeper, Filter.fromJSON({"id": row["id"]})))["ended"], 1)
        await client.lost
        self.assertIn(b"* BYE Gateway is shutting down", client.heard)
        await self.until(lambda: not self.gateway.connections)
        self.assertEqual(await self.page(), [])

    def test_draining(self):
        """Sessions of an earlier configuration are listed and kicked like others."""
        return ensureDeferred(self._draining())

    async def _draining(self):
        old = await self.loggedIn()
        before = self.gateway
        await before.stopListening()
        drained = before.drain(farewell=False, patience=None)
        after = Gateway(before.settings, self.reactor, state=before.state)
        after.privilegedStartService()
        after.startService()
        self.addCleanup(after.stopService)
        self.keeper = OneProcess(after, before)
        new = await self.loggedIn()
        rows = await self.page()
        self.assertEqual(len({row["id"] for row in rows}), 2)
        self.assertEqual({row["worker"] for row in rows}, {before.state.ids.member})
        answer = await kick(self.keeper, Filter.fromJSON({"user": "*", "protocol": "imap"}))
        self.assertEqual(answer["ended"], 2)
        await old.lost
        await new.lost
        await drained

    def test_stopped(self):
        """A gateway that stops during a kick leaves nothing behind."""
        return ensureDeferred(self._stopped())

    async def _stopped(self):
        for _ in range(3):
            await self.loggedIn()
        answer = await kick(self.keeper, Filter.fromJSON({"protocol": "imap"}), over=600)
        self.assertEqual(answer["ended"], 3)
        await self.gateway.stopService()


class KickOverReactorTests(KickTests):
    """Over Twisted's transports."""

    use = "reactor"
