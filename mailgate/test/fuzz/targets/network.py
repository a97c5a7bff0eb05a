"""
What comes before and beside the mail protocols: PROXY headers, ClientHellos, answers of HTTP services and name servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from twisted.names import dns

from mailgate.auth.http.exchange import Unusable, Wait, route, verdict
from mailgate.auth.http.headers import valuesOf
from mailgate.auth.http.response import MAX_HEAD, MAX_LINE, ProtocolError, ResponseParser, Stage
from mailgate.login import Backend, Client, Credentials, Denial, LoginRequest, Method, fitForWire
from mailgate.net.dns import _Question
from mailgate.net.proxyprotocol import MOST_BYTES, HeaderError, HeaderParser
from mailgate.test.auth.http.test_response import CHUNKED, COUNTED
from mailgate.test.fuzz.frame import Target, mutations
from mailgate.test.support.proxyheaders import BINARY4, BINARY6, SIGNATURE, TEXT4, TEXT6, WITH_TLVS
from mailgate.test.tls.test_clienthello import OFFER, extension, identitiesExtension, records, ticketExtension
from mailgate.tls.clienthello import LIMIT, ClientHello

__all__ = ["TARGETS"]

_FIRST_BYTES = 16


def _proxy(pieces: Sequence[bytes]) -> Any:
    """The addresses of a header, and the bytes behind it; or the error."""
    parser = HeaderParser()
    for number, piece in enumerate(pieces):
        try:
            header = parser.feed(piece)
        except HeaderError as error:
            return str(error)
        if header is not None:
            return header.addresses, header.rest + b"".join(pieces[number + 1 :])
        assert len(parser._received) <= MOST_BYTES + _FIRST_BYTES, "more is kept than the longest header"
    return None


def _clientHello(pieces: Sequence[bytes]) -> Any:
    """The tickets of a ClientHello, and whether more bytes are needed."""
    hello = ClientHello()
    for piece in pieces:
        if hello.feed(piece):
            return True, hello.tickets
        assert len(hello.received) < LIMIT, "more is kept than the longest ClientHello"
    return False, hello.tickets


def _response(pieces: Sequence[bytes]) -> Any:
    """The head of a response of HTTP, and whether its connection can be used again; or the error."""
    parser, response = ResponseParser(), None
    for piece in pieces:
        try:
            response = parser.feed(piece) or response
        except ProtocolError as error:
            return type(error)
        if parser.stage is Stage.HEAD:
            assert len(parser._buffer) <= MAX_HEAD + MAX_LINE + len(piece), "the buffer is longer than its limit"
    facts = response and (response.version, response.code, response.phrase, dict(valuesOf(response.headers)))
    return facts, parser.stage, parser.surplus


def _judged(pieces: Sequence[bytes]) -> Any:
    """What an authentication service decides: a refusal, a pause, or a route whose texts fit into a line."""
    (data,) = pieces
    response = None
    with suppress(ProtocolError):
        response = ResponseParser().feed(data)
    if response is None:
        return None
    values = valuesOf(response.headers)
    for method in (Method.PLAIN, Method.XOAUTH2, Method.CRAM_MD5):
        credentials = Credentials(method, b"joe", b"sesame", authzid=b"ann")
        request = LoginRequest("imap", credentials, Client("192.0.2.7"))
        judged = verdict(request, values)
        if judged is not None:
            assert isinstance(judged, Denial | Wait)
            continue
        with suppress(Unusable):
            found = route(request, values, Backend("192.0.2.99", 143))
            assert found.backends and fitForWire(found.user, found.password, found.authzid)
    return None


def _answer(pieces: Sequence[bytes]) -> Any:
    """Whether a message of DNS is the answer to a query."""
    (data,) = pieces
    question = _Question(dns.Query(b"mail.example.com", dns.A, dns.IN), lambda message: True)
    question._id = int.from_bytes(_ANSWER[:2], "big")
    question.received(data, ("192.0.2.53", 53))
    found: list[Any] = []
    question.answered.addBoth(found.append)
    return len(found)


def _made() -> bytes:
    """An answer with two addresses."""
    message = dns.Message(4711, answer=1)
    message.queries = [dns.Query(b"mail.example.com", dns.A, dns.IN)]
    message.answers = [
        dns.RRHeader(b"mail.example.com", dns.A, dns.IN, 60, dns.Record_A(f"192.0.2.{number}", 60)) for number in (1, 2)
    ]
    encoded: bytes = message.toStr()
    return encoded


_ANSWER = _made()
_STATUS = b"HTTP/1.1 200 OK\r\n"

TARGETS = (
    Target(
        "proxy",
        _proxy,
        mutations(
            (TEXT4, TEXT6, BINARY4 + b"EHLO x\r\n", BINARY6, WITH_TLVS),
            (
                b"PROXY ",
                b"TCP4",
                b"UNKNOWN",
                b" ",
                b"192.0.2.1",
                b"::1",
                b"65535",
                b"\r\n",
                SIGNATURE,
                b"\x21\x11",
                b"\0",
            ),
        ),
        150,
    ),
    Target(
        "clienthello",
        _clientHello,
        mutations(
            (records(OFFER), records(OFFER, 50), records(b"\1\0\0\2ab")),
            (b"\x16\3\1", b"\0", b"\xff\xff", extension(35, b""), ticketExtension(b"old"), identitiesExtension(b"new")),
        ),
        150,
    ),
    Target(
        "http",
        _response,
        mutations(
            (COUNTED, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + COUNTED, b"HTTP/1.0 500 Oops\r\n\r\nbody"),
            (
                *(_STATUS, b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
                *(
                    b"Auth-Status: OK\r\n",
                    b"\r\n",
                    b"\n",
                    b":",
                    b" ",
                    b"\0",
                    b"ffffffff\r\n",
                    b"x" * 5000,
                    b"0\r\n\r\n",
                ),
            ),
        ),
        150,
    ),
    Target(
        "authanswer",
        _judged,
        mutations(
            (
                _STATUS + b"Auth-Status: OK\r\nAuth-Server: 192.0.2.1\r\nAuth-Port: 143\r\nAuth-User: ann\r\n\r\n",
                _STATUS + b"Auth-Status: no\r\nAuth-Wait: 3\r\nAuth-Error-Code: 451 4.3.0\r\n\r\n",
                _STATUS + b"Auth-Status: OK\r\nAuth-Upstream: x\r\nAuth-Proxy-SSL: on\r\nAuth-Pass: y\r\n\r\n",
                _STATUS + b"Auth-Status: OK\r\nAuth-Proxy-Method: plain\r\nAuth-Session-Timeout: 60\r\n\r\n",
            ),
            (
                *(b"Auth-Status: ", b"Auth-Server-Next: 192.0.2.3:143", b"Auth-Proxy-Forward: a=b", b"\r\n", b"\n"),
                *(
                    b"Auth-Authzid: ann",
                    b"Auth-Proxy-SSL-Pin: sha256//",
                    b"Auth-Proxy-SSL-Name: ",
                    b"Auth-Error-SASL: e30=",
                ),
                *(b"Auth-Proxy-Hold: ", b"unix:/x", b"[::1]:143", b"99999999999999999999", b"OK", b"%", b"\xff", b"\0"),
            ),
        ),
        100,
        False,
    ),
    Target("dns", _answer, mutations((_ANSWER,), (b"\xc0\x0c", b"\0", b"\xff", b"\4mail", _ANSWER[:12])), 150, False),
)
