# -*- test-case-name: mailgate.test.sandbox.test_welcome -*-
"""
The welcome that the demo prints when it serves: its addresses, its users, and commands to try.
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
"""
Paths that read a message. With IMAP it is the newest one, which may be the one just sent. POP3 cannot ask for the
newest.
"""


def welcome(servers: Sequence[ServerSettings], sandbox: SandboxSettings, certificate: str | None) -> str:
    """
    Make the welcome.

    @param servers: the servers of the gateway.
    @param sandbox: the settings of the sandbox.
    @param certificate: the path of the servers' certificate, which curl does not trust by default; L{None} without TLS.
    @return: the text, without a line end at its end.
    """
    addresses = [(server, address) for server in servers for address in server.listen if address.port]
    lines = ["mailgate is running. It accepts clients at", ""]
    for server, address in addresses:
        lines.append(f"    {server.protocol:<5} {address!s:<22} {_protection(server, address)}")
    lines += ["", f"The users of the domain {sandbox.domain} are", ""]
    lines += [f"    {user.name:<12} password {user.password}" for user in sandbox.users]
    lines += ["", "Mailboxes are in memory: they are lost when mailgate stops."]
    lines += ["Commands to try (send first, then read):", ""]
    lines += [f"    {line}" for line in _commands(addresses, sandbox, certificate)]
    return "\n".join(lines)


def _starttls(server: ServerSettings, address: ListenAddress) -> bool:
    return not address.ssl and server[TLSSettings].starttls != "off"


def _protection(server: ServerSettings, address: ListenAddress) -> str:
    if address.ssl:
        return "TLS from the first byte"
    return {"on": "STARTTLS offered", "only": "STARTTLS required"}.get(server[TLSSettings].starttls, "without TLS")


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
    for server, address in addresses:
        if server.protocol == "sieve" and not address.ssl:
            yield _sieveConnect(server, address, certificate, recipient)


def _host(address: ListenAddress) -> str:
    """The host that a client connects to."""
    return _WILDCARDS.get(address.host, address.host)


def _curl(server: ServerSettings, address: ListenAddress, certificate: str | None, user: SandboxUser, path: str) -> str:
    words = ["curl", "-sS"]
    if certificate is not None and (address.ssl or _starttls(server, address)):
        words += ["--cacert", certificate]
    if _starttls(server, address):
        words.append("--ssl-reqd")
    host = _host(address)
    host = f"[{host}]" if ":" in host else host
    scheme = server.protocol + ("s" if address.ssl else "")
    words += ["--user", f"{user.name}:{user.password}", f"{scheme}://{host}:{address.port}{path}"]
    return shlex.join(words)


def _sieveConnect(server: ServerSettings, address: ListenAddress, certificate: str | None, user: SandboxUser) -> str:
    """A command that lists the scripts of C{user}. It knows no TLS from the first byte."""
    words = ["sieve-connect", "--server", _host(address), "--port", str(address.port), "--user", user.name]
    if not _starttls(server, address):
        words.append("--clearchan")
    elif certificate is not None:
        words += ["--tlscafile", certificate]
    words += ["--passwordfd", "0", "--list"]
    return f"{shlex.join(['printf', '%s', user.password])} | {shlex.join(words)}"
