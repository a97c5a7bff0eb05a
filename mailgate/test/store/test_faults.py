"""
Tests of L{mailgate.store.redis.connection} with real servers that fail in different ways. In all of them no call takes
longer than C{store_timeout}, calls fail at once while the store is left alone, and the store is used again afterwards.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from mailgate.store.redis import connection
from mailgate.store.settings import StoreAccess
from mailgate.test.integration.daemon import freePort, newFolder
from mailgate.test.integration.redisserver import RedisServer
from mailgate.test.support.storecase import ADD, StoreCase
from mailgate.test.support.tlspair import makePair
from mailgate.tls.backendsettings import loadTrust

SECRET = b"0123456789abcdef"


class FaultTests(StoreCase):
    """Servers that stop working, over a unix socket."""

    async def test_works(self) -> None:
        """Values are bytes as they are, calls of one turn are answered in their order, and messages are heard."""
        server = self.server()
        store = await self.connected(f"redis+unix:{server.path}?db=3", timeout=1.0)
        await store.call("SET", "mg:1:a", b"\xff\r\n1.50", "PX", 60000)
        calls = [store.call("GET", "mg:1:a"), store.script(ADD, [b"mg:1:n"], [2]), store.call("GET", "mg:1:b")]
        self.assertEqual(await gatherResults(calls), [b"\xff\r\n1.50", 2, None])
        self.assertEqual(await store.call("PUBLISH", "events", b"\0hello"), 1)
        await self.until(lambda: self.messages, "the message is heard")
        self.assertEqual(self.messages, [("events", b"\0hello")])
        self.assertIn(b"db3:keys=", server.ask("INFO", "keyspace"))
        self.assertEqual(self.changes, [True])

    async def test_scriptsForgotten(self) -> None:
        """A script that the server has forgotten is sent again, by several calls at once, too."""
        server = self.server()
        store = await self.connected(f"redis+unix:{server.path}", timeout=1.0)
        server.ask("SCRIPT", "FLUSH")
        answers = await gatherResults([store.script(ADD, [b"mg:1:n"], [1]) for _ in range(3)])
        self.assertEqual(answers, [1, 2, 3])
        self.assertEqual(await store.script(ADD, [b"mg:1:n"], [1]), 4)
        self.assertTrue(store.isUp)

    async def test_wrongCall(self) -> None:
        """An error reply is a failure of its call. The connection goes on."""
        server = self.server()
        store = await self.connected(f"redis+unix:{server.path}", timeout=1.0)
        await store.call("SET", "mg:1:a", "x", "PX", 60000)
        self.assertIn('the store has answered "', await self.refused(store.call("INCR", "mg:1:a")))
        self.assertEqual(await store.call("GET", "mg:1:a"), b"x")
        self.assertTrue(store.isUp)

    async def test_stopped(self) -> None:
        """The server ends, with calls under way, and starts again, empty."""
        server = self.server()
        store = await self.connected(f"redis+unix:{server.path}")
        await store.script(ADD, [b"mg:1:n"], [7])
        server.hang()
        waiting = store.call("GET", "mg:1:n")
        server.end()
        await self.refused(waiting)
        await self.until(lambda: not store.isUp, "the store is left alone")
        self.assertRegex(store.reason, "cannot be reached: .*|refused the connection|(dropped|closed) the connection")
        self.assertIn(store.reason, self.refusedAtOnce(store.script(ADD, [b"mg:1:n"], [1])))
        server.start()
        await self.untilBack(store)
        self.assertEqual(await store.call("GET", "mg:1:n"), b"1")
        await self.until(lambda: len(self.resumptions) == 2, "messages are heard again")
        self.assertEqual(self.changes, [True, False, True])

    async def test_neverThere(self) -> None:
        """A gateway that starts without its store says so once, and uses it as soon as it is there."""
        server = self.server()
        server.end()
        log = self.logged()
        store = self.connection(f"redis+unix:{server.path}")
        self.refusedAtOnce(store.call("PING"))
        await self.until(lambda: self.changes, "the attempt has failed")
        await deferLater(self.reactor, 0.3)
        self.assertEqual((self.changes, len(log)), ([False], 1))
        self.assertIn(f"the store at unix:{server.path} ", log[0])
        server.start()
        await self.untilBack(store)
        self.assertEqual((self.changes, len(log)), ([False, True], 2))

    async def test_reached(self) -> None:
        """A gateway that reaches its store at the start says so: the log shows which store it uses."""
        server = self.server()
        log = self.logged()
        store = await self.connected(f"redis+unix:{server.path}")
        self.assertEqual(log, [f"the store at unix:{server.path} works"])
        self.assertTrue(store.isUp)

    async def test_hung(self) -> None:
        """The server takes calls and answers none. Those of the time after it have their own answers."""
        server = self.server()
        store = await self.connected(f"redis+unix:{server.path}")
        server.hang()
        calls = [store.call("ECHO", str(number)) for number in range(50)]
        for call in calls:
            self.assertIn("has not answered within 250 ms", await self.refused(call))
        self.assertFalse(store.isUp)
        self.refusedAtOnce(store.call("ECHO", "x"))
        server.goOn()
        await self.untilBack(store)
        answers = await gatherResults([store.call("ECHO", str(number)) for number in range(50)])
        self.assertEqual(answers, [b"%d" % number for number in range(50)])

    async def test_late(self) -> None:
        """A reply that comes too late is no reply to another call."""
        server = self.server()
        store = await self.connected(f"redis+unix:{server.path}", timeout=0.4)
        server.hang()
        await self.refused(store.call("ECHO", "late"))
        server.goOn()
        self.assertTrue(store.isUp)
        self.assertEqual(await store.call("ECHO", "own"), b"own")
        self.assertEqual(self.changes, [True])

    async def test_outOfMemory(self) -> None:
        """The server refuses to write, as C{maxmemory-policy} is C{noeviction}."""
        server = self.server("--maxmemory-policy", "noeviction")
        store = await self.connected(f"redis+unix:{server.path}")
        server.ask("CONFIG", "SET", "maxmemory", "1")
        await self.untilLeftAlone(store)
        self.assertEqual(store.reason, "is out of memory")
        # It answers, but is still of no use.
        await deferLater(self.reactor, 0.3)
        self.assertFalse(store.isUp)
        server.ask("CONFIG", "SET", "maxmemory", "0")
        await self.untilBack(store)

    async def test_readOnly(self) -> None:
        """The server becomes a replica."""
        server = self.server()
        store = await self.connected(f"redis+unix:{server.path}")
        server.ask("REPLICAOF", "127.0.0.1", freePort())
        await self.untilLeftAlone(store)
        self.assertEqual(store.reason, "is a replica, which cannot be written to")
        server.ask("REPLICAOF", "NO", "ONE")
        await self.untilBack(store)

    async def test_disconnected(self) -> None:
        """The server ends the connections and goes on: that is no reason to leave it alone."""
        server = self.server()
        store = await self.connected(f"redis+unix:{server.path}", timeout=1.0)
        server.ask("CLIENT", "KILL", "TYPE", "normal")
        server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await self.until(lambda: len(self.resumptions) == 2, "messages are heard again")
        await self.untilBack(store)
        self.assertEqual(self.changes, [True])

    async def test_stop(self) -> None:
        """What waits fails, nothing is reported, and nothing is left."""
        server = self.server()
        store = await self.connected(f"redis+unix:{server.path}")
        server.hang()
        waiting = store.call("PING")
        await store.stop()
        self.refusedAtOnce(waiting)
        self.refusedAtOnce(store.call("PING"))
        server.goOn()
        self.assertEqual((self.changes, store.isUp), ([True], False))

    def logged(self) -> list[str]:
        """The lines that connections log from now on."""
        lines: list[str] = []

        class Log:
            def warn(self, text: str, **facts: object) -> None:
                lines.append(text.format(**facts))

            info = warn

        self.patch(connection.RedisConnection, "_log", Log())
        return lines


class RightsTests(StoreCase):
    """Users and passwords."""

    async def test_password(self) -> None:
        """The right password opens the store. A wrong one and none are reasons, without the password in them."""
        server = self.server("--requirepass", "sesame")
        url = f"redis+unix:{server.path}"
        right = await self.connected(url, StoreAccess(SECRET, b"sesame"))
        self.assertEqual(await right.call("PING"), b"PONG")
        wrong = self.connection(url, StoreAccess(SECRET, b"sesam"))
        await self.until(lambda: self.changes, "the attempt has failed")
        self.assertEqual(wrong.reason, "refuses the user or the password of store_password_file")
        none = self.connection(url)
        await self.until(lambda: self.changes, "the attempt has failed")
        self.assertEqual(none.reason, "requires a password; store_password_file names the file for it")

    async def test_repeated(self) -> None:
        """A server without AUTH repeats what it gets. The reason, which is logged, does not have the password."""
        url = f"redis+unix:{self.server('--rename-command', 'AUTH', '').path}"
        store = self.connection(url, StoreAccess(SECRET, b"sesame"))
        await self.until(lambda: self.changes, "the attempt has failed")
        self.assertEqual(store.reason, "does not know the command AUTH")

    async def test_user(self) -> None:
        """A user of the ACL. If it may not write, that is a reason."""
        server = self.server()
        server.ask("ACL", "SETUSER", "g1", "on", ">sesame", "~mg:1:*", "&*", "+@all", "-@dangerous", "-@admin")
        server.ask("ACL", "SETUSER", "g2", "on", "nopass", "~mg:2:*", "+@all")
        store = await self.connected(f"redis://g1@127.0.0.1:{server.port}/0", StoreAccess(SECRET, b"sesame"))
        self.assertEqual(await store.script(ADD, [b"mg:1:n"], [1]), 1)
        other = self.connection(f"redis://g2@127.0.0.1:{server.port}/0")
        await self.until(lambda: self.changes, "the attempt has failed")
        self.assertIn("does not give its user the rights that the gateway needs", other.reason)


class TLSTests(StoreCase):
    """A server behind TLS."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = newFolder("storetls")

    def secure(self, *names: str) -> tuple[str, RedisServer]:
        """Start a server with a certificate for C{names}. Return the certificate, which is its own authority."""
        pair = makePair(self.folder, "store", *names)
        port = freePort()
        files = ("--tls-cert-file", pair.certificate, "--tls-key-file", pair.key, "--tls-ca-cert-file")
        server = self.server("--tls-port", str(port), *files, pair.certificate, "--tls-auth-clients", "no")
        self.url = f"rediss://localhost:{port}/0"
        return pair.certificate, server

    async def reasonFor(self, access: StoreAccess) -> str:
        """Connect, which must fail. Return why."""
        store = self.connection(self.url, access)
        await self.until(lambda: self.changes, "the attempt has failed")
        self.assertFalse(store.isUp)
        return store.reason

    async def test_trusted(self) -> None:
        """A certificate of a trusted authority, for the name of the server."""
        certificate, _ = self.secure("localhost", "127.0.0.1")
        store = await self.connected(self.url, StoreAccess(SECRET, trust=loadTrust(certificate)))
        self.assertEqual(await store.script(ADD, [b"mg:1:n"], [1]), 1)
        # The system's authorities do not know it.
        self.assertIn("cannot be reached by TLS: ", await self.reasonFor(StoreAccess(SECRET)))

    async def test_wrong(self) -> None:
        """A certificate for another name is refused, and no password is sent to its owner."""
        certificate, server = self.secure("store.example.com")
        server.ask("CONFIG", "SET", "requirepass", "sesame")
        access = StoreAccess(SECRET, b"wrong", loadTrust(certificate))
        self.assertIn("cannot be reached by TLS: ", await self.reasonFor(access))
        with closing(server.commands()) as commands:
            commands("AUTH", "sesame")
            self.assertNotIn(b"cmdstat_auth:calls=2", commands("INFO", "commandstats"))

    async def test_plain(self) -> None:
        """A server that does not speak TLS."""
        server = self.server()
        self.url = f"rediss://localhost:{server.port}/0"
        # It answers only if what it gets has the end of a line.
        reason = await self.reasonFor(StoreAccess(SECRET))
        self.assertRegex(reason, "cannot be reached by TLS: |has not answered within 1000 ms")


class LinkTests(StoreCase):
    """What lies between."""

    async def throughHole(self) -> tuple[Hole, connection.RedisConnection]:
        """Connect by way of a L{Hole}."""
        hole = Hole(self.reactor, self.server().port)
        port = self.reactor.listenTCP(0, hole, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return hole, await self.connected(f"redis://127.0.0.1:{port.getHost().port}/0")

    async def test_dropped(self) -> None:
        """From one moment on, the network drops everything, and later nothing any more."""
        hole, store = await self.throughHole()
        hole.drops = True
        await self.untilLeftAlone(store)
        self.assertEqual(store.reason, "has not answered within 250 ms")
        hole.drops = False
        await self.untilBack(store)
        await self.until(lambda: len(self.resumptions) == 2, "messages are heard again")
        self.assertEqual(self.changes, [True, False, True])

    async def test_messagesDropped(self) -> None:
        """A dead connection for messages is noticed although nobody calls."""
        hole, store = await self.throughHole()
        hole.drops = True
        await self.until(lambda: not store.isListening, "the connection for messages has ended")
        hole.drops = False
        await self.until(lambda: len(self.resumptions) == 2, "messages are heard again")
        self.assertEqual(self.changes, [True])


class Hole(Factory):
    """Forwards connections to a port of this host. While C{drops}, bytes vanish, and no connection ends."""

    noisy = False

    def __init__(self, reactor: Any, port: int) -> None:
        self.drops = False
        self.reactor = reactor
        self.port = port

    def buildProtocol(self, addr: Any) -> Protocol:
        near, far = End(self), End(self)
        near.other, far.other = far, near
        connecting = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.port).connect(Factory.forProtocol(lambda: far))
        connecting.addErrback(near.end)
        return near


class End(Protocol):
    """One of the two ends of a forwarded connection."""

    other: End

    def __init__(self, hole: Hole) -> None:
        self.hole = hole
        self.early = b""

    def end(self, _: object) -> None:
        """Close this end."""
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.early)

    def dataReceived(self, data: bytes) -> None:
        if self.hole.drops:
            return
        if self.other.transport is None:
            self.other.early += data
        else:
            self.other.transport.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.other.end(reason)


class SentinelTests(StoreCase):
    """A master with a replica, and a Sentinel."""

    async def test_failOver(self) -> None:
        """The store is the master that Sentinel names, also after another one has become it."""
        first = self.server()
        second = self.server("--replicaof", "127.0.0.1", str(first.port), "--repl-diskless-sync-delay", "0")
        await self.until(lambda: b"master_link_status:up" in second.ask("INFO", "replication"), "it is a replica")
        file = os.path.join(newFolder("sentinel"), "sentinel.conf")
        with open(file, "w") as opened:
            opened.write(
                f"sentinel monitor mail 127.0.0.1 {first.port} 1\n"
                "sentinel down-after-milliseconds mail 300\nsentinel failover-timeout mail 2000\n"
            )
        sentinel = self.server(mode=(file, "--sentinel"))
        await self.until(lambda: sentinel.ask("SENTINEL", "REPLICAS", "mail"), "Sentinel knows the replica")
        store = await self.connected(f"sentinel+redis://127.0.0.1:{freePort()},127.0.0.1:{sentinel.port}/mail/0")
        await store.call("SET", "mg:1:a", "x", "PX", 60000)
        self.assertEqual(first.ask("GET", "mg:1:a"), b"x")
        first.end()
        await self.until(lambda: not store.isUp, "the store is left alone")
        await self.untilBack(store)
        self.assertTrue(second.ask("ROLE")[0] == b"master" and second.ask("EXISTS", "mg:1:n"))
        await self.until(lambda: len(self.resumptions) >= 2, "messages are heard again")

    async def test_unknown(self) -> None:
        """No Sentinel answers."""
        store = self.connection(f"sentinel+redis://127.0.0.1:{freePort()}/mail")
        await self.until(lambda: self.changes, "the attempt has failed")
        self.assertRegex(store.reason, "is unknown: Sentinel 127.0.0.1:[0-9]+ refused the connection")
