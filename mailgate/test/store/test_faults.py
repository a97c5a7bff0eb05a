"""
Tests of L{mailgate.store.redis.connection} with real servers that fail in different ways. In all of them no call takes
longer than C{store_timeout}, calls fail at once while the store is left alone, and the store is used again afterwards.
"""

from __future__ import annotations

from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from mailgate.store.redis import connection
from mailgate.store.settings import StoreAccess
from mailgate.test.integration.daemon import freePort
from mailgate.test.support.storecase import ADD, StoreCase

SECRET = b"0123456789abcdef"


class FaultTests(StoreCase):
    """Servers that stop working, over a unix socket."""

    async def test_works(self) -> None:
        """Values are bytes as they are, calls of one turn are answered in their order, and messages are heard."""
        server = self.server()
        store = await self.connected(f"redis+unix:{server.path}?db=3")
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
        store = await self.connected(f"redis+unix:{server.path}")
        server.ask("SCRIPT", "FLUSH")
        answers = await gatherResults([store.script(ADD, [b"mg:1:n"], [1]) for _ in range(3)])
        self.assertEqual(answers, [1, 2, 3])
        self.assertEqual(await store.script(ADD, [b"mg:1:n"], [1]), 4)
        self.assertTrue(store.isUp)

    async def test_wrongCall(self) -> None:
        """An error reply is a failure of its call. The connection goes on."""
        server = self.server()
        store = await self.connected(f"redis+unix:{server.path}")
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

    async def test_hung(self) -> None:
        """The server takes calls and answers none. Those of the time after it have their own answers."""
        server = self.server()
        store = await self.connected(f"redis+unix:{server.path}")
        server.hang()
        calls = [store.call("ECHO", str(number)) for number in range(50)]
        for call in calls:
            self.assertIn("has not answered within 100 ms", await self.refused(call))
        self.assertFalse(store.isUp)
        self.refusedAtOnce(store.call("ECHO", "x"))
        server.goOn()
        await self.untilBack(store)
        answers = await gatherResults([store.call("ECHO", str(number)) for number in range(50)])
        self.assertEqual(answers, [b"%d" % number for number in range(50)])

    async def test_late(self) -> None:
        """A reply that comes too late is no reply to another call."""
        server = self.server()
        store = await self.connected(f"redis+unix:{server.path}")
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
        store = await self.connected(f"redis+unix:{server.path}")
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
