"""
Tests for L{mailgate.auth.http.agent}.
"""

from __future__ import annotations

import gc
from http.cookiejar import CookieJar
from typing import Any
from weakref import ref

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
from mailgate.test.support.httpagent import FIELDS, REQUEST, RESPONSE, AgentTestCase, byName


class RequestTests(AgentTestCase):
    """What the agent sends."""

    def test_interfaces(self):
        """The agent, its connections, responses and requests provide their interfaces."""
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
        """Prepared headers are sent unchanged, and nothing else; the URL of the request does not matter."""
        self.ask()
        self.assertEqual(self.endpoint.accept().transport.value(), REQUEST)

    def test_underTreq(self):
        """Headers that treq adds are not sent."""
        client = HTTPClient(self.agent)
        asked = client.request(
            "GET", "http://elsewhere.example/x", headers=PreparedHeaders.of(FIELDS), unbuffered=True, reactor=self.clock
        )
        connection = self.endpoint.accept()
        self.assertEqual(connection.transport.value(), REQUEST)
        connection.dataReceived(RESPONSE)
        response = self.successResultOf(asked)
        self.assertEqual(response.code, 200)
        self.assertEqual(self.successResultOf(response.content()), b"")

    def test_ordinaryHeaders(self):
        """Ordinary headers are sent too, with all their values; a request without headers is possible."""
        self.agent.request(b"GET", b"http://a/", Headers({b"x": [b"1", b"2"]}))
        self.agent.request(b"GET", b"http://a/")
        start = b"GET /auth?x HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        self.assertEqual(self.endpoint.accept().transport.value(), start + b"X: 1\r\nX: 2\r\n\r\n")
        self.assertEqual(self.endpoint.accept().transport.value(), start + b"\r\n")

    def test_onlyGet(self):
        """Requests that cannot be repeated are not sent."""
        self.failureResultOf(self.agent.request(b"POST", b"http://a/"), ValueError)
        self.failureResultOf(self.agent.request(b"GET", b"http://a/", None, object()), ValueError)
        self.assertEqual(self.endpoint.connecting, [])

    def test_noDelay(self):
        """A TCP connection sends small writes at once."""
        self.endpoint._interfaces = (ITCPTransport,)
        self.ask()
        self.assertTrue(self.endpoint.accept().transport.noDelay)


class NotKeptTests(AgentTestCase):
    """An agent without persistent connections, like nginx."""

    def setUp(self):
        super().setUp()
        self.agent = KeepAliveAgent(self.endpoint, self.clock, b"127.0.0.1", b"/auth?x", cooling=None)

    def test_exact(self):
        """It sends nginx's HTTP/1.0, and otherwise the same."""
        self.ask()
        self.assertEqual(self.endpoint.accept().transport.value(), REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"))

    def test_ownConnection(self):
        """Each request uses a new connection, which is closed even if the server would keep it."""
        for count in (1, 2):
            connection = self.exchange()
            self.assertEqual(len(self.endpoint.connections), count)
            self.assertTrue(connection.transport.left)
            self.lose(connection)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_body(self):
        """The agent waits for a body as long as otherwise, so that the server is not cut off."""
        connection = self.exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        self.assertFalse(connection.transport.left)
        connection.dataReceived(b"cd")
        self.assertTrue(connection.transport.left)
        connection = self.exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        self.clock.advance(BODY_PATIENCE)
        self.assertTrue(connection.transport.aborting)


class FieldHeadersTests(SynchronousTestCase):
    """The headers of a response, in a dictionary."""

    GIVEN = ((b"A-b", b"1"), (b"C", b"2"), (b"a-B", b"3"))

    def both(self) -> list[Headers]:
        """Return mailgate's and Twisted's headers with the same fields."""
        twisteds = Headers()
        for name, value in self.GIVEN:
            twisteds.addRawHeader(name, value)
        return [FieldHeaders(byName(self.GIVEN)), twisteds]

    def test_likeTwisteds(self) -> None:
        """For code that reads them, with bytes or text, they equal Twisted's headers."""
        ours, twisteds = self.both()
        names: list[Any] = ["a-b", "C", "none", b"a-b", b"C", b"none"]
        for name in names:
            self.assertEqual(ours.getRawHeaders(name), twisteds.getRawHeaders(name))
            self.assertEqual(ours.getRawHeaders(name, []), twisteds.getRawHeaders(name, []))
            self.assertEqual(ours.hasHeader(name), twisteds.hasHeader(name))
        for headers in (ours, ours.copy()):
            self.assertEqual(sorted(headers.getAllRawHeaders()), sorted(twisteds.getAllRawHeaders()))

    def test_fixed(self) -> None:
        """Nothing changes them: treq would set a Content-Encoding that the service did not send."""
        for headers in (FieldHeaders(byName(self.GIVEN)), FieldHeaders(byName(self.GIVEN)).copy()):
            headers.setRawHeaders(b"Content-Encoding", [b""])
            headers.addRawHeader(b"C", b"4")
            headers.removeHeader(b"A-b")
            self.assertEqual(headers.values, byName(self.GIVEN))


class PreparedHeadersTests(SynchronousTestCase):
    """Headers that are sent as they were prepared."""

    def test_ordinary(self):
        """Other code sees ordinary headers: names in any case, several values, additions."""
        prepared = PreparedHeaders.of([(b"x-a", b"1"), (b"X-A", b"2")])
        self.assertEqual(prepared.getRawHeaders(b"X-a"), [b"1", b"2"])
        prepared.addRawHeader(b"Y", b"3")
        self.assertTrue(prepared.hasHeader(b"y"))

    def test_copy(self):
        """Copies keep the block and additions, and do not share later additions."""
        prepared = PreparedHeaders.of(FIELDS)
        copy = prepared.copy()
        copy.addRawHeader(b"Accept-Encoding", b"gzip")
        second = copy.copy()
        self.assertEqual(second.getRawHeaders(b"accept-encoding"), [b"gzip"])
        self.assertEqual(second.getRawHeaders(b"auth-user"), [b"joe"])
        self.assertFalse(prepared.hasHeader(b"accept-encoding"))
        self.assertEqual({each.block for each in (prepared, copy, second)}, {b"Auth-User: joe\r\nClient-IP: ::1\r\n"})

    def test_fixed(self):
        """What was prepared cannot be changed or removed."""
        prepared = PreparedHeaders.of(FIELDS)
        self.assertRaises(TypeError, prepared.setRawHeaders, b"Auth-User", [b"ann"])
        self.assertRaises(TypeError, prepared.removeHeader, b"Auth-User")
        self.assertEqual(prepared.getRawHeaders(b"Auth-User"), [b"joe"])

    def test_noInjection(self):
        """A field that would become two fields, or end the head, is rejected."""
        for name, value in ((b"A", b"x\r\nB: y"), (b"A", b"x\n"), (b"A", b"\r"), (b"A", b"\0"), (b"A\r\nB", b"x")):
            self.assertRaises(ValueError, PreparedHeaders.of, [(b"First", b"1"), (name, value)])

    def test_filled(self):
        """A form is filled with values. A value can add no line, and what looks like a form in it is text."""
        form = b"A: %b\r\nB: 100%% %d\r\n"
        filled = PreparedHeaders(form, (b"%b %%", 7))
        self.assertEqual(filled.block, b"A: %b %%\r\nB: 100% 7\r\n")
        self.assertEqual(filled.getRawHeaders(b"b"), [b"100% 7"])
        for value in (b"x\r\nC: y", b"x\n", b"\r", b"\0"):
            self.assertRaises(ValueError, PreparedHeaders, form, (value, 7))

    def test_found(self):
        """A header is found by its whole name in any case, and not by a value."""
        prepared = PreparedHeaders.of([(b"X-Cookie", b"cookie: 1"), (b"aUTH-User", b"joe")]).copy()
        prepared.addRawHeader("Accept-Encoding", "gzip")
        names = (b"cookie", b"Auth-USER", b"x-cookie", b"accept-encoding", b"X")
        found = [name for name in names if prepared.hasHeader(name)]
        self.assertEqual(found, [b"Auth-USER", b"x-cookie", b"accept-encoding"])
        self.assertEqual(prepared.getRawHeaders("accept-encoding"), ["gzip"])

    def test_noSecretShown(self):
        """The repr shows the names but not the values, which may be passwords."""
        shown = repr(PreparedHeaders.of([(b"Auth-Pass", b"sesame")]).copy())
        self.assertIn("Auth-Pass", shown)
        self.assertNotIn("sesame", shown)

    def test_treqsOwnAgents(self):
        """treq's in-memory agent sends them to a resource of twisted.web, without a cookie from treq's jar."""
        seen = []

        class Root(Resource):
            isLeaf = True

            def render_GET(self, request):
                seen.append((request.uri, request.getHeader(b"auth-user"), request.getHeader(b"cookie")))
                request.addCookie(b"flavour", b"vanilla")
                return b""

        client = HTTPClient(RequestTraversalAgent(Root()), CookieJar())
        for headers in (Headers(), Headers(), PreparedHeaders.of(FIELDS)):
            asked = client.request("GET", "http://a/b", headers=headers, reactor=Clock())
            self.assertEqual(self.successResultOf(asked).code, 200)
        self.assertEqual(seen, [(b"/b", None, None), (b"/b", None, b"flavour=vanilla"), (b"/b", b"joe", None)])


class Body(Protocol):
    """Collects the events of a body."""

    def __init__(self):
        self.received = b""
        self.reason = None

    def dataReceived(self, data):
        self.received += data

    def connectionLost(self, reason):
        self.reason = reason


class ResponseTests(AgentTestCase):
    """What the agent reads."""

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
        """The answer comes with the head, however much of the body is missing."""
        asked = self.ask()
        connection = self.endpoint.accept()
        head = RESPONSE.index(b"hello")
        connection.dataReceived(RESPONSE[: head - 1])
        self.assertNoResult(asked)
        connection.dataReceived(RESPONSE[head - 1 : head])
        self.successResultOf(asked)

    def test_forgotten(self):
        """After the answer a connection holds neither response nor request, in which passwords may be."""
        gc.disable()
        self.addCleanup(gc.enable)
        for head in (b"Content-Length: 3\r\n", b"Connection: close\r\n", b"Content-Length: 0\r\n"):
            asked = self.ask()
            connection = self.endpoint.accept()
            connection.dataReceived(b"HTTP/1.1 200 OK\r\nAuth-Pass: sesame\r\n" + head + b"\r\n")
            held = ref(self.successResultOf(asked))
            del asked
            self.assertIsNone(held(), head)

    def test_encodedBody(self):
        """A body that claims to be compressed does no harm with treq, which decompresses bodies."""
        asked = HTTPClient(self.agent).request("GET", "http://a/", unbuffered=True, reactor=self.clock)
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n"
        self.endpoint.accept().dataReceived(head + b"abc")
        body = Body()
        self.successResultOf(asked).deliverBody(body)
        self.assertTrue(body.reason.check(ResponseDone))

    def test_garbage(self):
        """Bytes that are no HTTP end the request and the connection at once."""
        asked = self.ask()
        connection = self.endpoint.accept()
        connection.dataReceived(b"SSH-2.0-OpenSSH_9.2\r\n")
        self.assertEqual(self.failureOf(asked), "while waiting for the response: the response is not HTTP/1.x")
        self.assertTrue(connection.transport.aborting)

    def test_cutOff(self):
        """A connection that ends within the head is a failure, and the request is not repeated."""
        self.exchange()
        asked = self.ask()
        connection = self.endpoint.connections[0]
        connection.dataReceived(RESPONSE[:30])
        self.lose(connection)
        self.assertEqual(self.failureOf(asked), "while reading the response: it closed the connection")
        self.assertEqual(self.endpoint.connecting, [])

    def test_refused(self):
        """A refused connection is a failure."""
        asked = self.ask()
        self.endpoint.refuse()
        self.assertIn("while connecting: it refused the connection", self.failureOf(asked))

    def test_refusedAtOnce(self):
        """This also holds if the endpoint fails at once, and if the reason has no text."""
        self.endpoint.connect = lambda factory: fail(KeyError())
        self.assertEqual(self.failureOf(self.ask()), "while connecting: KeyError")

    def test_tlsPhase(self):
        """The phase of a failure distinguishes the TLS handshake from what follows."""
        self.endpoint._interfaces = (ISSLTransport,)
        for complete, phase in ((False, "performing the TLS handshake"), (True, "waiting for the response")):
            asked = self.ask()
            connection = self.endpoint.accept()
            if complete:
                connection.handshakeCompleted()
            self.lose(connection)
            self.assertIn(f"while {phase}: ", self.failureOf(asked))

    def test_handshakeAlone(self):
        """A handshake that completes without a request has no effect."""
        asked = self.ask()
        connection = self.endpoint.accept()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        connection.handshakeCompleted()


class CancelTests(AgentTestCase):
    """Cancellation."""

    def assertCancelled(self, asked, phase):
        """Check that C{asked} can be cancelled, and that the error is a CancelledError with the phase."""
        asked.cancel()
        self.assertEqual(self.failureResultOf(asked, ExchangeCancelled).value.phase, phase)
        self.assertTrue(issubclass(ExchangeCancelled, CancelledError))

    def test_connecting(self):
        """A connection attempt is cancelled."""
        self.assertCancelled(self.ask(), "connecting")
        self.assertEqual(self.endpoint.cancelled, 1)

    def test_connected(self):
        """A connection is aborted, and the request is not repeated."""
        connection = self.exchange()
        asked = self.ask()
        self.assertCancelled(asked, "waiting for the response")
        self.assertTrue(connection.transport.aborting)
        self.lose(connection)
        self.assertEqual(self.endpoint.connecting, [])

    def test_reading(self):
        """The connection is also aborted within a head; bytes that arrive later are ignored."""
        asked = self.ask()
        connection = self.endpoint.accept()
        connection.dataReceived(RESPONSE[:20])
        self.assertCancelled(asked, "reading the response")
        connection.dataReceived(RESPONSE[20:])
        self.lose(connection)

    def test_repeating(self):
        """The repetition of a request can be cancelled too."""
        connection = self.exchange()
        asked = self.ask()
        self.lose(connection)
        self.assertCancelled(asked, "connecting")
        self.assertEqual(self.endpoint.cancelled, 1)
