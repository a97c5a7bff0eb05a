"""
Tests for L{mailgate.auth.http.authenticator}.
"""

from __future__ import annotations

import datetime
import ipaddress

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import ResponseFailed
from twisted.web.iweb import IAgent, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailgate.auth.cache import CachedAuthenticator, IJudge, Judgement
from mailgate.auth.fairqueue import FairQueue
from mailgate.auth.http.agent import KeepAliveAgent
from mailgate.auth.http.authenticator import KIND, REST, HTTPAuthenticator
from mailgate.auth.http.connection import HTTPResponse
from mailgate.auth.http.dialect import NGINX
from mailgate.auth.http.response import ResponseHead
from mailgate.auth.http.services import SharedService
from mailgate.auth.http.settings import HTTPSettings
from mailgate.interfaces import IAuthenticator
from mailgate.lean.reactor import LeanReactor
from mailgate.log.journal import Journal
from mailgate.login import (
    Backend,
    Client,
    ClientCertificate,
    Credentials,
    Denial,
    LoginRequest,
    Method,
    Route,
    TLSDetails,
    TLSState,
    Trouble,
)
from mailgate.net.clients import LimitSettings
from mailgate.test.auth.http.test_settings import server, settings
from mailgate.test.support.findings import askedOf
from mailgate.test.support.httpagent import FakeEndpoint
from mailgate.tls.settings import TLSSettings

REQUEST = LoginRequest("imap", Credentials(Method.PLAIN, b"joe", b"sesame"), Client("192.0.2.7", 4711))


def failed(reason: str, event: str = "failed") -> str:
    """The line of the log about the first service and C{REQUEST}."""
    about = f"client 192.0.2.7:4711, auth http server http://one:9000/auth {reason}, protocol imap"
    return f'auth service {event}: {about}, server -, session -, user "joe"'


ACCEPTED = ("Auth-Status: OK", "Auth-Server: 10.0.0.1", "Auth-Port: 143")
ROUTE = Route((Backend("10.0.0.1", 143),), b"joe", b"sesame")
UNDECIDED = Denial(Trouble.TEMPORARY)


@implementer(IAgent)
class FakeAgent:
    """An agent whose requests wait in C{asked}, a block of headers and a Deferred each, to be answered by the test."""

    def __init__(self):
        self.asked = []
        self.cancelled = 0

    def request(self, method, uri, headers=None, bodyProducer=None):
        answer = Deferred(self._cancel)
        self.asked.append((method, uri, headers.block, answer))
        return answer

    def _cancel(self, answer):
        self.cancelled += 1

    def answer(self, *fields, code=200):
        """Answer the newest request."""
        pairs = tuple(tuple(field.encode().split(b": ", 1)) for field in fields)
        self.asked[-1][3].callback(HTTPResponse(ResponseHead(1, code, b"", pairs), None))

    def fail(self, reason):
        """Let the newest request fail."""
        self.asked[-1][3].errback(reason)


class AuthenticatorTestCase(SynchronousTestCase):
    """An authenticator of two services over fake agents."""

    urls = "http://one:9000/auth?key=hush\nhttps://two/auth"

    def setUp(self):
        self.clock = Clock()
        self.events = []
        self.journal = Journal(LogLevel.info, self.events.append)
        self.agents = [FakeAgent() for _ in self.urls.split("\n")]
        self.authenticator = self.make(self.agents)

    def make(self, agents, default=None, places=0, **others):
        """An authenticator over C{agents}, each of which may be asked C{places} questions at once."""
        group = settings(self.urls, **others)
        dialect = group.dialect(server(group))
        services = [
            SharedService(url, agent, FairQueue(places, self.clock), self.clock, self.journal).join()
            for url, agent in zip(group.urls, agents, strict=True)
        ]
        clientOf = LimitSettings().clientOf
        return HTTPAuthenticator(group, dialect, default, self.clock, self.journal, services, clientOf)

    def log(self):
        """What has been logged; afterwards it is forgotten."""
        logged = [formatEvent(event) for event in self.events]
        self.events.clear()
        for text in logged:
            self.assertNotIn("sesame", text)
            self.assertNotIn("hush", text)
        return logged

    def authenticate(self, request=REQUEST):
        """Have C{request} judged."""
        return self.authenticator.authenticate(request)


class JudgementTests(AuthenticatorTestCase):
    """One service that answers."""

    urls = "http://one:9000/auth?key=hush"

    def setUp(self):
        super().setUp()
        (self.agent,) = self.agents

    def test_interfaces(self):
        """The authenticator, and the fake that is tested with, keep to their interfaces."""
        verifyObject(IAuthenticator, self.authenticator)
        verifyObject(IJudge, self.authenticator)
        verifyObject(IAgent, self.agent)
        self.assertIs(KIND.settings, HTTPSettings)
        self.assertEqual((KIND.name, KIND.directive, KIND.methods), ("http", "auth_http", frozenset(Method)))

    def test_certificate(self):
        """A client's certificate is told of, and sent whole with auth_http_pass_client_cert alone."""
        made = ClientCertificate("CN=joe", "CN=authority", "01", "ef", "joe", b"PEM")
        details = TLSDetails(verification="SUCCESS", certificate=made)
        client = Client("192.0.2.7", 4711, TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384"), details=details)
        for passes in (False, True):
            self.authenticator = self.make(self.agents, passesCertificate=passes)
            self.authenticate(evolve(REQUEST, client=client))
            asked = self.agent.asked[-1][2]
            self.assertIn(b"\r\nAuth-SSL-Verify: SUCCESS\r\nAuth-SSL-Subject: CN=joe\r\n", asked)
            self.assertEqual(b"\r\nAuth-SSL-Cert: PEM\r\n" in asked, passes)

    def test_accepted(self):
        """An acceptance is a route; nothing is logged."""
        judged = self.authenticate()
        self.assertNoResult(judged)
        method, uri, block, _ = self.agent.asked[0]
        self.assertEqual((method, uri), (b"GET", b"http://one:9000/auth?key=hush"))
        self.assertIn(b"Auth-User: joe\r\nAuth-Pass: sesame\r\n", block)
        self.agent.answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), ROUTE)
        self.assertEqual(self.log(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused(self):
        """A refusal is a denial, not an error, and does not make the service rest."""
        judged = self.authenticate()
        self.agent.answer("Auth-Status: Go away", "Auth-Wait: 3", "Auth-Server: 10.0.0.1")
        self.assertEqual(self.successResultOf(judged), Denial(Trouble.DENIED, b"Go away", wait=3))
        self.assertEqual(self.log(), [])

    def test_anyCode(self):
        """The HTTP status does not matter where there is an Auth-Status."""
        for code in (204, 301, 403, 404, 500, 503):
            judged = self.authenticate()
            self.agent.answer(*ACCEPTED, "Location: http://elsewhere/", code=code)
            self.assertEqual(self.successResultOf(judged), ROUTE)

    def test_noStatus(self):
        """Without Auth-Status, or with an empty one, nobody is let in, nor told that the password is wrong."""
        for fields in (ACCEPTED[1:], ("Auth-Status: ", *ACCEPTED[1:])):
            for code in (200, 500):
                judged = self.authenticate()
                self.agent.answer(*fields, code=code)
                self.assertEqual(self.successResultOf(judged), UNDECIDED)
                reason = f"failed while reading the response: {code} without Auth-Status"
                self.assertEqual(self.log(), [failed(reason)])

    def test_missingStatus(self):
        """With auth_http_missing_status accept that is an acceptance, as with nginx, but not of a 5xx; it is logged."""
        self.authenticator = self.make(self.agents, missingStatus="accept")
        for code in (200, 404):
            judged = self.authenticate()
            self.agent.answer(*ACCEPTED[1:], code=code)
            self.assertEqual(self.successResultOf(judged), ROUTE)
            self.assertEqual(self.log(), [failed("sent no Auth-Status: an acceptance", "noted")])
        judged = self.authenticate()
        self.agent.answer(*ACCEPTED[1:], code=500)
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        reason = "failed while reading the response: 500 without Auth-Status"
        self.assertEqual(self.log(), [failed(reason)])

    def test_emptyStatus(self):
        """An empty status then is a refusal in the protocol's words, and logged as well; another one is not."""
        self.authenticator = self.make(self.agents, missingStatus="accept")
        judged = self.authenticate()
        self.agent.answer("Auth-Status: ", *ACCEPTED[1:])
        self.assertEqual(self.successResultOf(judged), Denial(Trouble.DENIED, close=True))
        self.assertEqual(self.log(), [failed("sent no Auth-Status: a refusal", "noted")])
        self.authenticate()
        self.agent.answer(*ACCEPTED)
        self.assertEqual(self.log(), [])

    def test_errorPage(self):
        """What has neither a status nor a backend lets nobody in, even where there is a default backend."""
        self.authenticator = self.make(self.agents, Backend("mail.example.com", 143), missingStatus="accept")
        judged = self.authenticate()
        self.agent.answer("Content-Type: text/html", code=404)
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        self.assertIn(failed("did not send server or port"), self.log())

    def test_untellable(self):
        """A login that the service cannot be told of is refused, and nobody is asked."""
        self.authenticator = self.make(self.agents, escape="none")
        judged = self.authenticator.judge(evolve(REQUEST, credentials=Credentials(Method.PLAIN, b"joe", b"a\r\nb")))
        denial = Denial(Trouble.DENIED, reason="no header can carry it unescaped")
        self.assertEqual(self.successResultOf(judged), Judgement(denial, storable=False))
        self.assertEqual((self.agent.asked, self.log()), ([], []))

    def test_unusable(self):
        """An acceptance that leads nowhere is a temporary failure, and logged as nginx does."""
        for fields, reason, text in (
            ((), "did not send server or port", ""),
            (("Auth-Server: a b", "Auth-Port: 143"), "sent an invalid server address", ', text "a b"'),
            (("Auth-Server: a", "Auth-Port: x"), "sent an invalid server port", ', text "x"'),
        ):
            judged = self.authenticate()
            self.agent.answer("Auth-Status: OK", *fields)
            self.assertEqual(self.successResultOf(judged), UNDECIDED)
            self.assertEqual(self.log(), [failed(reason) + text])

    def test_noPassword(self):
        """A digest without Auth-Pass is a temporary failure in IMAP."""
        judged = self.authenticate(evolve(REQUEST, credentials=Credentials(Method.CRAM_MD5, b"joe", b"d", b"<s>")))
        self.agent.answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        self.assertEqual(self.log(), [failed("did not send password")])

    def test_default(self):
        """The default backend serves accounts for which none is named."""
        default = Backend("mail.example.com", 143)
        self.authenticator = self.make(self.agents, default)
        judged = self.authenticate()
        self.agent.answer("Auth-Status: OK", "Auth-User: ann")
        self.assertEqual(self.successResultOf(judged), Route((default,), b"ann", b"sesame"))

    def test_configuredHeaders(self):
        """The operator's headers go with every request."""
        self.authenticator = self.make(self.agents, headers=((b"X-Key", b"hush"),))
        self.authenticate()
        self.assertTrue(self.agent.asked[0][2].endswith(b"\r\nX-Key: hush\r\n"))

    def test_defect(self):
        """What is no failure of a service is not taken for one: it comes out as it is."""
        judged = self.authenticate()
        self.agent.fail(ZeroDivisionError())
        self.failureResultOf(judged, ZeroDivisionError)


class WaitTests(AuthenticatorTestCase):
    """A service that has not made up its mind."""

    urls = "http://one:9000/auth"

    def setUp(self):
        super().setUp()
        (self.agent,) = self.agents

    def test_askedAgain(self):
        """After Auth-Wait seconds the same is asked again, the attempt not counted, until the answer is another."""
        judged = self.authenticate()
        for asked in (1, 2):
            self.agent.answer("Auth-Status: WAIT", "Auth-Wait: 5")
            self.clock.advance(4.9)
            self.assertEqual(len(self.agent.asked), asked)
            self.clock.advance(0.1)
            self.assertEqual(len(self.agent.asked), asked + 1)
        self.assertEqual(len({block for _, _, block, _ in self.agent.asked}), 1)
        self.assertNoResult(judged)
        self.agent.answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), ROUTE)

    def test_notHammered(self):
        """Without Auth-Wait a second passes."""
        self.authenticate()
        self.agent.answer("Auth-Status: WAIT")
        self.assertEqual(len(self.agent.asked), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.agent.asked), 2)

    def test_storable(self):
        """What came after WAIT, acceptance or refusal, is not to be given again; what came at once may be."""
        for answer, judgement in ((ACCEPTED, ROUTE), (("Auth-Status: no",), Denial(Trouble.DENIED, b"no", close=True))):
            judged = self.authenticator.judge(REQUEST)
            self.agent.answer(*answer)
            self.assertEqual(self.successResultOf(judged), Judgement(judgement, storable=True))
            judged = self.authenticator.judge(REQUEST)
            self.agent.answer("Auth-Status: WAIT")
            self.clock.advance(1)
            self.agent.answer(*answer)
            self.assertEqual(self.successResultOf(judged), Judgement(judgement, storable=False))

    def test_cancelled(self):
        """Who cancels during the pause is not asked about again."""
        judged = self.authenticate()
        self.agent.answer("Auth-Status: WAIT", "Auth-Wait: 5")
        judged.cancel()
        self.failureResultOf(judged, CancelledError)
        self.clock.advance(5)
        self.assertEqual(len(self.agent.asked), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CacheTests(AuthenticatorTestCase):
    """A service with a cache before it."""

    urls = "http://one:9000/auth"

    def make(self, agents, default=None, **others):
        """An authenticator with a cache of a minute before it."""
        asking = super().make(agents, default, **others)
        return CachedAuthenticator(asking, self.clock, 60.0, 65536, ("imap", ()), lambda n: bytes(n), NGINX.told)

    def setUp(self):
        super().setUp()
        (self.agent,) = self.agents

    def judged(self, *fields):
        """The answer, which the service, if it is asked, gives by C{fields}; and how often it has been asked."""
        judged = self.authenticate()
        if not judged.called:
            self.agent.answer(*fields)
        return self.successResultOf(judged), len(self.agent.asked)

    def test_accepted(self):
        """An acceptance is asked for once a minute, whatever the password that the service sends."""
        for password in ((), ("Auth-Pass: sesame",), ("Auth-Pass: master",)):
            self.agent.asked.clear()
            answer, _ = self.judged(*ACCEPTED, *password)
            self.assertEqual(self.judged(), (answer, 1))
            self.clock.advance(60)
            self.assertEqual(self.judged("Auth-Status: no")[1], 2)
            self.clock.advance(60)

    def test_refused(self):
        """A refusal is given again with its text, its code and its pause."""
        refusal = Denial(Trouble.DENIED, b"no", b"550", 3)
        self.assertEqual(self.judged("Auth-Status: no", "Auth-Wait: 3", "Auth-Error-Code: 550"), (refusal, 1))
        self.assertEqual(self.judged(), (refusal, 1))

    def test_undecided(self):
        """A failure of the service, and an answer of no use, are not given again."""
        self.assertEqual(self.judged("X: y"), (UNDECIDED, 1))
        self.assertEqual(self.judged("Auth-Status: OK"), (UNDECIDED, 2))
        self.assertEqual(self.judged(*ACCEPTED), (ROUTE, 3))
        self.assertEqual(len(self.log()), 3)

    def test_wait(self):
        """What came after WAIT is asked for again."""
        judged = self.authenticate()
        self.agent.answer("Auth-Status: WAIT")
        self.clock.advance(1)
        self.agent.answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), ROUTE)
        self.assertEqual(self.judged("Auth-Status: no")[1], 3)

    def test_cancelled(self):
        """When all who ask the same have left the service is not asked any more."""
        joined = [self.authenticate(), self.authenticate()]
        for each in joined:
            self.assertEqual(self.agent.cancelled, 0)
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertEqual((len(self.agent.asked), self.agent.cancelled), (1, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.log(), [])


class FailoverTests(AuthenticatorTestCase):
    """Several services, some of which fail."""

    def setUp(self):
        super().setUp()
        self.one, self.two = self.agents

    def asked(self):
        """How often each service has been asked."""
        return tuple(len(agent.asked) for agent in self.agents)

    def failFirst(self):
        """A login whose first service fails and whose second accepts."""
        judged = self.authenticate()
        self.one.fail(ResponseFailed([]))
        self.two.answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), ROUTE)
        return self.log()

    def test_firstAlone(self):
        """Where the first answers, be it with a refusal, the second is not asked."""
        judged = self.authenticate()
        self.one.answer("Auth-Status: no")
        self.assertIs(self.successResultOf(judged).trouble, Trouble.DENIED)
        self.assertEqual(self.asked(), (1, 0))

    def test_second(self):
        """Where it fails, the second is asked the same within the same login; that is logged, without the query."""
        (logged,) = self.failFirst()
        self.assertIn(", auth http server http://one:9000/auth failed ", logged)
        self.assertNotIn("?", logged)
        self.assertEqual(self.one.asked[0][2], self.two.asked[0][2])
        self.assertEqual(self.two.asked[0][1], b"https://two/auth")

    def test_rest(self):
        """The one that failed is passed over for REST seconds, and asked first again after that."""
        self.failFirst()
        self.clock.advance(REST - 0.1)
        self.authenticate()
        self.assertEqual(self.asked(), (1, 2))
        self.clock.advance(0.1)
        self.authenticate()
        self.assertEqual(self.asked(), (2, 2))

    def test_allRest(self):
        """Where all rest, all are asked nevertheless; the one that answers rests no more."""
        judged = self.authenticate()
        self.one.fail(ResponseFailed([]))
        self.two.answer("X: y")
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        self.assertEqual(len(self.log()), 2)
        judged = self.authenticate()
        self.assertEqual(self.asked(), (2, 1))
        self.one.answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), ROUTE)
        self.authenticate()
        self.assertEqual(self.asked(), (3, 1))

    def test_noAuthStatus(self):
        """A service that answers without Auth-Status has failed."""
        self.authenticate()
        self.one.answer("Server: down", code=502)
        self.assertEqual(self.asked(), (1, 1))

    def test_timeout(self):
        """Each has the whole of auth_http_timeout; one that is too slow is given up, and named."""
        judged = self.authenticate()
        self.clock.advance(59.9)
        self.assertEqual((self.asked(), self.one.cancelled), ((1, 0), 0))
        self.clock.advance(0.1)
        self.assertEqual((self.asked(), self.one.cancelled), ((1, 1), 1))
        self.clock.advance(60)
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        reason = "failed while asking: timed out after 60 seconds, it is passed over for 10 s"
        self.assertEqual(self.log()[0], failed(reason))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lastMoment(self):
        """An answer that comes as the time runs out is an answer."""
        self.one._cancel = lambda answer: self.one.answer(*ACCEPTED)
        judged = self.authenticate()
        self.clock.advance(60)
        self.assertEqual(self.successResultOf(judged), ROUTE)
        self.assertEqual((self.asked(), self.log()), ((1, 0), []))

    def test_cancelled(self):
        """Who cancels is not asked about any more, and the service is not blamed."""
        judged = self.authenticate()
        judged.cancel()
        self.failureResultOf(judged, CancelledError)
        self.assertEqual((self.asked(), self.one.cancelled), ((1, 0), 1))
        self.assertEqual(self.log(), [])
        self.authenticate()
        self.assertEqual(self.asked(), (2, 0))


class WireTests(AuthenticatorTestCase):
    """The authenticator over our own agent and a fake endpoint."""

    urls = "http://127.0.0.1:9000/auth?key=hush"

    def setUp(self):
        super().setUp()
        self.endpoint = FakeEndpoint()
        self.authenticator = self.make([self.agent()])

    def agent(self, **others):
        """Our agent."""
        return KeepAliveAgent(self.endpoint, self.clock, b"127.0.0.1", b"/auth?key=hush", cooling=0.0, **others)

    def test_exact(self):
        """What is sent is the request that nginx sends, but for the version, and no header more."""
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
        """Two logins go over one connection; a cookie of the first is not sent with the second, nor anything else."""
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
        """Closing the authenticator closes what is kept."""
        self.test_kept()
        self.authenticator.close()
        self.assertTrue(self.endpoint.connections[0].transport.aborting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_phases(self):
        """A time-out says in which phase it came."""
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
        """A server that sends a byte now and then is not waited for longer."""
        judged = self.authenticate()
        connection = self.endpoint.accept()
        for byte in b"HTTP/1.1 200 OK\r\n":
            connection.dataReceived(bytes([byte]))
            self.clock.advance(4)
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        self.assertTrue(connection.transport.aborting)

    def test_garbage(self):
        """What is no HTTP is a temporary failure; nothing of it is logged."""
        judged = self.authenticate()
        self.endpoint.accept().dataReceived(b"sesame\r\n")
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        self.assertEqual(len(self.log()), 1)

    def test_refusedConnection(self):
        """A port where nobody listens is a temporary failure."""
        judged = self.authenticate()
        self.endpoint.refuse()
        self.assertEqual(self.successResultOf(judged), UNDECIDED)
        self.assertIn("failed while connecting: it refused the connection", self.log()[0])

    def test_cancelled(self):
        """Cancelling aborts the connection that the answer is awaited on."""
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
        """The answer by way of C{service}."""
        self.authenticator = self.make([RequestTraversalAgent(service)])
        return self.successResultOf(self.authenticate())

    def test_accepted(self):
        """A resource can answer, and is asked what it should be."""
        service = Service(ACCEPTED)
        self.assertEqual(self.ask(service), ROUTE)
        ((uri, asked),) = service.requests
        self.assertEqual(uri, b"/auth?key=hush")
        self.assertEqual(asked.getRawHeaders(b"Client-IP"), [b"192.0.2.7"])

    def test_redirect(self):
        """A redirect is not followed: the credentials are asked about once, at the place that was named."""
        service = Service(["Location: http://elsewhere.example/"], 302)
        self.assertEqual(self.ask(service), UNDECIDED)
        self.assertEqual(len(service.requests), 1)
        self.assertIn("302 without Auth-Status", self.log()[0])

    def test_noCookies(self):
        """A cookie that one login is given is not sent with the next."""
        service = Service([*ACCEPTED, "Set-Cookie: joe=1; Path=/"])
        self.assertEqual(self.ask(service), ROUTE)
        self.assertEqual(self.successResultOf(self.authenticate()), ROUTE)
        self.assertEqual([asked.hasHeader(b"Cookie") for _, asked in service.requests], [False, False])

    def test_slow(self):
        """With an agent that does not know phases, slowness is a failure too."""

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
        """The body is read, lest an agent that waits for that keep its connection."""
        delivered = []

        @implementer(IResponse)
        class Held(HTTPResponse):
            def deliverBody(self, protocol):
                delivered.append(protocol)

        agent = FakeAgent()
        self.authenticator = self.make([agent])
        judged = self.authenticate()
        agent.asked[0][3].callback(Held(ResponseHead(1, 200, b"", ((b"Auth-Status", b"no"),)), None))
        self.successResultOf(judged)
        self.assertEqual(len(delivered), 1)
        delivered[0].dataReceived(b"whatever")


class BuildTests(SynchronousTestCase):
    """What is built for a server."""

    def connect(self, url):
        """Ask by way of C{url}; gives the reactor."""
        reactor = MemoryReactorClock()
        authenticator = KIND.build(server(settings(url, timeout=7.0)), None, reactor, Journal())
        authenticator.authenticate(REQUEST)
        return reactor

    def logins(self, requests=(REQUEST,) * 3, **others):
        """How often the service is asked, where C{requests} are judged with settings C{others}."""
        reactor = MemoryReactorClock()
        authenticator = KIND.build(server(settings(**others)), None, reactor, Journal())
        verifyObject(IAuthenticator, authenticator)
        for request in requests:
            authenticator.authenticate(request)
        return len(reactor.tcpClients)

    def foundOut(self, server):
        """What is found out of a connection by TLS where a login at C{server} is judged."""
        authenticator = KIND.build(server, None, MemoryReactorClock(), Journal())
        secure = evolve(REQUEST.client, tls=TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
        return askedOf(secure, lambda client: authenticator.authenticate(evolve(REQUEST, client=client)))

    def test_foundOut(self):
        """What the headers tell of a connection is found out, a preset's headers too, and nothing else."""
        headers = ((b"A", b"$ssl_server_name"), (b"B", b"$session_id"))
        for others, found in (({}, []), ({"headers": headers}, ["details"]), ({"preset": "mailu"}, ["local"])):
            for ttl in (0.0, 60.0):
                self.assertEqual(self.foundOut(server(settings(cacheTTL=ttl, **others))), found)

    def test_verified(self):
        """At a server that verifies clients it is found out what they have shown."""
        for ttl in (0.0, 60.0):
            verifying = server(settings(cacheTTL=ttl), TLSSettings(verifyClient="on"))
            self.assertEqual(self.foundOut(verifying), ["details"])

    def test_cachedHeaders(self):
        """With the cache a client is asked about again where it comes to another port, not where it comes from one."""
        for changed, asked in (({"port": 4712, "session": "8"}, 1), ({"localPort": 25}, 2)):
            again = evolve(REQUEST, client=evolve(REQUEST.client, **changed))
            self.assertEqual(self.logins((REQUEST, again), cacheTTL=60.0, preset="nauthilus"), asked)

    def test_cache(self):
        """There is a cache where auth_cache_ttl is given; by default there is none."""
        self.assertEqual(self.logins(), 3)
        self.assertEqual(self.logins(cacheTTL=0.0), 3)
        self.assertEqual(self.logins(cacheTTL=0.5), 1)

    def test_tcp(self):
        """An address is connected to at its port, within the time-out."""
        for url, place in (("http://127.0.0.1:9000/", ("127.0.0.1", 9000)), ("https://[::1]/", ("::1", 443))):
            (client,) = self.connect(url).tcpClients
            self.assertEqual((client[:2], client[3]), (place, 7.0))

    def test_unix(self):
        """A unix socket is connected to by its path."""
        (client,) = self.connect("unix:/run/auth.sock:/a").unixClients
        self.assertEqual(client[0], "/run/auth.sock")

    def test_keepalive(self):
        """Unless auth_http_keepalive is off HTTP/1.1 is spoken."""
        for changes, version in (({}, b"1.1"), ({"keepalive": "on"}, b"1.1"), ({"keepalive": "off"}, b"1.0")):
            reactor = MemoryReactorClock()
            authenticator = KIND.build(server(settings(**changes)), None, reactor, Journal())
            authenticator.authenticate(REQUEST)
            transport = StringTransport()
            reactor.tcpClients[0][2].buildProtocol(None).makeConnection(transport)
            self.assertTrue(transport.value().partition(b"\r\n")[0].endswith(b" HTTP/" + version))


def certificate(names, issuer=None):
    """A certificate for C{names}, by C{issuer} or, as a CA, by itself: it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test" if issuer else "test CA")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


class RecordingServer(Protocol):
    """A server that accepts every login, and records what it is sent."""

    def dataReceived(self, data):
        self.factory.received += data
        if self.factory.received.endswith(b"\r\n\r\n"):
            self.transport.write("\r\n".join(["HTTP/1.1 200 OK", *ACCEPTED, "Content-Length: 0", "", ""]).encode())

    def connectionLost(self, reason):
        self.factory.ended.callback(None)


class PlainServer(Protocol):
    """A server that answers TLS in the clear, as web servers do."""

    def dataReceived(self, data):
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.transport.loseConnection()


class TLSTests(TestCase):
    """The authenticator over real TLS."""

    def connecting(self, reactor):
        """What connects to the service."""
        return reactor

    def setUp(self):
        self.authority = certificate(None)
        self.trusted = self.mktemp()
        with open(self.trusted, "wb") as opened:
            opened.write(self.authority[0].public_bytes(Encoding.PEM))
        self.events = []

    @inlineCallbacks
    def ask(self, names, **others):
        """The answer by way of a server whose certificate is for C{names}; its factory."""
        from twisted.internet import reactor

        leaf, key = certificate(names, self.authority)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + leaf.public_bytes(Encoding.PEM)
        factory = Factory.forProtocol(RecordingServer)
        factory.received, factory.ended = b"", Deferred()
        port = reactor.listenSSL(0, factory, PrivateCertificate.loadPEM(pem).options(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        group = settings(f"https://127.0.0.1:{port.getHost().port}/auth", timeout=10.0, **others)
        authenticator = KIND.build(
            server(group), None, self.connecting(reactor), Journal(LogLevel.error, self.events.append)
        )
        answer = yield authenticator.authenticate(REQUEST)
        authenticator.close()
        yield factory.ended
        return answer, factory

    @inlineCallbacks
    def test_verified(self):
        """A certificate for the right name, of a CA that is trusted, is accepted."""
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        answer, factory = yield self.ask(names, trusted=self.trusted)
        self.assertEqual(answer, ROUTE)
        self.assertIn(b"Auth-Pass: sesame\r\n", factory.received)

    @inlineCallbacks
    def assertNotAsked(self, names, **others):
        """The server is not trusted: it learns nothing, and the log says that the handshake has failed."""
        answer, factory = yield self.ask(names, **others)
        self.assertEqual(answer, UNDECIDED)
        self.assertEqual(factory.received, b"")
        (event,) = self.events
        self.assertIn("/auth failed while shaking hands for TLS: ", formatEvent(event))
        self.assertNotIn("sesame", formatEvent(event))

    @inlineCallbacks
    def test_wrongName(self):
        """A certificate for another name is not accepted, and the log says which it has."""
        yield self.assertNotAsked([x509.DNSName("other.example")], trusted=self.trusted)
        told = 'its certificate is for another name: it is good for "other.example", and we asked for "127.0.0.1": '
        self.assertIn(f"while shaking hands for TLS: {told}", formatEvent(self.events[0]))

    @inlineCallbacks
    def test_unknownAuthority(self):
        """Nor is one of a CA that is not trusted; the log says which, and where to name it."""
        yield self.assertNotAsked([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        told = r'its certificate is issued by "CN=[^"]+", which is not trusted: name that in auth_http_ssl_trusted_cert'
        self.assertRegex(formatEvent(self.events[0]), f"while shaking hands for TLS: {told}")

    @inlineCallbacks
    def test_noTLS(self):
        """A service that speaks no TLS is told from one whose certificate is not good."""
        from twisted.internet import reactor

        port = reactor.listenTCP(0, Factory.forProtocol(PlainServer), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        group = settings(f"https://127.0.0.1:{port.getHost().port}/auth", timeout=10.0)
        journal = Journal(LogLevel.error, self.events.append)
        authenticator = KIND.build(server(group), None, self.connecting(reactor), journal)
        self.assertEqual((yield authenticator.authenticate(REQUEST)), UNDECIDED)
        authenticator.close()
        told = "wrong version number: this port speaks no TLS; perhaps it takes http:, and not https:"
        self.assertIn(f"while shaking hands for TLS: {told}", formatEvent(self.events[0]))

    @inlineCallbacks
    def test_unverified(self):
        """With auth_http_ssl_verify off any certificate is."""
        answer, _ = yield self.ask([x509.DNSName("other.example")], verify=False)
        self.assertEqual(answer, ROUTE)


class LeanTLSTests(TLSTests):
    """The same over lean transports."""

    def connecting(self, reactor):
        return LeanReactor(reactor)
