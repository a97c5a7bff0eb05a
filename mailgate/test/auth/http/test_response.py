"""
Tests for L{mailgate.auth.http.response}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.http.response import MAX_BODY, MAX_HEAD, MAX_LINE, ProtocolError, ResponseParser, Stage

COUNTED = b"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nAuth-Status: OK\r\n\r\n"
    b"5;x=y\r\nhello\r\n0A \r\n0123456789\r\n0\r\nTrailer: yes\r\n\r\n"
)


class Reader(ResponseParser):
    """A parser that keeps the response."""

    response = None

    def feed(self, data):
        complete = super().feed(data)
        if complete is not None:
            assert self.response is None, "a head was complete twice"
            self.response = complete
        return complete


def parse(*pieces):
    """Return a parser after feeding C{pieces}."""
    parser = Reader()
    for piece in pieces:
        parser.feed(piece)
    return parser


def facts(response):
    """Return all that a response says."""
    return response.version, response.code, response.phrase, response.headers.values


def withHeaders(*lines):
    """Return a response head with C{lines}."""
    return b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b""])


class HeadTests(SynchronousTestCase):
    """Valid heads."""

    def test_read(self):
        """A head has its version, code, phrase, and the values of its fields in their order, by name in lower case."""
        response = parse(b"HTTP/1.1 404 Not Found\r\nauth-STATUS: OK\r\nX: 1\r\nX: 2\r\n\r\n").response
        values = {b"auth-status": (b"OK",), b"x": (b"1", b"2")}
        self.assertEqual(facts(response), ((b"HTTP", 1, 1), 404, b"Not Found", values))

    def test_noSecretShown(self):
        """The representation of a head has no values: one may be a password."""
        response = parse(withHeaders(b"Auth-Status: OK", b"Auth-Pass: secret")).response
        self.assertNotIn("secret", repr(response) + repr(response.headers))
        self.assertIn("auth-pass", repr(response.headers))

    def test_manyOfOne(self):
        """A name may occur as often as fits into a head, in any case; its values keep their order."""
        lines = [b"%b: %d" % (name, number) for number, name in enumerate((b"X", b"x", b"y", b"X") * 1000)]
        values = parse(withHeaders(*lines)).response.headers.values
        self.assertEqual(list(values), [b"x", b"y"])
        self.assertEqual(values[b"x"], tuple(b"%d" % number for number in range(4000) if number % 4 != 2))

    def test_cutAnywhere(self):
        """A response can be split anywhere, and its head is complete with its last byte."""
        for whole in (COUNTED, CHUNKED):
            expected = parse(whole)
            self.assertIs(expected.stage, Stage.WHOLE)
            end = whole.index(b"\r\n\r\n") + 4
            for cut in range(len(whole) + 1):
                parser = parse(whole[:cut])
                self.assertEqual(parser.response is not None, cut >= end)
                parser.feed(whole[cut:])
                self.assertEqual((facts(parser.response), parser.stage), (facts(expected.response), Stage.WHOLE))

    def test_byteByByte(self):
        """A response can arrive byte by byte."""
        parser = parse(*[bytes([byte]) for byte in CHUNKED])
        self.assertEqual((facts(parser.response), parser.stage), (facts(parse(CHUNKED).response), Stage.WHOLE))

    def test_bareLF(self):
        """A bare LF ends a line, in a head and among chunks."""
        for whole in (COUNTED, CHUNKED):
            parser = parse(whole.replace(b"\r\n", b"\n"))
            self.assertEqual((facts(parser.response), parser.stage), (facts(parse(whole).response), Stage.WHOLE))

    def test_spaces(self):
        """Spaces around a value are removed, tabs stay, as in nginx."""
        values = parse(withHeaders(b"A:  x y  ", b"B:\tz", b"C:", b"D: ")).response.headers.values
        self.assertEqual(values, {b"a": (b"x y",), b"b": (b"\tz",), b"c": (b"",), b"d": (b"",)})

    def test_noColon(self):
        """A line without a colon is a header without a value, as in nginx."""
        values = parse(withHeaders(b"Auth-Status", b"A: b")).response.headers.values
        self.assertEqual(values, {b"auth-status": (b"",), b"a": (b"b",)})

    def test_noPhrase(self):
        """The phrase may be missing, with or without its space."""
        for line in (b"HTTP/1.1 204", b"HTTP/1.1 204 "):
            self.assertEqual(facts(parse(line + b"\r\n\r\n").response), ((b"HTTP", 1, 1), 204, b"", {}))

    def test_informational(self):
        """Responses of 1xx are skipped, wherever they are split."""
        whole = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + COUNTED
        for cut in range(len(whole)):
            parser = parse(whole[:cut], whole[cut:])
            self.assertEqual((facts(parser.response), parser.stage), (facts(parse(COUNTED).response), Stage.WHOLE))

    def test_untouched(self):
        """C{untouched} is false after the first byte, also of a response of 1xx."""
        self.assertTrue(parse().untouched)
        self.assertFalse(parse(b"H").untouched)
        self.assertFalse(parse(b"HTTP/1.1 100 Continue\r\n\r\n").untouched)
        self.assertFalse(parse(COUNTED).untouched)


class FaultyHeadTests(SynchronousTestCase):
    """Invalid or too long heads."""

    def assertRefused(self, whole):
        """Check that C{whole} is rejected, in one piece and byte by byte."""
        self.assertRaises(ProtocolError, parse, whole)
        self.assertRaises(ProtocolError, parse, *[bytes([byte]) for byte in whole])

    def test_notHTTP(self):
        """Bytes that do not begin like HTTP/1.x are rejected at the first wrong byte."""
        for start in (b"S", b"HTTP/2", b"HTTP/1.1"[:6] + b"X", b"\r", b"http/1", b"\x15\x03"):
            self.assertRefused(start)

    def test_statusLine(self):
        """An invalid status line is rejected."""
        for rest in (b"1", b"1 ", b"1 20", b"1 2000 OK", b"x 200 OK", b"1  200", b"1 099"):
            self.assertRefused(b"HTTP/1." + rest + b"\r\n\r\n")

    def test_switchingProtocols(self):
        """A status of 101 is rejected."""
        self.assertRefused(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")

    def test_fieldNames(self):
        """The name of a header is a token: no space before the colon, no folded line."""
        for line in (b"Auth-Status : OK", b" folded", b"\tfolded", b": x", b"A(b): c", "Ä: x".encode()):
            self.assertRefused(withHeaders(b"X: y", line))

    def test_controlCharacters(self):
        """CR is rejected in a value and in the phrase. A NUL in a value is left to the reader of the value."""
        self.assertRefused(withHeaders(b"Auth-Pass: a\rAuth-User: b"))
        self.assertEqual(parse(withHeaders(b"Auth-Status: a\0b")).response.headers.values, {b"auth-status": (b"a\0b",)})
        self.assertRefused(b"HTTP/1.1 200 a\0b\r\n\r\n")

    def test_contentLength(self):
        """A Content-Length that is no number, or two different ones, is rejected."""
        self.assertRefused(withHeaders(b"Content-Length"))
        for value in (b"x", b"-1", b"+1", b"", b"1 2", b"1, 2", b"9" * 16):
            self.assertRefused(withHeaders(b"Content-Length: " + value))
        self.assertRefused(withHeaders(b"Content-Length: 1", b"Content-Length: 2"))

    def test_longestLine(self):
        """A line may have MAX_LINE bytes and no more, complete or not."""
        line = b"A: " + b"x" * (MAX_LINE - 4)
        (values,) = parse(withHeaders(line, line)).response.headers.values.values()
        self.assertEqual(len(values), 2)
        self.assertRaises(ProtocolError, parse, withHeaders(b"B: c", line + b"x"))
        self.assertRaises(ProtocolError, parse, withHeaders(b"B: c", line + b"x")[:-3])
        self.assertRaises(ProtocolError, parse, b"HTTP/1.1 200 " + b"x" * MAX_LINE)

    def test_longestLineInPieces(self):
        """The length of a line does not depend on the pieces in which the head arrives."""
        whole = withHeaders(*[b"A: " + b"x" * 996] * 18)
        self.assertGreater(len(whole), MAX_LINE)
        for size in (997, 6000, MAX_LINE, MAX_LINE + 1):
            pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
            self.assertIsNotNone(parse(*pieces).response, size)
        tooLong = withHeaders(b"B: c", b"A: " + b"x" * MAX_LINE)
        self.assertRaises(ProtocolError, parse, *[tooLong[at : at + 997] for at in range(0, len(tooLong), 997)])

    def test_longestHead(self):
        """A head may have MAX_HEAD bytes and no more, complete or not; those of 1xx are counted."""
        line = b"A: " + b"x" * 1000
        empty = len(withHeaders(b"B: "))
        lines = [line] * ((MAX_HEAD - empty) // (len(line) + 2))
        room = MAX_HEAD - empty - len(lines) * (len(line) + 2)
        whole = withHeaders(*lines, b"B: " + b"x" * room)
        self.assertEqual(len(whole), MAX_HEAD)
        self.assertIsNotNone(parse(whole).response)
        longer = withHeaders(*lines, b"B: " + b"x" * (room + 1))
        self.assertRaises(ProtocolError, parse, longer)
        self.assertRaises(ProtocolError, parse, *[longer[at : at + 999] for at in range(0, len(longer), 999)])
        self.assertRaises(ProtocolError, parse, longer[:-4] + b"xxxxxx")
        self.assertRaises(ProtocolError, parse, b"HTTP/1.1 100 Continue\r\n\r\n" + whole)

    def test_endlessInformational(self):
        """Endless responses of 1xx are rejected."""
        once = b"HTTP/1.1 100 Continue\r\n\r\n"
        self.assertRaises(ProtocolError, parse, *[once] * (MAX_HEAD // len(once) + 1))


class FramingTests(SynchronousTestCase):
    """Where a body ends, and whether the connection can be used after it."""

    def assertStage(self, stage, *pieces):
        """Check that the response is at C{stage} after C{pieces}, with a complete head."""
        parser = parse(*pieces)
        self.assertIsNotNone(parser.response)
        self.assertIs(parser.stage, stage)

    def test_counted(self):
        """A body of Content-Length bytes ends with the last of them."""
        self.assertStage(Stage.BODY, COUNTED[:-1])
        self.assertStage(Stage.WHOLE, COUNTED)

    def test_sameLengthTwice(self):
        """The same length twice is valid."""
        self.assertStage(Stage.WHOLE, withHeaders(b"Content-Length: 1, 1", b"Content-Length:\t1") + b"x")

    def test_empty(self):
        """Length 0, 204 and 304 have no body."""
        self.assertStage(Stage.WHOLE, withHeaders(b"Content-Length: 0"))
        self.assertStage(Stage.WHOLE, withHeaders(b"Content-Length: 0, 0"))
        self.assertStage(Stage.WHOLE, b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertStage(Stage.WHOLE, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n")

    def test_surplus(self):
        """Bytes after the end make the response the last one, in the same piece or later."""
        for whole in (COUNTED, CHUNKED, b"HTTP/1.1 204 No Content\r\n\r\n"):
            self.assertStage(Stage.LAST, whole + b"x")
            self.assertStage(Stage.LAST, whole, b"x")

    def test_untilClose(self):
        """A body without a length ends with the connection: the response is the last one."""
        self.assertStage(Stage.LAST, withHeaders(b"Auth-Status: OK"), b"some", b"body")

    def test_close(self):
        """So is a response with C{close}, in any case and among other options, or of HTTP/1.0."""
        self.assertStage(Stage.LAST, withHeaders(b"Connection: x, Close", b"Content-Length: 0"))
        old = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
        self.assertStage(Stage.LAST, old)

    def test_ambiguous(self):
        """So is a response with both a length and a coding, or an unknown coding (RFC 9112, section 6.3)."""
        self.assertStage(Stage.LAST, withHeaders(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
        self.assertStage(Stage.LAST, withHeaders(b"Transfer-Encoding: gzip, chunked"))
        self.assertStage(Stage.LAST, withHeaders(b"Transfer-Encoding: identity"))

    def test_tooLongBody(self):
        """A body longer than MAX_BODY is not read, also if its length is unknown at first."""
        self.assertStage(Stage.LAST, withHeaders(b"Content-Length: %d" % (MAX_BODY + 1)))
        self.assertStage(Stage.BODY, withHeaders(b"Content-Length: %d" % MAX_BODY))
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        self.assertStage(Stage.BODY, withHeaders(b"Transfer-Encoding: chunked"), *[chunk] * 15)
        self.assertStage(Stage.LAST, withHeaders(b"Transfer-Encoding: chunked"), *[chunk] * 16)

    def test_faultyChunks(self):
        """An invalid chunk is no error: the answer counts, and is the last one."""
        start = withHeaders(b"Transfer-Encoding: chunked")
        for body in (b"x\r\n", b"\r\n", b"-1\r\n", b"0x5\r\nhello\r\n", b"5\r\nhelloo\r\n", b"5" * (MAX_LINE + 1)):
            self.assertStage(Stage.LAST, start, body)
            self.assertStage(Stage.LAST, start + body)

    def test_longExtension(self):
        """A line of a chunk has the same limit whether it arrives as a whole or in pieces."""
        start = withHeaders(b"Transfer-Encoding: chunked")
        for length, stage in ((MAX_LINE, Stage.BODY), (MAX_LINE + 1, Stage.LAST)):
            line = b"5;" + b"x" * (length - 2) + b"\n"
            self.assertStage(stage, start + line)
            self.assertStage(stage, start, line[:-1], line[-1:])

    def test_last(self):
        """Bytes after the last response have no effect."""
        self.assertStage(Stage.LAST, withHeaders(b"Connection: close"), COUNTED, COUNTED)
