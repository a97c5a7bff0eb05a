"""
Tests for L{mailgate.auth.http.agent}.
"""

from __future__ import annotations

from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import CancelledError, fail
from twisted.internet.interfaces import (
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IClientRequest, IResponse
from twisted.web.resource import Resource
from zope.interface.verify import verifyObject

from mailgate.auth.http.agent import KeepAliveAgent
from mailgate.auth.http.connection import BODY_PATIENCE, ExchangeCancelled
from mailgate.auth.http.headers import FieldHeaders, PreparedHeaders
from mailgate.test.support.httpagent import FIELDS, REQUEST, RESPONSE, AgentTestCase


class RequestTests(AgentTestCase):
    """What is written."""

    def test_interfaces(self):
        """The agent, its connections, its responses and what they remember keep to their interfaces."""
        verifyObject(IAgent, self.agent)
        verifyObject(IStreamClientEndpoint, self.endpoint)
        asked = self.ask()
        connection = self.endpoint.accept()
        verifyObject(IHandshakeListener, connection)
        connection.dataReceived(RESPONSE)
        response = self.successResultOf(asked)
        verifyObject(IResponse, response)
        verifyObject(IPushProducer, response)
        verifyObject(IClientRequest, response.request)

    def test_exact(self):
        """The prepared headers are written as they are, and nothing else; the URL of the request does not matter."""
        self.ask()
        self.assertEqual(self.endpoint.accept().transport.value(), REQUEST)

    def test_underTreq(self):
        """What treq adds to the headers is not written either."""
        client = HTTPClient(self.agent)
        asked = client.request(
            "GET", "http://elsewhere.example/x", headers=PreparedHeaders(FIELDS), unbuffered=True, reactor=self.clock
        )
        connection = self.endpoint.accept()
        self.assertEqual(connection.transport.value(), REQUEST)
        connection.dataReceived(RESPONSE)
        response = self.successResultOf(asked)
        self.assertEqual(response.code, 200)
        self.assertEqual(self.successResultOf(response.content()), b"")

    def test_ordinaryHeaders(self):
        """Ordinary headers are written too, every value of them; none at all are needed."""
        self.agent.request(b"GET", b"http://a/", Headers({b"x": [b"1", b"2"]}))
        self.agent.request(b"GET", b"http://a/")
        start = b"GET /auth?x HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        self.assertEqual(self.endpoint.accept().transport.value(), start + b"X: 1\r\nX: 2\r\n\r\n")
        self.assertEqual(self.endpoint.accept().transport.value(), start + b"\r\n")

    def test_onlyGet(self):
        """What could not be repeated is not sent."""
        self.failureResultOf(self.agent.request(b"POST", b"http://a/"), ValueError)
        self.failureResultOf(self.agent.request(b"GET", b"http://a/", None, object()), ValueError)
        self.assertEqual(self.endpoint.connecting, [])

    def test_noDelay(self):
        """A TCP connection sends small writes at once."""
        self.endpoint._interfaces = (ITCPTransport,)
        self.ask()
        self.assertTrue(self.endpoint.accept().transport.noDelay)


class NotKeptTests(AgentTestCase):
    """An agent that keeps no connections, as nginx."""

    def setUp(self):
        super().setUp()
        self.agent = KeepAliveAgent(self.endpoint, self.clock, b"127.0.0.1", b"/auth?x", cooling=None)

    def test_exact(self):
        """It speaks nginx's HTTP/1.0, and is else the same."""
        self.ask()
        self.assertEqual(self.endpoint.accept().transport.value(), REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"))

    def test_ownConnection(self):
        """Each request has a connection of its own, which it leaves though the server would keep it."""
        for count in (1, 2):
            connection = self.exchange()
            self.assertEqual(len(self.endpoint.connections), count)
            self.assertTrue(connection.transport.left)
            self.lose(connection)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_body(self):
        """A body is waited for, but no longer than elsewhere, so that no server finds itself cut off."""
        connection = self.exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        self.assertFalse(connection.transport.left)
        connection.dataReceived(b"cd")
        self.assertTrue(connection.transport.left)
        connection = self.exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        self.clock.advance(BODY_PATIENCE)
        self.assertTrue(connection.transport.aborting)


class FieldHeadersTests(SynchronousTestCase):
    """Headers that are put in order as far as that is asked for."""

    GIVEN = ((b"A-b", b"1"), (b"C", b"2"), (b"a-B", b"3"))

    def both(self) -> list[Headers]:
        """Ours, and Twisted's of the same fields."""
        twisteds = Headers()
        for name, value in self.GIVEN:
            twisteds.addRawHeader(name, value)
        return [FieldHeaders(self.GIVEN), twisteds]

    def test_likeTwisteds(self) -> None:
        """Whatever is done to them, in bytes or in text, they say what Twisted's would."""
        changes = (
            lambda headers: headers.addRawHeader(b"c", b"4"),
            lambda headers: headers.addRawHeader("D", "5"),
            lambda headers: headers.setRawHeaders(b"A-B", [b"6"]),
            lambda headers: headers.setRawHeaders(b"E", [b"7", b"8"]),
            lambda headers: headers.setRawHeaders("a-b", ["9"]),
            lambda headers: headers.removeHeader(b"c"),
            lambda headers: headers.removeHeader("A-B"),
            lambda headers: headers.removeHeader(b"none"),
        )
        for number in range(len(changes) ** 3):
            chosen = [changes[number // len(changes) ** place % len(changes)] for place in range(3)]
            ours, twisteds = self.both()
            for change in chosen:
                for headers in (ours, twisteds):
                    change(headers)
                for name in (b"a-b", b"C", b"d", b"e", b"none"):
                    self.assertEqual(ours.getRawHeaders(name), twisteds.getRawHeaders(name))
                    self.assertEqual(ours.hasHeader(name), twisteds.hasHeader(name))
            self.assertEqual(ours.getRawHeaders("a-b"), twisteds.getRawHeaders("a-b"))
            self.assertEqual(sorted(ours.copy().getAllRawHeaders()), sorted(twisteds.getAllRawHeaders()))
            self.assertEqual(sorted(ours.getAllRawHeaders()), sorted(twisteds.getAllRawHeaders()))

    def test_copy(self) -> None:
        """A copy and what it was made of go their own ways, before and after they were put in order."""
        for prepare in (lambda headers: None, lambda headers: list(headers.getAllRawHeaders())):
            headers = FieldHeaders(self.GIVEN)
            prepare(headers)
            copy = headers.copy()
            copy.addRawHeader(b"New", b"x")
            headers.removeHeader(b"C")
            self.assertFalse(headers.hasHeader(b"new"))
            self.assertTrue(copy.hasHeader(b"c"))


class PreparedHeadersTests(SynchronousTestCase):
    """Headers that stay as they were prepared."""

    def test_ordinary(self):
        """For others they are headers like any: names in any case, several values, additions."""
        prepared = PreparedHeaders([(b"x-a", b"1"), (b"X-A", b"2")])
        self.assertEqual(prepared.getRawHeaders(b"X-a"), [b"1", b"2"])
        prepared.addRawHeader(b"Y", b"3")
        self.assertTrue(prepared.hasHeader(b"y"))

    def test_copy(self):
        """Copies, and copies of them, keep the block and what was added, and do not share additions."""
        prepared = PreparedHeaders(FIELDS)
        copy = prepared.copy()
        copy.addRawHeader(b"Accept-Encoding", b"gzip")
        second = copy.copy()
        self.assertEqual(second.getRawHeaders(b"accept-encoding"), [b"gzip"])
        self.assertEqual(second.getRawHeaders(b"auth-user"), [b"joe"])
        self.assertFalse(prepared.hasHeader(b"accept-encoding"))
        self.assertEqual({each.block for each in (prepared, copy, second)}, {b"Auth-User: joe\r\nClient-IP: ::1\r\n"})

    def test_noInjection(self):
        """A field that would become two, or end the head, is refused."""
        for name, value in ((b"A", b"x\r\nB: y"), (b"A", b"x\n"), (b"A", b"\r"), (b"A", b"\0"), (b"A\r\nB", b"x")):
            self.assertRaises(ValueError, PreparedHeaders, [(b"First", b"1"), (name, value)])

    def test_noSecretShown(self):
        """The values, which may be passwords, are not in the repr; the names are."""
        shown = repr(PreparedHeaders([(b"Auth-Pass", b"sesame")]).copy())
        self.assertIn("Auth-Pass", shown)
        self.assertNotIn("sesame", shown)

    def test_treqsOwnAgents(self):
        """treq's in-memory agent sends them to a resource of twisted.web."""
        seen = []

        class Root(Resource):
            isLeaf = True

            def render_GET(self, request):
                seen.append((request.uri, request.getHeader(b"auth-user")))
                return b""

        client = HTTPClient(RequestTraversalAgent(Root()))
        asked = client.request("GET", "http://a/b", headers=PreparedHeaders(FIELDS), reactor=Clock())
        self.assertEqual(self.successResultOf(asked).code, 200)
        self.assertEqual(seen, [(b"/b", b"joe")])


class Body(Protocol):
    """Collects what it is told of a body."""

    def __init__(self):
        self.received = b""
        self.reason = None

    def dataReceived(self, data):
        self.received += data

    def connectionLost(self, reason):
        self.reason = reason


class ResponseTests(AgentTestCase):
    """What is read."""

    def test_response(self):
        """A response has the version, code, phrase and headers that were sent, and an empty body."""
        asked = self.ask()
        self.endpoint.accept().dataReceived(b"HTTP/1.1 503 Sorry\r\nAUTH-status: no\r\nContent-Length: 3\r\n\r\nabc")
        response = self.successResultOf(asked)
        self.assertEqual((response.version, response.code, response.phrase), ((b"HTTP", 1, 1), 503, b"Sorry"))
        self.assertEqual(response.headers.getRawHeaders(b"Auth-Status"), [b"no"])
        self.assertEqual((response.request.method, response.length, response.previousResponse), (b"GET", 0, None))
        body = Body()
        response.deliverBody(body)
        self.assertEqual(body.received, b"")
        self.assertTrue(body.reason.check(ResponseDone))
        response.setPreviousResponse(response)
        self.assertIs(response.previousResponse, response)

    def test_answeredByHead(self):
        """The answer is there with the head, however much of the body is missing."""
        asked = self.ask()
        connection = self.endpoint.accept()
        head = RESPONSE.index(b"hello")
        connection.dataReceived(RESPONSE[: head - 1])
        self.assertNoResult(asked)
        connection.dataReceived(RESPONSE[head - 1 : head])
        self.successResultOf(asked)

    def test_encodedBody(self):
        """A body that claims to be compressed does no harm under treq, which would unpack it."""
        asked = HTTPClient(self.agent).request("GET", "http://a/", unbuffered=True, reactor=self.clock)
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n"
        self.endpoint.accept().dataReceived(head + b"abc")
        body = Body()
        self.successResultOf(asked).deliverBody(body)
        self.assertTrue(body.reason.check(ResponseDone))

    def test_garbage(self):
        """What is no HTTP ends the exchange and the connection at once."""
        asked = self.ask()
        connection = self.endpoint.accept()
        connection.dataReceived(b"SSH-2.0-OpenSSH_9.2\r\n")
        self.assertEqual(self.failureOf(asked), "while waiting for the response: the response is not HTTP/1.x")
        self.assertTrue(connection.transport.aborting)

    def test_cutOff(self):
        """A connection that ends before the head does is a failure; it is not repeated, the server having spoken."""
        self.exchange()
        asked = self.ask()
        connection = self.endpoint.connections[0]
        connection.dataReceived(RESPONSE[:30])
        self.lose(connection)
        self.assertEqual(self.failureOf(asked), "while reading the response: it closed the connection")
        self.assertEqual(self.endpoint.connecting, [])

    def test_refused(self):
        """A connection that cannot be made is a failure."""
        asked = self.ask()
        self.endpoint.refuse()
        self.assertIn("while connecting: it refused the connection", self.failureOf(asked))

    def test_refusedAtOnce(self):
        """So it is where the endpoint knows at once, and where the reason has no words."""
        self.endpoint.connect = lambda factory: fail(KeyError())
        self.assertEqual(self.failureOf(self.ask()), "while connecting: KeyError")

    def test_tlsPhase(self):
        """A TLS connection that is lost before its handshake was over failed in that, and after it did not."""
        self.endpoint._interfaces = (ISSLTransport,)
        for complete, phase in ((False, "shaking hands for TLS"), (True, "waiting for the response")):
            asked = self.ask()
            connection = self.endpoint.accept()
            if complete:
                connection.handshakeCompleted()
            self.lose(connection)
            self.assertIn(f"while {phase}: ", self.failureOf(asked))

    def test_handshakeAlone(self):
        """A handshake that completes when nobody asks any more changes nothing."""
        asked = self.ask()
        connection = self.endpoint.accept()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        connection.handshakeCompleted()


class CancelTests(AgentTestCase):
    """What giving up does."""

    def assertCancelled(self, asked, phase):
        """C{asked} can be cancelled, which says what was being done, and is a CancelledError for all."""
        asked.cancel()
        self.assertEqual(self.failureResultOf(asked, ExchangeCancelled).value.phase, phase)
        self.assertTrue(issubclass(ExchangeCancelled, CancelledError))

    def test_connecting(self):
        """An attempt to connect is given up."""
        self.assertCancelled(self.ask(), "connecting")
        self.assertEqual(self.endpoint.cancelled, 1)

    def test_connected(self):
        """A connection is aborted, and its loss is not taken for a dead one's: nothing is asked again."""
        connection = self.exchange()
        asked = self.ask()
        self.assertCancelled(asked, "waiting for the response")
        self.assertTrue(connection.transport.aborting)
        self.lose(connection)
        self.assertEqual(self.endpoint.connecting, [])

    def test_reading(self):
        """So it is in the middle of a head; what still arrives is not listened to."""
        asked = self.ask()
        connection = self.endpoint.accept()
        connection.dataReceived(RESPONSE[:20])
        self.assertCancelled(asked, "reading the response")
        connection.dataReceived(RESPONSE[20:])
        self.lose(connection)

    def test_repeating(self):
        """The second attempt of a request can be cancelled as the first."""
        connection = self.exchange()
        asked = self.ask()
        self.lose(connection)
        self.assertCancelled(asked, "connecting")
        self.assertEqual(self.endpoint.cancelled, 1)
