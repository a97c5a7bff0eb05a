# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""What comes before a dialogue or a login, the same in all protocols: PROXY headers and certificates of clients."""

from __future__ import annotations

from collections.abc import Iterator

from mailgate.test.integration.conversation import TLS, Conversation, Raw, talk
from mailgate.test.integration.conversations_auth import LOGIN

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
            yield talk(name, f"{protocol}-{server}", start, TLS, *steps, certificate=certificate)
        name = f"{protocol} certificate shown {certificate or 'none'}"
        yield talk(name, f"{protocol}-shown", *login, certificate=certificate)
    yield talk(f"{protocol} certificate needed in the clear", f"{protocol}-needed", *login)


CONVERSATIONS = tuple(
    conversation
    for protocol, login in LOGIN.items()
    for conversations in (_behindHeaders, _certificates)
    for conversation in conversations(protocol, login)
)
