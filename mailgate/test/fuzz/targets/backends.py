"""
Replies of backends to a login, for each protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.error import ConnectionDone

from mailgate.backend.client import ProxyClient
from mailgate.log.journal import oneLine
from mailgate.login import Denial, Refusal
from mailgate.test.fuzz.frame import Run, Target, mutations
from mailgate.test.support.loginscripts import SCRIPTS, Script

__all__ = ["TARGETS"]

_BUFFER = {"imap": 4096, "pop3": 4096, "smtp": 4096, "sieve": 8192}
"""C{proxy_buffer}; ManageSieve has long lines."""

_WORDS = {
    "imap": (
        *(b"* OK ", b"* BYE ", b"* PREAUTH", b"* CAPABILITY IMAP4rev1", b"[CAPABILITY IMAP4rev1 SASL-IR ID]", b"+ "),
        *(b"a1 OK", b"a1 NO ", b"a1 BAD", b"* ID (", b"{5}", b"mailgate OK", b"[ALERT]", b"\r\n", b"\n", b" "),
    ),
    "pop3": (b"+OK", b"-ERR ", b"+ ", b"[AUTH]", b"[SYS/TEMP]", b"[XCLIENT]", b".", b"\r\n", b"\n", b" "),
    "smtp": (
        *(b"220 ", b"250-", b"250 ", b"334 ", b"235 ", b"535 5.7.8 ", b"421 ", b"XCLIENT", b"AUTH PLAIN LOGIN"),
        *(b"CHUNKING", b"\r\n", b"\n", b" "),
    ),
    "sieve": (
        *(b"OK", b"NO ", b"BYE ", b'"SASL" ', b'"LOGIN PLAIN"', b'"IMPLEMENTATION" ', b'"Cyrus"', b'"XCLIENT"', b'"'),
        *(b"{0}", b"{3}", b"{3+}", b"{99999999999999999999}", b"(", b")", b'(TAG "mailgate")', b"(TRYLATER) "),
        *(b'(SASL "cnNwYXV0aD0=")', b"\\", b"\r\n", b"\n", b" "),
    ),
}


def _login(script: Script) -> Run:
    """The result of a login. Each line comes alone: what arrives before a command is no reply to it, and is refused."""

    def run(pieces: Sequence[bytes]) -> Any:
        (data,) = pieces
        _play(script, pieces)
        whole = _play(script, data.splitlines(keepends=True))
        single = _play(script, [bytes((byte,)) for byte in data])
        assert single == whole, f"byte by byte: {single!r}\nline by line: {whole!r}"

    return run


def _play(script: Script, pieces: Sequence[bytes]) -> Any:
    """Return what the backend hears, and the result of the login. The backend closes at the end."""
    attempt = script.begin()
    transport, heard = attempt.transport, b""
    for piece in pieces:
        heard += attempt.says(piece)
        client = transport.protocol
        if isinstance(client, ProxyClient) and not client.leftOver:
            assert len(client._buffer) <= _BUFFER[script.record.name] + len(piece), (
                "the buffer is longer than its limit"
            )
    transport.lose(ConnectionDone())
    results: list[Any] = []
    attempt.result.addBoth(results.append)
    (result,) = results
    assert all(line == oneLine(line) for line in attempt.log), attempt.log
    if isinstance(result, ProxyClient):
        return heard, "in", result.reply
    assert isinstance(result, Denial | Refusal), result
    return heard, result


def _replies(script: Script) -> bytes:
    return b"".join(said for said, _ in script.steps)


TARGETS = tuple(
    Target(f"{name}backend{number}", _login(script), mutations([_replies(script)], _WORDS[name]), 20, isCut=False)
    for name in _WORDS
    for number, script in enumerate(each for each in SCRIPTS if each.record.name == name)
)
