# -*- test-case-name: mailgate.test.differential -*-
"""
Random scripts of authentication services and backends.
"""

from __future__ import annotations

from random import Random

from mailgate.test.differential.script import CLOSE, RESET, SILENCE, Backend

__all__ = ["backends", "isAccepting", "service"]

OK = "Auth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: <backend1>\r\n"

ACCEPTING = (
    OK,
    OK,
    OK,
    OK,
    OK + "Auth-User: other\r\n",
    OK + "Auth-Pass: found\r\n",
    OK + "Auth-User: other@example.org\r\nAuth-Pass: p%20a ss\r\n",
    OK + "Auth-Wait: 3\r\n",
    OK + "auth-status: OK\r\nAUTH-SERVER: 127.0.0.1\r\n",
    OK + "Auth-Proxy-Protocol: on\r\n",
    OK + "Auth-Proxy-Auth: plain\r\n",
    OK + "Auth-Proxy-Timeout: 10\r\n",
    OK + "Auth-Proxy-SSL: off\r\n",
    OK + "Auth-Proxy-Unknown: x\r\n",
    OK + "Auth-Proxy-Identity: on\r\nAuth-Proxy-Forward: a=b\r\n",
    OK + "Auth-Session-Timeout: 30\r\n",
    OK + "Auth-User: inj\rected\r\n",
    OK + "Auth-User: nul\0\r\n",
    OK + "Auth-Pass: \xc3\xa4\r\n",
    OK + "Auth-Authzid: other\r\n",
    OK + "Auth-Cache: 60\r\n",
    OK + "Auth-Upstream: none-such\r\n",
    OK.replace("127.0.0.1", "127.0.0.1:<down>, 127.0.0.1:<backend2>"),
    OK.replace("Auth-Server: 127.0.0.1", "Auth-Server: 127.0.0.1,127.0.0.1"),
    OK.replace("127.0.0.1\r\nAuth-Port: <backend1>", "127.0.0.1:<backend2>, 127.0.0.1:<backend1>"),
    OK.replace("<backend1>", "<backend2>"),
    OK + "Auth-Port: <backend2>\r\n",
    OK + "X-Folded: a\r\n b\r\n",
    "Auth-Status:OK\r\nAuth-Server:  127.0.0.1  \r\nAuth-Port:\t<backend1>\r\n",
)

REFUSING = (
    "Auth-Status: Invalid login or password\r\n",
    "Auth-Status: Invalid login or password\r\nAuth-Wait: 2\r\n",
    "Auth-Status: Invalid login or password\r\nAuth-Wait: 0\r\n",
    "Auth-Status: no \x1b[2J \xff text\r\nAuth-Wait: 1\r\n",
    "Auth-Status: Temporary server problem, try again later\r\nAuth-Wait: 10\r\n",
    "Auth-Status: Temporary\r\nAuth-Error-Code: 454 4.7.0\r\n",
    "Auth-Status: no\r\nAuth-Error-Code: 535 5.7.8\r\nAuth-Wait: 1\r\n",
    "Auth-Status: no\r\nAuth-Error-Code: 550 5.1.1\r\n",
    "Auth-Status: no\r\nAuth-Error-SASL: eyJzdGF0dXMiOiI0MDEifQ==\r\n",
    "Auth-Status: [ALERT] look\r\n",
    "Auth-Status: WAIT\r\nAuth-Wait: 1\r\n",
    "Auth-Status: WAIT\r\n",
    OK + "Auth-Status: Invalid\r\n",
    "Auth-Wait: x\r\nAuth-Status: no\r\n",
    "Auth-Status: \r\n",
    "",
    "Auth-Status: OK\r\n",
    "Auth-Status: OK\r\nAuth-Server: 127.0.0.1\r\n",
    "Auth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: 99999\r\n",
    "Auth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: x\r\n",
    "Auth-Status: OK\r\nAuth-Server: bad name!\r\nAuth-Port: 143\r\n",
    "Auth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: <down>\r\n",
)

BROKEN = (
    ["garbage\r\n\r\n", CLOSE],
    ["HTTP/1.1 200 OK\r\nno colon here\r\n\r\n", CLOSE],
    ["HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"],
    ["HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nRetry-After: 5\r\n\r\nbusy"],
    ["HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found"],
    ["HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:<backend1>/\r\nContent-Length: 0\r\n\r\n"],
    ["HTTP/1.1 100 Continue\r\n\r\n", f"HTTP/1.1 200 OK\r\n{OK}Content-Length: 0\r\n\r\n"],
    ["HTTP/1.1 204 No Content\r\n" + OK + "\r\n"],
    ["HTTP/1.1 200 OK\r\n" + OK, CLOSE],
    ["HTTP/1.1 200 OK\r\n" + OK, RESET],
    ["HTTP/1.1 200 OK\r\n" + OK + "Content-Length: 100\r\n\r\nshort", CLOSE],
    ["HTTP/1.1 200 OK\r\n" + OK + "Content-Length: x\r\n\r\n"],
    ["HTTP/1.1 200 OK\r\n" + OK + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"],
    ["HTTP/1.1 200 OK\r\nX: " + "x" * 70000 + "\r\n" + OK + "\r\n"],
    ["HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 600 + OK + "Content-Length: 0\r\n\r\n"],
    ["HTTP/1.1 200 OK\n" + OK.replace("\r", "") + "Content-Length: 0\n\n"],
    ["HTTP/9.9 200 OK\r\n" + OK + "Content-Length: 0\r\n\r\n"],
    ["HTTP/1.1 200\r\n" + OK + "Content-Length: 0\r\n\r\n"],
    ["HTTP/1.1 200 OK\r\n" + OK + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"],
    [CLOSE],
    [RESET],
    [SILENCE],
)


def _framed(random: Random, fields: str) -> list[str]:
    """Return an answer with these headers."""
    body = random.choice(("", "", "", "", "ok", "x" * 5000))
    kind = random.random()
    if kind < 0.62:
        answer = [f"HTTP/1.1 200 OK\r\n{fields}Content-Length: {len(body)}\r\n\r\n{body}"]
    elif kind < 0.7:
        chunk = f"{len(body):x}\r\n{body}\r\n" if body else ""
        answer = [f"HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"]
    elif kind < 0.78:
        answer = [f"HTTP/1.0 200 OK\r\n{fields}\r\n{body}", CLOSE]
    elif kind < 0.82:
        answer = [f"HTTP/1.0 200 OK\r\n{fields}Connection: keep-alive\r\nContent-Length: {len(body)}\r\n\r\n{body}"]
    elif kind < 0.9:
        answer = [f"HTTP/1.1 200 OK\r\nServer: x\r\n{fields}Connection: close\r\n\r\n{body}", CLOSE]
    elif kind < 0.94:
        answer = [f"HTTP/1.1 403 Forbidden\r\n{fields}Content-Length: {len(body)}\r\n\r\n{body}"]
    else:
        answer = [f"HTTP/1.1 200 OK\r\n{fields}Content-Length: {len(body)}\r\n\r\n{body}surplus"]
    if random.random() < 0.2 and len(answer[0]) > 2:
        place = random.randrange(1, len(answer[0]))
        answer[:1] = [answer[0][:place], answer[0][place:]]
    return answer


def service(random: Random, protocol: str, count: int) -> list[list[str]]:
    """
    Return the answers of an authentication service.

    @param random: the source of all choices.
    @param protocol: the protocol of the clients.
    @param count: how many backends there are.
    """
    if random.random() < 0.02:
        return []
    answers = []
    for _ in range(random.choice((1, 1, 2, 3))):
        kind = random.random()
        if kind < 0.35:
            answer = [f"HTTP/1.1 200 OK\r\n{OK}Content-Length: 0\r\n\r\n"]
        elif kind < 0.7:
            answer = _framed(random, random.choice(ACCEPTING))
        elif kind < 0.9:
            answer = _framed(random, random.choice(REFUSING))
        else:
            answer = list(random.choice(BROKEN))
        answers.append([piece.replace("<backend2>", f"<backend{count}>") for piece in answer])
    return answers


def isAccepting(answers: list[list[str]]) -> bool:
    """Return whether the first of these answers may be an acceptance."""
    return bool(answers) and "Auth-Status: OK" in answers[0][0]


_REFUSALS = {
    "imap": (
        "TAG NO no\r\n",
        "TAG NO [AUTHENTICATIONFAILED] no\r\n",
        "TAG NO [UNAVAILABLE] later\r\n",
        "TAG BAD what?\r\n",
        "* BYE no\r\nTAG NO no\r\n",
        "TAG NO [REFERRAL imap://other/] go\r\n",
        "TAG NO \x1b\xff\r\n",
        "TAG MAYBE\r\n",
    ),
    "pop3": (
        "-ERR no\r\n",
        "-ERR [AUTH] no\r\n",
        "-ERR [SYS/TEMP] later\r\n",
        "-ERR [IN-USE] locked\r\n",
        "what\r\n",
        "-ERR \x1b\xff\r\n",
    ),
    "smtp": (
        "535 5.7.8 no\r\n",
        "454 4.7.0 later\r\n",
        "421 4.3.2 closing\r\n",
        "550-two\r\n550 lines\r\n",
        "what\r\n",
        "500 \x1b\xff\r\n",
        "235-more\r\n235 done\r\n",
        "334 more\r\n",
    ),
}

_GREETINGS = {
    "imap": (
        "* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID AUTH=PLAIN] ready\r\n",
        "* BYE away\r\n",
        "* PREAUTH in\r\n",
        "* NO\r\n",
        "hello\r\n",
        "* OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=PLAIN SASL-IR] x\r\n",
        "* OK [REFERRAL imap://other/] x\r\n",
        "* OK IMAP4 ready\r\n",
    ),
    "pop3": (
        "+OK [XCLIENT] ready\r\n",
        "-ERR away\r\n",
        "-ERR [SYS/TEMP] full\r\n",
        "hello\r\n",
        "+OK <1.2@x>\r\n",
        "+OK POP3 ready\r\n",
    ),
    "smtp": (
        "220-two\r\n220 lines ESMTP\r\n",
        "554 away\r\n",
        "421 busy\r\n",
        "hello\r\n",
        "220 gate.example ESMTP ready\r\n",
    ),
}

_LOGINS = {
    "imap": (
        ("LOGIN", "TAG OK in\r\n"),
        ("LOGIN", "* CAPABILITY IMAP4rev1 IDLE\r\nTAG OK in\r\n"),
        ("LOGIN", "TAG OK [CAPABILITY IMAP4rev1] in\r\n* 5 EXISTS\r\n"),
        ("AUTHENTICATE", "TAG OK in\r\n"),
        ("AUTHENTICATE", "+ \r\nTAG OK in\r\n"),
        ("ID", "* ID NIL\r\nTAG OK id\r\n"),
        ("LITERAL", "TAG BAD no\r\n"),
        ("LOGIN", "* OK [X] y\r\n* 3 RECENT\r\nTAG OK [REFERRAL imap://x/] in\r\n"),
    ),
    "pop3": (("PASS", "+OK in\r\nmore\r\n"), ("AUTH", "+ \r\n"), ("USER", "-ERR\r\n"), ("XCLIENT", "-ERR no\r\n")),
    "smtp": (
        ("EHLO", "250-backend\r\n250-SIZE 1000\r\n250 AUTH=PLAIN\r\n"),
        ("EHLO", "250 backend\r\n"),
        ("EHLO", "502 no\r\n"),
        (
            "EHLO",
            "250-b\r\n250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT SESSION TTL\r\n250 AUTH LOGIN\r\n",
        ),
        ("XCLIENT", "550 no\r\n"),
        ("MAIL", "451 later\r\n"),
        ("RCPT", "550 no\r\n"),
        ("AUTH", "334 \r\n"),
    ),
}

_AT_LOGIN = {"imap": ("LOGIN", "AUTHENTICATE"), "pop3": ("PASS", "AUTH", "USER"), "smtp": ("AUTH", "XCLIENT", "EHLO")}


def _split(random: Random, text: str) -> list[str]:
    if random.random() < 0.7 or len(text) < 3:
        return [text]
    place = random.randrange(1, len(text))
    return [text[:place], text[place:]]


def _backend(random: Random, protocol: str) -> Backend:
    replies: dict[str, list[str]] = {}
    if random.random() < 0.25:
        replies["GREETING"] = _split(random, random.choice(_GREETINGS[protocol]))
    if random.random() < 0.04:
        replies["GREETING"] = [random.choice((CLOSE, RESET, SILENCE, "x" * 9000))]
    if random.random() < 0.2:
        word, reply = random.choice(_LOGINS[protocol])
        replies[word] = _split(random, reply)
    if random.random() < 0.15:
        for word in _AT_LOGIN[protocol][: random.choice((1, 2, 3))]:
            replies[word] = _split(random, random.choice(_REFUSALS[protocol]))
    if random.random() < 0.05:
        word = random.choice(_AT_LOGIN[protocol])
        replies[word] = random.choice(([CLOSE], [RESET], [SILENCE], ["TAG O", CLOSE], ["x" * 9000 + "\r\n"]))
    if random.random() < 0.04:
        word = random.choice(_AT_LOGIN[protocol])
        early = "x" * random.choice((5000, 100000))
        replies[word] = [
            {"imap": "TAG OK in\r\n", "pop3": "+OK in\r\n", "smtp": "235 in\r\n"}[protocol] + early + "\r\n"
        ]
    return Backend(replies, isDown=random.random() < 0.04)


def backends(random: Random, protocol: str) -> list[Backend]:
    """
    Return one or two backends, the first of which mostly works.

    @param random: the source of all choices.
    @param protocol: their protocol.
    """
    tls = random.choice(("", "on", "starttls")) if random.random() < 0.12 else ""
    made = [_backend(random, protocol) for _ in range(random.choice((1, 1, 2)))]
    return [Backend(each.replies, tls, each.isDown) for each in made]
