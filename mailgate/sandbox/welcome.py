# -*- test-case-name: mailgate.test.sandbox.test_welcome -*-
"""
What the demo prints when it is up: where it listens, who its users are, and commands to paste.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from mailgate.directives import ListenAddress, ServerSettings
from mailgate.sandbox.settings import SandboxSettings, SandboxUser
from mailgate.tls.settings import TLSSettings

__all__ = ["welcome"]

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}
_READ = {"imap": "/INBOX;MAILINDEX=*", "pop3": "/1"}
"""The newest message by IMAP, which may be the one just sent; POP3 has no way to ask for it."""


def welcome(servers: Sequence[ServerSettings], sandbox: SandboxSettings, certificate: str | None) -> str:
    """
    The text, without a last newline. C{certificate} is the path of what the servers show, where curl does not trust
    it anyway.
    """
    addresses = [(server, address) for server in servers for address in server.listen if address.port]
    lines = ["mailgate is up. It serves", ""]
    for server, address in addresses:
        lines.append(f"    {server.protocol:<5} {address!s:<22} {_protection(server, address)}")
    lines += ["", f"to the users of the domain {sandbox.domain}", ""]
    lines += [f"    {user.name:<12} password {user.password}" for user in sandbox.users]
    lines += ["", "Mailboxes are kept in memory and end with it. Commands to try, sending first:", ""]
    lines += [f"    {line}" for line in _commands(addresses, sandbox, certificate)]
    return "\n".join(lines)


def _starttls(server: ServerSettings, address: ListenAddress) -> bool:
    return not address.ssl and server[TLSSettings].starttls != "off"


def _protection(server: ServerSettings, address: ListenAddress) -> str:
    if address.ssl:
        return "TLS from the first byte"
    return {"on": "STARTTLS offered", "only": "STARTTLS demanded"}.get(server[TLSSettings].starttls, "in the clear")


def _commands(
    addresses: Sequence[tuple[ServerSettings, ListenAddress]], sandbox: SandboxSettings, certificate: str | None
) -> Iterator[str]:
    sender, recipient = sandbox.users[0], sandbox.users[-1]
    sending = [entry for entry in addresses if entry[0].protocol == "smtp"]
    reading = [entry for entry in addresses if entry[0].protocol in _READ]
    for server, address in sending:
        yield (
            rf"printf 'From: {sender.name}@{sandbox.domain}\r\nTo: {recipient.name}@{sandbox.domain}\r\n"
            rf"Subject: Hello\r\n\r\nHello, {recipient.name}.\r\n' | "
            + _curl(server, address, certificate, sender, "")
            + f" --mail-from {sender.name}@{sandbox.domain} --mail-rcpt {recipient.name}@{sandbox.domain}"
            " --upload-file -"
        )
    for server, address in reading:
        yield _curl(server, address, certificate, recipient, _READ[server.protocol])


def _curl(server: ServerSettings, address: ListenAddress, certificate: str | None, user: SandboxUser, path: str) -> str:
    words = ["curl", "-sS"]
    if certificate is not None and (address.ssl or _starttls(server, address)):
        words += ["--cacert", certificate]
    if _starttls(server, address):
        words.append("--ssl-reqd")
    host = _WILDCARDS.get(address.host, address.host)
    host = f"[{host}]" if ":" in host else host
    scheme = server.protocol + ("s" if address.ssl else "")
    words += ["--user", f"{user.name}:{user.password}", f"{scheme}://{host}:{address.port}{path}"]
    return shlex.join(words)
