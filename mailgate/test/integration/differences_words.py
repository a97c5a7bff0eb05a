# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
Commands to which nginx replies "invalid command", although it knows them, or another state has them. mailgate says what
happened and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailgate.test.integration.comparison import Difference
from mailgate.test.integration.phrases import shown

__all__ = ["WORDS"]

_INVALID = {
    "imap": r"S: (?P<tag>\w+) BAD invalid command",
    "pop3": r"S: -ERR invalid command",
    "smtp": r"S: 500 5\.5\.1 Invalid command",
}


def _says(reason: str, words: str, said: str, *where: str) -> Difference:
    """
    In conversations of these names the reply to each line that matches the pattern C{said} is C{words}; in IMAP with
    its tag.
    """
    protocol = where[0].partition(" ")[0]
    pattern = re.compile(rf"(?m)^(C: {said}\\r\\n\n){_INVALID[protocol]}")

    def new(match: re.Match[str]) -> str:
        tag = f"{match['tag']} " if protocol == "imap" else ""
        return f"{match[1]}S: {tag}{words}"

    return Difference(reason, "client", where, pattern, new)


IN_CLEAR = "a client that would log in in the clear hears that it has to begin TLS"
CANCELLED = "a client that cancels hears that it has done so"
NOT_BASE64 = "what is no base64 is called that"
MALFORMED = "a response that is not of its mechanism's form is called that"
INITIAL = "a mechanism in which the server speaks first takes no initial response"
STARTTLS = "a client hears why TLS cannot begin"
UNSUPPORTED = "AUTHENTICATE is a command, though it names no mechanism that is offered"
LATER = "a command of another state is known, and not held against the client"
USER_FIRST = "PASS is a command, which USER has to come before"
ARGUMENTS = "AUTH is a command, though it has too many arguments"

_ANY = r".*"
_NO_BASE64 = r"(?:[A-Za-z0-9 -]+ )?(?:!+|a)"
_FORMS = ("no nul", "one nul", "empty response", "leading blank", "percent")

_EXCHANGES = {
    "imap": (
        "BAD Authentication cancelled",
        "BAD Invalid base64 data",
        "BAD Invalid authentication response",
        "BAD No initial response is taken by this mechanism",
        "NO [CANNOT] Unsupported authentication mechanism",
        "NO [PRIVACYREQUIRED] Use STARTTLS first",
    ),
    "pop3": (
        "-ERR Authentication cancelled",
        "-ERR Invalid base64 data",
        "-ERR Invalid authentication response",
        "-ERR No initial response is taken by this mechanism",
        "-ERR Unsupported authentication mechanism",
        "-ERR Use STLS first",
    ),
    "smtp": (
        "501 5.7.0 Authentication cancelled",
        "501 5.5.2 Invalid base64 data",
        "501 5.5.4 Invalid authentication response",
        "501 5.7.0 No initial response is taken by this mechanism",
        "504 5.5.4 Unsupported authentication mechanism",
        "530 5.7.0 Must issue a STARTTLS command first",
    ),
}


def _starttls(protocol: str, word: str, active: str, missing: str) -> Iterator[Difference]:
    """STARTTLS under TLS, and where it is not offered."""
    name = f"{protocol} {word.lower()}"
    yield _says(STARTTLS, active, r"(?:\w+ )?" + word, f"{name} ssl")
    yield Difference(
        STARTTLS,
        "client",
        (f"{name} twice",),
        re.compile(rf"(?s)(\[TLS\]\nC: (?:\w+ )?{word}\\r\\n\n){_INVALID[protocol]}"),
        lambda match: f"{match[1]}S: {'a ' if protocol == 'imap' else ''}{active}",
    )
    yield _says(STARTTLS, missing, r"(?:\w+ )?" + word, f"{name} not offered", f"{protocol} wrong is no error")


def _exchanges(protocol: str) -> Iterator[Difference]:
    """SASL in all protocols."""
    cancelled, notBase64, malformed, initial, unsupported, inClear = _EXCHANGES[protocol]
    yield _says(CANCELLED, cancelled, r"\*", f"{protocol} * cancelled")
    yield _says(NOT_BASE64, notBase64, _NO_BASE64, f"{protocol} * bad base64", f"{protocol} external cancelled")
    forms = (*(f"plain {form}" for form in _FORMS), "cram-md5 no blank", "cram-md5 short")
    yield _says(MALFORMED, malformed, _ANY, *(f"{protocol} {form}" for form in forms))
    yield _says(INITIAL, initial, _ANY, f"{protocol} cram-md5 initial response")
    yield _says(UNSUPPORTED, unsupported, _ANY, f"{protocol} cram-md5 not offered", f"{protocol} mechanism unknown")
    yield _says(UNSUPPORTED, unsupported, _ANY, f"{protocol} external not offered")
    yield _says(IN_CLEAR, inClear, _ANY, f"{protocol} mechanism before tls", f"{protocol} before tls only")


WORDS: tuple[Difference, ...] = (
    *(difference for protocol in _EXCHANGES for difference in _exchanges(protocol)),
    *_starttls("imap", "STARTTLS", "BAD TLS is active already", "BAD STARTTLS is not offered here"),
    *_starttls("pop3", "STLS", "-ERR TLS is active already", "-ERR STLS is not offered here"),
    *_starttls("smtp", "STARTTLS", "503 5.5.1 TLS is active already", "502 5.5.1 STARTTLS is not offered here"),
    # IMAP.
    Difference(
        "a goodbye has a text (RFC 3501, section 9)",
        "client",
        ("imap logout", "imap logout arguments", "imap logout pipelined", "imap before tls only"),
        shown("S: * BYE"),
        shown("S: * BYE Logging out"),
    ),
    _says(LATER, "BAD Log in first", _ANY, "imap later commands"),
    _says(UNSUPPORTED, _EXCHANGES["imap"][4], "c AUTHENTICATE X", "imap wrong is no error"),
    # POP3.
    _says(LATER, "-ERR Log in first", r"[A-Z]+(?: 1)?", "pop3 later commands"),
    _says(LATER, "-ERR Log in first", "RSET", "pop3 unknown between"),
    _says(
        USER_FIRST,
        "-ERR Send USER first",
        r"PASS \w+",
        *(f"pop3 {between} between" for between in ("auth", "apop", "unknown")),
        *("pop3 stls forgets user", "pop3 user without name", "pop3 empty password", "pop3 pass first"),
        *("pop3 user twice", "pop3 wrong is no error"),
    ),
    _says(UNSUPPORTED, _EXCHANGES["pop3"][4], "AUTH NONE", "pop3 wrong is no error"),
    _says(CANCELLED, _EXCHANGES["pop3"][0], r"\*", "pop3 wrong is no error"),
    _says("APOP is a command, though it is not offered", "-ERR APOP is disabled", "APOP .*", "pop3 apop not offered"),
    # SMTP.
    _says(
        ARGUMENTS, "501 5.5.4 Invalid argument", "AUTH PLAIN .* .*", "smtp auth arguments", "smtp mechanism arguments"
    ),
    _says(UNSUPPORTED, _EXCHANGES["smtp"][4], "AUTH NONE", "smtp auth arguments"),
    _says(CANCELLED, _EXCHANGES["smtp"][0], r"\*", "smtp wrong is no error"),
    _says(
        "DATA is a command, and known to need a login",
        "530 5.7.1 Authentication required",
        "DATA",
        *("smtp mail without login", "smtp unknown"),
    ),
    _says("DATA is a command, and needs MAIL", "503 5.5.1 Bad sequence of commands", "DATA", "smtp none rcpt first"),
    _says(LATER, "530 5.7.1 Authentication required", "(?:VRFY|EXPN).*", "smtp vrfy", "smtp wrong is no error"),
    _says(LATER, "502 5.5.1 Command not implemented", "HELP.*", "smtp vrfy", "smtp wrong is no error"),
)
"""The replies that are more precise than nginx's."""
