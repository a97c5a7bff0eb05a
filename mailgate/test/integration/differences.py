# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
The intended differences between mailgate and Debian's nginx, with reasons. Some exist because that nginx is older than
the nginx whose documentation mailgate follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from mailgate.protocols.smtp.trust import xtext
from mailgate.test.integration.comparison import WHOLE, Difference
from mailgate.test.integration.conversation import b64
from mailgate.test.integration.conversations_sasl import DIGEST
from mailgate.test.integration.differences_words import WORDS
from mailgate.test.integration.phrases import (
    AT_BACKEND,
    AT_GATE,
    AT_THE_BACKEND,
    DENIED,
    INTERNAL,
    INVALID,
    LOGGED_IN,
    TEMPORARY,
    UNSUPPORTED,
    shown,
    then,
)

__all__ = ["DIFFERENCES"]


def _refuses(reason: str, name: str, refusal: str, *, asked: bool = False) -> Iterator[Difference]:
    """nginx accepts the login, mailgate refuses it. C{asked} is whether mailgate queries the service before that."""
    protocol = name.partition(" ")[0]
    old = then(protocol, LOGGED_IN[protocol], AT_BACKEND[protocol])
    new = then(protocol, refusal, AT_GATE[protocol])
    yield Difference(reason, "client", (name,), old, new)
    if not asked:
        yield Difference(reason, "auth", (name,), WHOLE, "")
    yield Difference(reason, "backend", (name,), WHOLE, "")


def _logsIn(reason: str, name: str) -> Iterator[Difference]:
    """nginx reports an internal error for the reply of the service, mailgate accepts the login."""
    protocol = name.partition(" ")[0]
    old = then(protocol, INTERNAL[protocol], "[closed]")
    new = then(protocol, LOGGED_IN[protocol], AT_BACKEND[protocol])
    yield Difference(reason, "client", (name,), old, new)
    yield Difference(reason, "backend", (name,), WHOLE, AT_THE_BACKEND[protocol])


def _staysOpen(protocol: str, where: str, answer: str) -> Difference:
    """nginx reports an internal error and closes; mailgate sends C{answer}."""
    return Difference(
        "a login that fails for another reason than the password is a temporary failure, and may be tried again",
        "client",
        (where,),
        then(protocol, INTERNAL[protocol], "[closed]"),
        then(protocol, answer, AT_GATE[protocol]),
    )


_LITERALS = re.compile(r"^(\S*) LOGIN \{\d+\}\\r\\n\n(.*) \{\d+\}\\r\\n\n(.*)\\r\\n$", re.MULTILINE)


def _quoted(match: re.Match[str]) -> str:
    """nginx's LOGIN with two literals, as mailgate sends it."""
    tag, *arguments = match.groups()
    said = f"{tag} LOGIN"
    for text in arguments:
        argument = text.encode().decode("unicode_escape")
        if argument.isascii() and argument.isprintable():
            escaped = re.sub(r'(["\\])', r"\\\1", argument)
            said += ' "' + escaped.replace("\\", "\\\\") + '"'
        else:
            said += rf" {{{len(argument)}}}\r\n" + "\n" + text
    return said + r"\r\n"


def _xtext(match: re.Match[str]) -> str:
    return xtext(match[0].encode().decode("unicode_escape").encode("latin-1")).decode()


PROTOCOLS = ("imap", "pop3", "smtp")
NO_LINE = "no backend receives a character that would break a line"
UNTAGGED = "newer than 1.22: untagged responses may precede the tagged one; mailgate accepts any number"
IN_CLEAR = "starttls only also applies to mail without a login"
LATER = "S: 451 4.3.0 Temporary failure, try again later"
MUST_STARTTLS = "530 5.7.0 Must issue a STARTTLS command first"
WRONG_CODE = (
    shown("S: hello Invalid login or password", "[closed]"),
    shown("S: 535 5.7.0 Invalid login or password", "C: NOOP", "[closed]"),
)


def _question(protocol: str, *credentials: str) -> str:
    return shown(
        "GET /auth?key=1 HTTP/1.0",
        "Host: 127.0.0.1",
        *credentials,
        f"Auth-Protocol: {protocol}",
        "Auth-Login-Attempt: 1",
        "Client-IP: 127.0.0.1",
        *(["Client-Host: [UNAVAILABLE]"] if protocol == "smtp" else []),
        "",
    )


def _accepts(reason: str, name: str, user: str, *credentials: str) -> Iterator[Difference]:
    """nginx reads the response to a challenge as a command; mailgate logs C{user} in, who has sent no EHLO."""
    protocol = name.partition(" ")[0]
    old = then(protocol, INVALID[protocol], AT_GATE[protocol])
    yield Difference(reason, "client", (name,), old, then(protocol, LOGGED_IN[protocol], AT_BACKEND[protocol]))
    yield Difference(reason, "auth", (name,), WHOLE, _question(protocol, *credentials))
    login = xtext(user.encode()).decode()
    heard = {
        "imap": (f'a LOGIN "{user}" "found"', "zz NOOP"),
        "pop3": (f"USER {user}", "PASS found", "NOOP"),
        "smtp": ("EHLO gate.example", f"XCLIENT ADDR=127.0.0.1 LOGIN={login} NAME=[UNAVAILABLE]", "NOOP"),
    }
    yield Difference(reason, "backend", (name,), WHOLE, shown("connection", *heard[protocol]))


def _mechanisms(protocol: str) -> Iterator[Difference]:
    yield from _refuses(
        "a mechanism that is not offered is also refused with an initial response",
        f"{protocol} external not offered initial response",
        UNSUPPORTED[protocol],
    )
    yield from _accepts(
        "a user name may contain blanks: the last one separates it from the digest",
        f"{protocol} cram-md5 user with blanks",
        "alice liddell",
        "Auth-Method: cram-md5",
        "Auth-User: alice%20liddell",
        f"Auth-Pass: {DIGEST}",
        "Auth-Salt: <SALT1@gate.example>",
    )
    yield from _accepts(
        "only the first word of the response to a challenge counts",
        f"{protocol} plain many words",
        "alice",
        "Auth-Method: plain",
        "Auth-User: alice",
        "Auth-Pass: secret",
    )


_AT_THE_END = re.compile(r"\[closed\]\Z")
_REFUSED = ("auth *refused*", "auth tab before ok")
_GOODBYES: dict[str, Mapping[str, tuple[str, ...]]] = {
    "imap": {
        "* BYE Refused": (*_REFUSED, "backend refuses aloud", "backend says bad aloud"),
        "* BYE Too many invalid commands": ("errors", "two errors", "errors pipelined"),
        "* BYE Command too long": ("login literal too long", "too long*"),
        "* BYE Data of a refused command cannot be skipped": ("unknown non-synchronizing",),
    },
    "smtp": {
        "421 4.7.0 Refused": (
            *_REFUSED,
            *("none refused", "none refused with code", "proxied auth refused aloud", "backend greets badly aloud"),
            *("backend refuses * aloud", "backend mixes codes"),
        ),
        "421 4.7.0 Too many invalid commands": ("errors", "two errors", "errors pipelined"),
        "421 4.5.2 Command too long": ("too long*",),
        "421 4.5.0 Client spoke before the greeting": ("before the greeting",),
    },
}
"""The texts before the connection is closed, and their conversations."""


def _saysGoodbye(protocol: str, goodbye: str, names: tuple[str, ...]) -> Iterator[Difference]:
    """nginx closes; mailgate sends C{goodbye} before that. An untagged response does not end a reply."""
    reason = "no connection is closed without a goodbye (RFC 3501, 3.4; RFC 5321, 3.8)"
    for name in names:
        told = [f"S: {goodbye}, closing connection"]
        if protocol == "imap":
            told.append("[closed]")
        elif name == "errors pipelined":
            told += ["C: NOOP", "[closed]"]
        yield Difference(reason, "client", (f"{protocol} {name}",), _AT_THE_END, shown(*told))


DIFFERENCES: tuple[Difference, ...] = (
    # Differences of the transport.
    Difference("quoted strings save two round trips", "backend", ("imap*",), _LITERALS, _quoted),
    Difference(
        "newer than 1.22: LOGIN of XCLIENT is encoded",
        "backend",
        (
            *("smtp auth xtext", "smtp plain blanks", "smtp plain eight bits", "smtp login percent"),
            *("smtp auth another user with blank", "smtp auth another eight bits"),
        ),
        re.compile("(?<=LOGIN=).*(?= NAME=)"),
        _xtext,
    ),
    Difference(
        "newer than 1.22: only digest methods have a salt",
        "auth",
        ("pop3 external*",),
        re.compile(r"(?m)(?<=^Auth-Pass: \\r\\n\n)Auth-Salt: .*\n"),
        "",
    ),
    Difference(
        "a header with TCP6 contains no IPv4 address",
        "backend",
        tuple(f"{protocol} real ipv6" for protocol in PROTOCOLS),
        "2001:db8::1 127.0.0.1",
        "2001:db8::1 ::ffff:7f00:1",
    ),
    Difference(
        "XCLIENT does not accept unix: as an address",
        "backend",
        ("smtp unix socket", "smtp proxy unix socket"),
        "ADDR=unix:",
        "ADDR=[UNAVAILABLE]",
    ),
    *(
        Difference("a client is told why it is hung up on", "client", (f"{protocol} late client",), "\n[closed]", told)
        for protocol, told in (
            ("imap", "\nS: * BYE Timeout, closing connection\\r\\n\n[closed]"),
            ("pop3", "\nS: -ERR Timeout, closing connection\\r\\n\nC: NOOP\\r\\n\n[closed]"),
            ("smtp", "\nS: 421 4.4.2 Timeout, closing connection\\r\\n\nC: NOOP\\r\\n\n[closed]"),
        )
    ),
    # Names, passwords, tags and strings.
    Difference(NO_LINE, "client", ("pop3 login nul",), "ice\\r\\n\nS: +OK", "ice\\r\\n\nS: -ERR invalid command"),
    *_refuses(NO_LINE, "pop3 password nul", INVALID["pop3"]),
    *_refuses(NO_LINE, "imap login nul", INVALID["imap"]),
    *_refuses(NO_LINE, "imap login literal with line", DENIED["imap"], asked=True),
    *(
        difference
        for protocol in PROTOCOLS
        for name in ("line end", "third nul")
        for difference in _refuses(NO_LINE, f"{protocol} plain {name}", DENIED[protocol], asked=True)
    ),
    Difference(
        "a name for the backend contains no control character",
        "client",
        ("smtp nul",),
        shown("C: EHLO a\\x00b", "S: 250-gate.example", "S: 250 AUTH PLAIN LOGIN CRAM-MD5 EXTERNAL"),
        shown("C: EHLO a\\x00b", INVALID["smtp"]),
    ),
    Difference(
        "a name for the backend contains no control character",
        "client",
        ("smtp ehlo tab",),
        shown("C: EHLO a\\tb", "S: 250-gate.example", "S: 250 AUTH PLAIN LOGIN CRAM-MD5 EXTERNAL"),
        shown("C: EHLO a\\tb", "S: 501 5.5.4 Invalid argument"),
    ),
    *_refuses("a quoted string that does not end is no string", "imap login quote unended", INVALID["imap"]),
    *_refuses("newer than 1.22: a blank must follow a literal", "imap login literal and more", INVALID["imap"]),
    Difference(
        "an empty literal is empty: nginx reads one octet of the line end",
        "auth",
        ("imap login literal empty",),
        "Auth-Pass: %0D",
        "Auth-Pass: ",
    ),
    Difference(
        "an empty literal is empty: nginx reads one octet of the line end",
        "backend",
        ("imap login literal empty",),
        shown('a LOGIN "alice" {1}', "\\r"),
        shown('a LOGIN "alice" ""'),
    ),
    *(
        Difference(
            "RFC 3501 allows more characters in tags, and nearly no limit",
            "client",
            ("imap tag*",),
            shown(f"C: {tag} NOOP", "S: * BAD invalid command"),
            shown(f"C: {tag} NOOP", f"S: {tag} OK completed"),
        )
        for tag in ("a" * 33, "a/b", "a:b", "#1")
    ),
    Difference(
        "a line without a tag is not a command",
        "client",
        ("imap tag missing",),
        "S:  OK completed",
        "S: * BAD invalid command",
    ),
    # Commands.
    *(
        Difference(
            "clients send ID before the login",
            "client",
            ("imap id*",),
            shown(f"C: a ID {arguments}", "S: a BAD invalid command"),
            shown(f"C: a ID {arguments}", "S: * ID NIL", "S: a OK completed"),
        )
        for arguments in ("NIL", '("name" "client" "version" "1")')
    ),
    Difference(
        "no password is requested without TLS if it would be refused",
        "client",
        ("imap before tls only literal",),
        shown("S: + OK", "C: b NOOP", "S: a BAD invalid command"),
        shown("S: a NO [PRIVACYREQUIRED] Use STARTTLS first", "C: b NOOP", "S: b OK completed"),
    ),
    *(
        Difference("the gateway requests no literal that would be too long", "client", (name,), old, new)
        for name, old, new in (
            (
                "imap login literal too long",
                shown("S: + OK", "C: " + "x" * 5000, "S: a BAD invalid command"),
                shown("S: a BAD invalid command", "C: " + "x" * 5000, "S: * BAD invalid command"),
            ),
            (
                "imap too long literal",
                shown("S: + OK", "C: " + "x" * 200, "S: a BAD invalid command"),
                shown("S: a BAD invalid command", "C: " + "x" * 200, "S: * BAD invalid command"),
            ),
        )
    ),
    Difference(
        "lines of POP3 have room for long passwords, not only for 128 bytes",
        "client",
        ("pop3 too long line",),
        shown("S: -ERR invalid command", "C: NOOP", "[closed]"),
        shown("S: +OK", "C: NOOP", "S: +OK"),
    ),
    Difference(
        "the reply after a continuation has the command's tag",
        "client",
        ("imap login user cancelled",),
        "S: BAD invalid command",
        "S: a BAD invalid command",
    ),
    Difference(
        "a tag is not the rest of the last one",
        "client",
        ("imap refused empty line",),
        "S: %%BAD",
        "S: * BAD",
    ),
    Difference(IN_CLEAR, "client", ("smtp before tls only",), "530 5.7.1 Authentication required", MUST_STARTTLS),
    Difference(IN_CLEAR, "client", ("smtp before tls only",), "503 5.5.1 Bad sequence of commands", MUST_STARTTLS),
    Difference(
        IN_CLEAR,
        "client",
        ("smtp none before tls only",),
        re.compile(r"(?<=C: MAIL)(.*\n)S: .*(\n.*\n)S: .*(\nC: NOOP.*\n)S: .*"),
        lambda match: (
            rf"{match[1]}S: {MUST_STARTTLS}\r\n{match[2]}S: {MUST_STARTTLS}\r\n{match[3]}{AT_GATE['smtp']}\r\n"
        ),
    ),
    Difference(IN_CLEAR, "auth", ("smtp none before tls only",), WHOLE, ""),
    Difference(IN_CLEAR, "backend", ("smtp none before tls only",), WHOLE, ""),
    # Mechanisms.
    *(difference for protocol in PROTOCOLS for difference in _mechanisms(protocol)),
    *WORDS,
    # Names.
    *(
        difference
        for protocol in PROTOCOLS
        for name in (
            *("plain empty user", "plain all empty", "login empty user", "login empty initial response"),
            *("external empty", "auth another empty user"),
        )
        for difference in _refuses(
            "a login without a name is refused", f"{protocol} {name}", DENIED[protocol], asked=True
        )
    ),
    *(
        Difference(
            "blanks after the first one are part of the name or password, as in Dovecot",
            side,
            ("pop3 login blanks",),
            old,
            new,
        )
        for side, old, new in (
            ("auth", "Auth-User: ", "Auth-User: %20%20"),
            ("auth", "Auth-Pass: ", "Auth-Pass: %20"),
            ("backend", "USER ", "USER   "),
            ("backend", "PASS ", "PASS  "),
        )
    ),
    *(
        Difference("a password may be all blanks", side, ("pop3 blank password",), old, new)
        for side, old, new in (
            (
                "client",
                shown(r"C: PASS   ", INVALID["pop3"], "C: NOOP", AT_GATE["pop3"]),
                shown(r"C: PASS   ", LOGGED_IN["pop3"], "C: NOOP", AT_BACKEND["pop3"]),
            ),
            (
                "auth",
                WHOLE,
                _question("pop3", "Auth-Method: plain", "Auth-User: alice", "Auth-Pass: %20%20"),
            ),
            ("backend", WHOLE, shown("connection", "USER alice", "PASS   ", "NOOP")),
        )
    ),
    # Replies of the service.
    *(
        difference
        for protocol in PROTOCOLS
        for reason, name in (
            ("a backend may have a name", "server is a name"),
            ("headers of others may have any name of HTTP", "underscore"),
        )
        for difference in _logsIn(reason, f"{protocol} auth {name}")
    ),
    Difference(
        "text for clients is UTF-8",
        "client",
        tuple(f"{protocol} auth refused latin 1" for protocol in PROTOCOLS),
        r"caf\xe9",
        r"caf\xc3\xa9",
    ),
    *(
        Difference(
            "clients receive no text with control characters",
            "client",
            (f"{protocol} auth refused control",),
            f"{old}no\\x01way",
            DENIED[protocol],
        )
        for protocol, old in (("imap", "S: a NO "), ("pop3", "S: -ERR "), ("smtp", "S: 535 5.7.0 "))
    ),
    Difference("a code that is none is not sent", "client", ("smtp auth refused wrong code",), *WRONG_CODE),
    Difference(
        "a refusal has a text",
        "client",
        ("imap auth refused empty",),
        "S: a NO \\r\\n",
        DENIED["imap"] + "\\r\\n",
    ),
    Difference(
        "a refusal has a text",
        "client",
        ("pop3 auth refused empty",),
        "S: -ERR \\r\\n",
        DENIED["pop3"] + "\\r\\n",
    ),
    # Backends.
    *(
        Difference(UNTAGGED, side, (f"imap {name}",), old, new)
        for name, said in (
            ("untagged before the login", ("S: * CAPABILITY IMAP4rev1", "S: a OK in")),
            ("two untagged", ("S: * CAPABILITY IMAP4rev1", "S: * OK [X] y", "S: a OK in")),
            ("login lower case ok", ("S: a ok in",)),
        )
        for side, old, new in (
            (
                "client",
                then("imap", INTERNAL["imap"], "[closed]"),
                shown(*said, "C: zz NOOP", AT_BACKEND["imap"]),
            ),
            ("backend", WHOLE, AT_THE_BACKEND["imap"]),
        )
    ),
    *(
        Difference(
            "no client gets a backend that trusts the gateway to name clients, but cannot learn the client",
            side,
            (f"smtp {name}",),
            old,
            new,
        )
        for name, answer in (
            ("plainly trusted", ("S: 235 2.0.0 OK", TEMPORARY["smtp"])),
            ("plainly trusted to forward", ("S: 235 2.0.0 OK", TEMPORARY["smtp"])),
            ("none plainly trusted", ("S: 250 2.0.0 backend", LATER)),
        )
        for side, old, new in (
            (
                "client",
                then("smtp", answer[0], AT_BACKEND["smtp"]),
                then("smtp", answer[1], AT_GATE["smtp"]),
            ),
            ("backend", WHOLE, shown("connection", "EHLO gate.example")),
        )
    ),
    Difference(
        "EHLO shows the rights that a backend gives the gateway",
        "backend",
        ("smtp plainly helo", "smtp plainly without hello", "smtp none plainly without hello"),
        "HELO gate.example",
        "EHLO gate.example",
    ),
    Difference(
        "no XCLIENT follows a PROXY header with the client: backends then check the client's right to it",
        "backend",
        ("smtp real*", "smtp proxy to the backend"),
        re.compile(r"(?m)^EHLO gate\.example.*\nXCLIENT .*\n"),
        "",
    ),
    *(
        Difference(
            "a chunk of a message is refused as what it is", "client", (f"smtp chunk{name}",), INVALID["smtp"], new
        )
        for name, new in (
            ("", "S: 530 5.7.1 Authentication required"),
            (" without login", "S: 503 5.5.1 Bad sequence of commands"),
            (" before tls only", f"S: {MUST_STARTTLS}"),
        )
    ),
    Difference(
        "a reply that is not a refusal is not passed on as one",
        "client",
        ("imap backend preauth",),
        shown("S: * PREAUTH welcome", "[closed]"),
        then("imap", TEMPORARY["imap"], AT_GATE["imap"]),
    ),
    Difference(
        "newer than 1.22: the last line of a reply has its code",
        "client",
        ("smtp backend mixes codes",),
        then("smtp", LOGGED_IN["smtp"], AT_BACKEND["smtp"]),
        shown("S: 250-backend", "S: 550 no", "C: NOOP", "[closed]"),
    ),
    Difference(
        "newer than 1.22: the last line of a reply has its code",
        "backend",
        ("smtp backend mixes codes",),
        WHOLE,
        shown("connection", "EHLO gate.example"),
    ),
    *(
        Difference("AUTH is a command of ESMTP", "backend", (name,), old, new)
        for name, old, new in (
            ("smtp proxied auth helo", "HELO client.example", "EHLO client.example"),
            ("smtp proxied auth plainly helo", "HELO gate.example", "EHLO gate.example"),
            ("smtp proxied auth without hello", "\nAUTH", "\nEHLO gate.example\\r\\n\nAUTH"),
            ("smtp proxied auth digest", "\nAUTH", "\nEHLO gate.example\\r\\n\nAUTH"),
            ("smtp proxied auth no password", "[UNAVAILABLE]\\r\\n", "[UNAVAILABLE]\\r\\n\nEHLO gate.example\\r\\n"),
        )
    ),
    Difference(
        "the backend has the mechanism",
        "client",
        ("smtp proxied auth login alone",),
        then("smtp", INTERNAL["smtp"], "[closed]"),
        then("smtp", LOGGED_IN["smtp"], AT_BACKEND["smtp"]),
    ),
    Difference(
        "the backend has the mechanism",
        "backend",
        ("smtp proxied auth login alone",),
        re.compile("(?m)^AUTH PLAIN .*$"),
        shown("AUTH LOGIN", b64("alice"), b64("secret"), "NOOP"),
    ),
    Difference(
        "the reply to the recipient has the backend's words about the sender",
        "client",
        ("smtp none backend refuses mail",),
        then("smtp", INTERNAL["smtp"], "[closed]"),
        then("smtp", "S: 552 5.3.4 too big", AT_GATE["smtp"]),
    ),
    Difference(
        "a sender that the backend refuses does not end the connection",
        "client",
        ("smtp none refused mail aloud",),
        _AT_THE_END,
        shown(AT_GATE["smtp"]),
    ),
    # Other failures.
    _staysOpen("imap", "imap *", TEMPORARY["imap"]),
    _staysOpen("pop3", "pop3 *", TEMPORARY["pop3"]),
    _staysOpen("smtp", "smtp none *", LATER),
    _staysOpen("smtp", "smtp *", TEMPORARY["smtp"]),
    # Failures that end the connection in nginx too.
    *(
        difference
        for protocol, goodbyes in _GOODBYES.items()
        for goodbye, names in goodbyes.items()
        for difference in _saysGoodbye(protocol, goodbye, names)
    ),
)
