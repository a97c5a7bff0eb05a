# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""Conversations about addresses, PROXY headers, TLS and time, the same in all protocols."""

from __future__ import annotations

from collections.abc import Iterator

from mailgate.test.integration.conversation import TLS, Conversation, Raw, talk
from mailgate.test.integration.conversations_auth import LOGIN
from mailgate.test.integration.scripted import SILENCE

__all__ = ["CONVERSATIONS"]

HEADERS = {
    "ipv4": "PROXY TCP4 192.0.2.1 192.0.2.2 1234 25\r\n",
    "ipv6": "PROXY TCP6 2001:db8::1 2001:db8::2 1234 25\r\n",
    "unknown": "PROXY UNKNOWN\r\n",
    "unknown with addresses": "PROXY UNKNOWN 192.0.2.1 192.0.2.2 1234 25\r\n",
    "version 2": "\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\x04\xd2\0\x19",
    "version 2 local": "\r\n\r\n\0\r\nQUIT\n \0\0\0",
}

BROKEN = {
    "missing": "NOOP\r\n",
    "without ports": "PROXY TCP4 192.0.2.1 192.0.2.2\r\n",
    "of another family": "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
    "port too large": "PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n",
    "lower case": "proxy tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
}


def _behindHeaders(protocol: str, login: tuple[str, ...]) -> Iterator[Conversation]:
    for name, header in HEADERS.items():
        yield talk(f"{protocol} proxy {name}", f"{protocol}-fromproxy", *login, first=header)
        yield talk(f"{protocol} proxy {name} and tls", f"{protocol}-fromproxy-ssl", *login, first=header)
        yield talk(f"{protocol} real {name}", f"{protocol}-real", *login, first=header)
    for name, header in BROKEN.items():
        yield talk(f"{protocol} proxy broken {name}", f"{protocol}-fromproxy", *login, first=header)
    yield talk(f"{protocol} proxy to the backend", f"{protocol}-toproxy", *login)
    yield talk(f"{protocol} proxy refused", f"{protocol}-toproxy", *login, backend={"GREETING": ""})


def _certificates(protocol: str, login: tuple[str, ...]) -> Iterator[Conversation]:
    start = {"imap": "a STARTTLS", "pop3": "STLS", "smtp": "STARTTLS"}[protocol]
    for certificate in ("", "good", "strange", "misused"):
        for server in ("wanted", "needed"):
            name = f"{protocol} certificate {server} {certificate or 'none'}"
            isRefused = certificate in ("strange", "misused") or (server == "needed" and not certificate)
            steps = (Raw(""),) if isRefused else login
            yield talk(name, f"{protocol}-{server}", start, TLS, *steps, kind=certificate)
        name = f"{protocol} certificate shown {certificate or 'none'}"
        yield talk(name, f"{protocol}-shown", *login, kind=certificate)
    yield talk(f"{protocol} certificate needed in the clear", f"{protocol}-needed", *login)


def _elsewhere(protocol: str, login: tuple[str, ...]) -> Iterator[Conversation]:
    start = {"imap": "a STARTTLS", "pop3": "STLS", "smtp": "STARTTLS"}[protocol]
    yield talk(f"{protocol} unix socket", f"{protocol}-unix", *login)
    yield talk(f"{protocol} proxy unix socket", f"{protocol}-tounix", *login)
    yield talk(f"{protocol} alpn", f"{protocol}-ssl", *login, kind="alpn")
    yield talk(f"{protocol} alpn behind starttls", f"{protocol}-starttls", start, TLS, *login, kind="alpn")
    yield talk(f"{protocol} alpn of http", f"{protocol}-ssl", kind="http")
    yield talk(f"{protocol} alpn of http behind starttls", f"{protocol}-starttls", start, TLS, kind="http")
    yield talk(f"{protocol} clear text to tls", f"{protocol}-ssl", first="EHLO client.example\r\n")
    yield talk(f"{protocol} no tls behind starttls", f"{protocol}-starttls", start, Raw("EHLO client.example\r\n"))


def _late(protocol: str, login: tuple[str, ...]) -> Iterator[Conversation]:
    yield talk(f"{protocol} late client", f"{protocol}-quick", Raw(""))
    yield talk(f"{protocol} late service", f"{protocol}-quick", *login, auth=SILENCE)
    yield talk(f"{protocol} late backend", f"{protocol}-quick", *login, backend={"GREETING": SILENCE})


CONVERSATIONS = tuple(
    conversation
    for protocol, login in LOGIN.items()
    for conversations in (_behindHeaders, _certificates, _elsewhere, _late)
    for conversation in conversations(protocol, login)
)
