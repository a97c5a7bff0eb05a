"""
Tests of the authenticator's requests and answers on the wire, and with a server of Twisted.
"""

from __future__ import annotations

from attrs import evolve
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import CancelledError
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from mailgate.auth.http.agent import KeepAliveAgent
from mailgate.auth.http.response import HTTPResponse, Status
from mailgate.test.support.httpagent import FakeEndpoint
from mailgate.test.support.httpauthenticator import (
    ACCEPTED,
    REQUEST,
    ROUTE,
    UNDECIDED,
    AuthenticatorTestCase,
    FakeAgent,
)


class WireTests(AuthenticatorTestCase):
    """The authenticator over mailgate's agent and a fake endpoint."""

    urls = "http://127.0.0.1:9000/auth?key=hush"

    def setUp(self):
        super().setUp()
        self.endpoint = FakeEndpoint()
        self.authenticator = self.make([self.agent()])

    def agent(self, **others):
        """Return mailgate's agent."""
        return KeepAliveAgent(self.endpoint, self.clock, b"127.0.0.1", b"/auth?key=hush", cooling=0.0, **others)

    def test_exact(self):
        """The request is nginx's except for the version, without additional headers."""
        judged = self.authenticate()
        connection = self.endpoint.accept()
        self.assertEqual(
            connection.transport.value(),
            b"GET /auth?key=hush HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Auth-Method: plain\r\nAuth-User: joe\r\nAuth-Pass: sesame\r\nAuth-Protocol: imap\r\n"
            b"Auth-Login-Attempt: 1\r\nClient-IP: 192.0.2.7\r\n\r\n",
        )
        connection.dataReceived(b"HTTP/1.1 200 OK\r\nauth-status: OK\r\nAuth-Server: 10.0.0.1\r\nauth-port: 143\r\n")
        self.assertNoResult(judged)
        connection.dataReceived(b"Content-Length: 0\r\n\r\n")
        self.assertEqual(self.successResultOf(judged), ROUTE)

    def test_kept(self):
        """Two logins use one connection; a cookie of the first is not sent with the second."""
        for attempt in (1, 2):
            judged = self.authenticate(evolve(REQUEST, attempt=attempt))
            connection = self.endpoint.connections[0] if self.endpoint.connections else self.endpoint.accept()
            sent = connection.transport.value()
            self.assertIn(b"Auth-Login-Attempt: %d\r\nClient-IP: 192.0.2.7\r\n\r\n" % attempt, sent)
            self.assertNotIn(b"ookie", sent)
            connection.transport.clear()
            head = "\r\n".join(["HTTP/1.1 200 OK", *ACCEPTED, "Set-Cookie: joe=1; Path=/", "Content-Length: 0", "", ""])
            connection.dataReceived(head.encode())
            self.successResultOf(judged)
        self.assertEqual(len(self.endpoint.connections), 1)

    def test_closed(self):
        """Closing the authenticator closes idle connections."""
        self.test_kept()
        self.authenticator.close()
        self.assertTrue(self.endpoint.connections[0].transport.aborting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_phases(self):
        """A time-out names its phase."""
        phases = {None: "connecting", b"": "waiting for the response", b"HTTP/1.1 2": "reading the response"}
        for received, phase in phases.items():
            self.authenticate()
            connection = self.endpoint.accept() if received is not None else None
            if received:
                connection.dataReceived(received)
            self.clock.advance(60)
            (logged,) = self.log()
            self.assertIn(f"failed while {phase}: timed out after 60 seconds", logged)

    def test_drip(self):
        """A server that sends a byte now and then gets no more time."""
        judged = self.authenticate()
        connection = self.endpoint.accept()
        for byte in b"HTTP/1.1 200 OK\r\n":
            connection.dataReceived(bytes([byte]))
            self.clock.advance(4)
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        self.assertTrue(connection.transport.aborting)

    def test_garbage(self):
        """Bytes that are no HTTP are a temporary failure, and are not logged."""
        judged = self.authenticate()
        self.endpoint.accept().dataReceived(b"sesame\r\n")
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        self.assertEqual(len(self.log()), 1)

    def test_refusedConnection(self):
        """A port without a listener is a temporary failure."""
        judged = self.authenticate()
        self.endpoint.refuse()
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        self.assertIn("failed while connecting: it refused the connection", self.log()[0])

    def test_cancelled(self):
        """A cancellation aborts the connection."""
        judged = self.authenticate()
        connection = self.endpoint.accept()
        judged.cancel()
        self.failureResultOf(judged, CancelledError)
        self.assertTrue(connection.transport.aborting)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Service(Resource):
    """A service that answers with C{fields} and keeps the headers of requests."""

    isLeaf = True

    def __init__(self, fields, code=200, body=b"hello"):
        super().__init__()
        self.fields = fields
        self.code = code
        self.body = body
        self.requests = []

    def render_GET(self, request):
        self.requests.append((request.uri, request.requestHeaders))
        request.setResponseCode(self.code)
        for field in self.fields:
            name, _, value = field.partition(": ")
            request.responseHeaders.addRawHeader(name, value)
        return self.body


class TwistedWebTests(AuthenticatorTestCase):
    """The authenticator over treq's in-memory agent and a resource of twisted.web."""

    urls = "http://127.0.0.1:9000/auth?key=hush"

    def ask(self, service):
        """Return the answer of C{service}."""
        self.authenticator = self.make([RequestTraversalAgent(service)])
        return self.successResultOf(self.authenticate())

    def test_accepted(self):
        """A resource receives the right request, and its answer counts."""
        service = Service(ACCEPTED)
        self.assertEqual(self.ask(service), ROUTE)
        ((uri, asked),) = service.requests
        self.assertEqual(uri, b"/auth?key=hush")
        self.assertEqual(asked.getRawHeaders(b"Client-IP"), [b"192.0.2.7"])

    def test_redirect(self):
        """A redirect is not followed: the credentials are sent only to the configured URL."""
        service = Service(["Location: http://elsewhere.example/"], 302)
        self.assertEqual(self.ask(service), UNDECIDED)
        self.assertEqual(len(service.requests), 1)
        self.assertIn("302 without Auth-Status", self.log()[0])

    def test_noCookies(self):
        """A cookie of one login is not sent with the next."""
        service = Service([*ACCEPTED, "Set-Cookie: joe=1; Path=/"])
        self.assertEqual(self.ask(service), ROUTE)
        self.assertEqual(self.successResultOf(self.authenticate()), ROUTE)
        self.assertEqual([asked.hasHeader(b"Cookie") for _, asked in service.requests], [False, False])

    def test_slow(self):
        """With an agent that does not report phases, a time-out is a failure too."""

        class Slow(Resource):
            isLeaf = True

            def render_GET(self, request):
                return NOT_DONE_YET

        self.authenticator = self.make([RequestTraversalAgent(Slow())])
        judged = self.authenticate()
        self.assertNoResult(judged)
        self.clock.advance(60)
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        self.assertEqual(len(self.log()), 1)

    def test_bodyRead(self):
        """The body is read, so that an agent that waits for its end releases the connection."""
        delivered = []

        @implementer(IResponse)
        class Held(HTTPResponse):
            def deliverBody(self, protocol):
                delivered.append(protocol)

        agent = FakeAgent()
        self.authenticator = self.make([agent])
        judged = self.authenticate()
        held = Held(Status((b"HTTP", 1, 1), 200, b""), {})
        held.headers = Headers({b"Auth-Status": [b"no"]})
        agent.asked[0][3].callback(held)
        self.successResultOf(judged)
        self.assertEqual(len(delivered), 1)
        delivered[0].dataReceived(b"whatever")
