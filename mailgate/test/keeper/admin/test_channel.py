"""
Tests for L{mailgate.keeper.admin.channel}: HTTP/1.1 with bounds and deadlines.
"""

from __future__ import annotations

import random

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.admin.asked import MOST_BODY, Asked
from mailgate.keeper.admin.channel import CLOSING, IDLE, MOST, RECEIVING, AdminFactory
from mailgate.keeper.admin.replies import SECURITY, Reply, jsonReply
from mailgate.test.support.adminsite import JSON, Answered, Connection, request


class ChannelCase(SynchronousTestCase):
    """A factory that answers C{{"ok": true}}, and remembers what it was asked."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[Asked] = []
        self.reply: Deferred[Reply] | Reply = jsonReply({"ok": True})
        self.factory = AdminFactory(self.answer, self.clock)

    def answer(self, asked: Asked) -> Deferred[Reply]:
        self.asked.append(asked)
        return self.reply if isinstance(self.reply, Deferred) else succeed(self.reply)

    def connect(self, isLocal: bool = True) -> Connection:
        connection = Connection(self.factory, isLocal)
        self.addCleanup(connection.lose)
        return connection

    def refused(self, data: bytes) -> Answered:
        """The answer to a request that ends the connection and is not passed on."""
        self.asked.clear()
        connection = Connection(self.factory)
        connection.send(data)
        (answered,) = connection.take()
        self.assertEqual(answered.fields["connection"], "close")
        self.assertEqual(answered.fields["content-type"], "application/problem+json")
        self.assertEqual(answered.value["status"], answered.status)
        self.assertEqual(self.asked, [])
        # What follows is ignored.
        connection.send(request("GET", "/healthz"))
        self.assertEqual(connection.take(), [])
        self.clock.advance(CLOSING)
        self.assertTrue(connection.transport.aborted)
        connection.lose()
        return answered


class RequestTests(ChannelCase):
    """Requests and their answers."""

    def test_answer(self) -> None:
        """An answer has a length, a type, a date, the header fields for browsers, and nothing about the software."""
        answered = self.connect().ask("GET", "/healthz")
        self.assertEqual((answered.status, answered.body), (200, b'{"ok": true}\n'))
        expected = {name.decode().lower() for name, _ in SECURITY} | {"content-length", "content-type", "date"}
        self.assertEqual(set(answered.fields), expected)
        self.assertEqual(answered.fields["content-type"], "application/json")
        policy = answered.fields["content-security-policy"]
        self.assertEqual(policy.split("; ")[0], "default-src 'none'")
        self.assertEqual(answered.fields["cache-control"], "no-store")
        self.assertEqual(answered.fields["x-content-type-options"], "nosniff")

    def test_asked(self) -> None:
        """The factory gets method, target, header fields and body as they were sent, with the user of the process."""
        self.connect().ask("POST", "/a%20b?c=d&c=e", *JSON, "Cookie: a=b", body=b'{"a": 1}')
        (asked,) = self.asked
        self.assertEqual((asked.method, asked.target, asked.body), (b"POST", b"/a%20b?c=d&c=e", b'{"a": 1}'))
        self.assertEqual((asked.path, asked.query), (b"/a%20b", b"c=d&c=e"))
        self.assertEqual(asked.header("content-type"), b"application/json")
        self.assertTrue(asked.peer.isLocal)

    def test_forms(self) -> None:
        """Forms are not parsed; their bodies arrive unchanged."""
        for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            self.connect().ask("POST", "/a", f"Content-Type: {kind}", body=b"--x\r\nno form")
            self.assertEqual(self.asked[-1].body, b"--x\r\nno form")

    def test_head(self) -> None:
        """The answer to HEAD is that of GET without the body."""
        answered = self.connect().ask("HEAD", "/healthz")
        self.assertEqual((answered.status, answered.body), (200, b""))
        self.assertEqual(answered.fields["content-length"], "13")

    def test_keepAlive(self) -> None:
        """A connection takes one request after the other; those that are sent at once wait for their turn."""
        connection = self.connect()
        self.reply = first = Deferred[Reply]()
        connection.send(request("GET", "/1") + request("GET", "/2"))
        self.assertEqual(len(self.asked), 1)
        self.reply = jsonReply(2)
        first.callback(jsonReply(1))
        self.assertEqual([answered.body for answered in connection.take()], [b"1\n", b"2\n"])
        self.assertEqual([asked.target for asked in self.asked], [b"/1", b"/2"])
        self.assertFalse(connection.isClosed)

    def test_unread(self) -> None:
        """While a client does not read its answers, the requests that it has sent at once wait."""
        connection = self.connect()
        self.reply = Reply(200, 50_000 * b"a")
        write = connection.transport.write

        def written(data: bytes) -> None:
            write(data)
            if len(connection.transport.value()) > 65536:
                # As a socket whose buffer is full.
                connection.channel.pauseProducing()

        connection.transport.write = written  # type: ignore[method-assign]
        connection.send(5 * request("GET", "/static/uplot.js"))
        counts = []
        while len(self.asked) < 5:
            counts.append(len(connection.take()))
            connection.channel.resumeProducing()
        counts.append(len(connection.take()))
        self.assertEqual(counts, [2, 2, 1])
        # The time for the next request has begun.
        self.clock.advance(IDLE)
        self.assertTrue(connection.isClosed)

    def test_close(self) -> None:
        """The connection ends if the client, the answer or HTTP/1.0 says so."""
        connection = self.connect()
        self.assertEqual(connection.ask("GET", "/", "Connection: close").fields["connection"], "close")
        self.assertTrue(connection.isClosed)
        self.reply = jsonReply(1).closing()
        connection = self.connect()
        self.assertEqual(connection.ask("GET", "/").fields["connection"], "close")
        self.assertTrue(connection.isClosed)
        connection = self.connect()
        connection.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        self.assertEqual([answered.status for answered in connection.take()], [200])
        self.assertTrue(connection.isClosed)

    def test_left(self) -> None:
        """When the client leaves, the work for it is cancelled, and nothing is logged."""
        connection = Connection(self.factory)
        cancelled: list[object] = []
        self.reply = Deferred[Reply](cancelled.append)
        connection.send(request("GET", "/"))
        self.assertEqual(cancelled, [])
        connection.lose()
        self.assertEqual(cancelled, [self.reply])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_delay(self) -> None:
        """An answer with a delay is sent later. A client that leaves meanwhile ends the wait."""
        self.reply = Reply(401, b"{}", delay=1.0)
        connection = Connection(self.factory)
        connection.send(request("GET", "/"))
        self.assertEqual(connection.take(), [])
        self.clock.advance(1)
        self.assertEqual([answered.status for answered in connection.take()], [401])
        connection.lose()
        connection = Connection(self.factory)
        connection.send(request("GET", "/"))
        connection.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_continue(self) -> None:
        """C{Expect: 100-continue}, which curl sends, is answered, but not for a body that is too large."""
        connection = self.connect()
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        self.assertTrue(connection.transport.value().startswith(b"HTTP/1.1 100 Continue\r\n\r\n"))
        large = f"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {MOST_BODY + 1}\r\n\r\n"
        self.assertEqual(self.refused(large.encode()).status, 413)


class RefusalTests(ChannelCase):
    """Requests that are refused before their body is read."""

    def test_malformed(self) -> None:
        """What is not HTTP/1.1 has the answer 400."""
        for data in (
            b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            b"GET /\r\nHost: a\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHo st: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"G<T / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02\x00\r\n\r\n",
        ):
            self.assertEqual(self.refused(data).status, 400, data)

    def test_smuggling(self) -> None:
        """What two readers understand differently is refused: lengths, folded lines, repeated header fields."""
        post = b"POST / HTTP/1.1\r\nHost: a\r\n"
        for fields, status in (
            (b"Transfer-Encoding: chunked\r\n", 411),
            (b"Transfer-Encoding: identity\r\n", 411),
            (b"Transfer-Encoding: gzip, chunked\r\n", 400),
            (b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 400),
            (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
            (b"Content-Length: 3\r\nContent-Length: 3\r\n", 400),
            (b"Content-Length: 3\r\nContent-Length: 4\r\n", 400),
            (b"Content-Length: +3\r\n", 400),
            (b"Content-Length: 3, 3\r\n", 400),
            (b"Content-Length: -1\r\n", 400),
            (b"Content-Length: 0x3\r\n", 400),
            (b"X: a\r\n b\r\n", 400),
            (b"X: a\r\n\tContent-Length: 3\r\n", 400),
            (b"Host: b\r\n", 400),
            (b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", 400),
            (b"Origin: a\r\nOrigin: b\r\n", 400),
            (b"Expect: something\r\n", 417),
        ):
            self.assertEqual(self.refused(post + fields + b"\r\n").status, status, fields)

    def test_bodyOfGet(self) -> None:
        """GET and HEAD have no body."""
        self.assertEqual(self.refused(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").status, 400)

    def test_tooLarge(self) -> None:
        """Bounded are the request line, each header field, all of them, their number, and the body."""
        self.assertEqual(self.refused(b"GET /" + 20000 * b"a").status, 431)
        self.assertIn(self.refused(b"GET /" + 17000 * b"a" + b" HTTP/1.1\r\nHost: a\r\n\r\n").status, (400, 431))
        lines = b"".join(b"X-%d: %b\r\n" % (number, 1000 * b"a") for number in range(17))
        self.assertEqual(self.refused(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n").status, 400)
        lines = b"".join(b"X-%d: a\r\n" % number for number in range(101))
        self.assertEqual(self.refused(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n").status, 400)
        for length in (b"%d" % (MOST_BODY + 1), 4000 * b"9"):
            self.assertEqual(
                self.refused(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\n" % length).status, 413
            )
        # Python converts no number of so many digits.
        data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\n" % (5000 * b"9")
        self.assertIn(self.refused(data).status, (400, 413))
        self.assertEqual(self.connect().ask("POST", "/", body=MOST_BODY * b"a").status, 200)


class DeadlineTests(ChannelCase):
    """Slow clients."""

    def test_silent(self) -> None:
        """A client that sends nothing is closed."""
        connection = self.connect()
        self.clock.advance(RECEIVING)
        self.assertTrue(connection.transport.aborted)

    def test_slowSender(self) -> None:
        """A client that sends a byte at a time has no more time than others."""
        connection = self.connect()
        data = request("GET", "/")
        for second in range(int(RECEIVING)):
            self.assertFalse(connection.transport.aborted)
            connection.send(data[second : second + 1])
            self.clock.advance(1)
        self.assertTrue(connection.transport.aborted)

    def test_slowBody(self) -> None:
        """That holds for the body, too, and for the next request of a connection."""
        connection = self.connect()
        connection.ask("GET", "/")
        self.clock.advance(IDLE - 1)
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
        for _ in range(int(RECEIVING)):
            self.assertFalse(connection.transport.aborted)
            connection.send(b"a")
            self.clock.advance(1)
        self.assertTrue(connection.transport.aborted)

    def test_answering(self) -> None:
        """While an answer is made there is no deadline here."""
        connection = self.connect()
        self.reply = Deferred[Reply]()
        connection.send(request("GET", "/"))
        self.clock.advance(1000)
        self.assertFalse(connection.transport.aborted)

    def test_idle(self) -> None:
        """A connection without a request is closed, and aborted if the client does not read."""
        connection = self.connect()
        connection.ask("GET", "/")
        self.clock.advance(IDLE)
        self.assertTrue(connection.isClosed)
        self.assertFalse(connection.transport.aborted)
        self.clock.advance(CLOSING)
        self.assertTrue(connection.transport.aborted)

    def test_nothingLeft(self) -> None:
        """No timer is left of a connection that has ended."""
        connection = Connection(self.factory)
        connection.ask("GET", "/")
        connection.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class BoundTests(ChannelCase):
    """The number of connections."""

    def busy(self, isLocal: bool) -> Connection:
        connection = self.connect(isLocal)
        self.reply = Deferred[Reply]()
        connection.send(request("GET", "/"))
        return connection

    def test_most(self) -> None:
        """Over TCP there is one connection less than at all, so that a unix socket has one. Further ones are closed."""
        for _ in range(MOST - 1):
            self.assertFalse(self.busy(isLocal=False).transport.aborted)
        self.assertTrue(self.busy(isLocal=False).transport.aborted)
        local = self.busy(isLocal=True)
        self.assertFalse(local.transport.aborted)
        self.assertEqual(len(self.asked), MOST)
        self.assertTrue(self.busy(isLocal=True).transport.aborted)

    def test_slow(self) -> None:
        """Clients that send their requests slowly, or send nothing, do not keep others out."""
        busy = self.busy(isLocal=False)
        slow = []
        for number in range(MOST - 2):
            self.clock.advance(0.01)
            slow.append(self.connect(isLocal=False))
            # Nothing, half a request, and one that is refused.
            slow[-1].send((b"", b"GET / HTTP/1.1\r\n", b"?\r\n\r\n")[number % 3])
        self.reply = jsonReply(1)
        self.assertEqual(self.connect(isLocal=False).ask("GET", "/").status, 200)
        self.assertEqual([each.transport.aborted for each in slow], [True, *[False] * (MOST - 3)])
        self.assertFalse(busy.transport.aborted)

    def test_freed(self) -> None:
        """A connection that ends makes room."""
        connections = [Connection(self.factory) for _ in range(MOST)]
        connections.pop().lose()
        connections.append(Connection(self.factory))
        self.assertFalse(connections[-1].transport.aborted)
        for connection in connections:
            connection.lose()

    def test_idle(self) -> None:
        """The connection that is idle for the longest time is closed for a new one; one with a request is not."""
        busy = self.busy(isLocal=False)
        self.reply = jsonReply(1)
        idle = [self.connect(isLocal=False) for _ in range(MOST - 2)]
        for connection in idle:
            connection.ask("GET", "/")
        self.connect(isLocal=False)
        self.assertEqual([each.transport.aborted for each in idle], [True, *[False] * (MOST - 3)])
        self.assertFalse(busy.transport.aborted)

    def test_penalized(self) -> None:
        """Clients that guess tokens do not keep others out."""
        self.reply = Reply(401, b"{}", delay=1.0)
        guessing = [self.connect(isLocal=False) for _ in range(MOST - 1)]
        for connection in guessing:
            connection.send(request("GET", "/"))
        self.assertFalse(self.connect(isLocal=False).transport.aborted)
        self.assertTrue(guessing[0].transport.aborted)


class FuzzTests(ChannelCase):
    """Any bytes."""

    def test_mutated(self) -> None:
        """
        Whatever is sent, in whatever pieces: each answer is complete and of a known status, each refusal ends the
        connection, and nothing is logged as a failure.
        """
        random_ = random.Random(17)
        seeds = [
            request("GET", "/api/1/sessions?user=%6a*&limit=3", "Accept: */*"),
            request("POST", "/api/1/kick", *JSON, "Expect: 100-continue", body=b'{"user": "joe", "over": 1}'),
            request("DELETE", "/api/1/sessions/5g0qa.7k", *JSON, "Authorization: Bearer abc"),
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ]
        for _ in range(1500):
            data = bytearray(b"".join(random_.choices(seeds, k=random_.randint(1, 3))))
            for _ in range(random_.randint(0, 6)):
                place = random_.randrange(len(data))
                match random_.randrange(4):
                    case 0:
                        data[place] = random_.randrange(256)
                    case 1:
                        del data[place : place + random_.randint(1, 10)]
                    case 2:
                        data[place:place] = random_.choice(
                            [b"\r\n", b" ", b"\0", b":", b"\r\n\r\n", b"Content-Length: 9\r\n"]
                        )
                    case 3:
                        data[place:place] = data[: random_.randint(1, 40)]
                if not data:
                    break
            connection = Connection(self.factory, random_.random() < 0.5)
            while data:
                length = random_.randint(1, len(data))
                connection.send(bytes(data[:length]))
                del data[:length]
            isHead = any(asked.method == b"HEAD" for asked in self.asked)
            found = [] if isHead else connection.take()
            for answered in found:
                self.assertIn(answered.status, (200, 400, 411, 413, 417, 431))
                self.assertIn("content-security-policy", answered.fields)
            for answered in found[:-1]:
                self.assertEqual(answered.status, 200)
            self.clock.advance(RECEIVING)
            connection.lose()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
