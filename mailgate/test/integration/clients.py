# -*- test-case-name: mailgate.test.integration -*-
"""
Real mail clients. Each connects to a given address, verifies the server's certificate, and has its own timeout.
"""

from __future__ import annotations

import imaplib
import os
import poplib
import smtplib
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.programs import programPath
from mailgate.test.integration.sieveclient import SieveClient
from mailgate.test.integration.site import Address

__all__ = ["arrived", "context", "curl", "imap", "mbsync", "message", "pop3", "run", "send", "sieve", "smtp", "swaks"]

PATIENCE = 30
"""Seconds until a client gives up."""


def message(subject: str, body: str = "Down the rabbit-hole.\r\n", sender: str = "white@rabbit.example") -> bytes:
    """A message, with CRLF at the end of each line."""
    return f"From: {sender}\r\nTo: somebody@example.com\r\nSubject: {subject}\r\n\r\n{body}".encode()


def run(program: str, arguments: Sequence[str], given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a program with the input C{given}; all its output is in C{stdout}."""
    path = programPath(program)
    assert path is not None
    return subprocess.run(
        [path, *arguments], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=3 * PATIENCE
    )


def context(address: Address) -> ssl.SSLContext:
    """The TLS context of a Python client."""
    return ssl.create_default_context(cafile=address.authority)


@contextmanager
def imap(address: Address, user: str = "", password: str = PASSWORD) -> Iterator[imaplib.IMAP4]:
    """imaplib, logged in as C{user} where one is given."""
    client: imaplib.IMAP4
    if address.tls == "implicit":
        client = imaplib.IMAP4_SSL(address.host, address.port, ssl_context=context(address), timeout=PATIENCE)
    else:
        client = imaplib.IMAP4(address.host, address.port, timeout=PATIENCE)
    try:
        if address.tls == "starttls":
            client.starttls(context(address))
        if user:
            client.login(user, password)
        yield client
    finally:
        with suppress(OSError, imaplib.IMAP4.error):
            client.logout()
        client.sock.close()


@contextmanager
def pop3(address: Address, user: str = "", password: str = PASSWORD) -> Iterator[poplib.POP3]:
    """poplib, logged in as C{user} where one is given."""
    client: poplib.POP3
    if address.tls == "implicit":
        client = poplib.POP3_SSL(address.host, address.port, context=context(address), timeout=PATIENCE)
    else:
        client = poplib.POP3(address.host, address.port, timeout=PATIENCE)
    try:
        if address.tls == "starttls":
            client.stls(context(address))
        if user:
            client.user(user)
            client.pass_(password)
        yield client
    finally:
        with suppress(OSError, poplib.error_proto):
            client.quit()
        # If TLS has failed, the socket is closed already.
        with suppress(OSError):
            client.close()


@contextmanager
def smtp(address: Address, user: str = "", password: str = PASSWORD) -> Iterator[smtplib.SMTP]:
    """smtplib, logged in as C{user} where one is given. It greets as C{client.example}."""
    client: smtplib.SMTP
    if address.tls == "implicit":
        client = smtplib.SMTP_SSL(
            address.host, address.port, "client.example", timeout=PATIENCE, context=context(address)
        )
    else:
        client = smtplib.SMTP(address.host, address.port, "client.example", timeout=PATIENCE)
    try:
        if address.tls == "starttls":
            client.starttls(context=context(address))
        if user:
            client.login(user, password)
        yield client
    finally:
        with suppress(OSError, smtplib.SMTPException):
            client.quit()
        client.close()


@contextmanager
def sieve(address: Address, user: str = "", password: str = PASSWORD) -> Iterator[SieveClient]:
    """A ManageSieve client, logged in as C{user} where one is given."""
    client = SieveClient(address)
    try:
        if user:
            assert client.login(user, password).startswith(b"OK")
        yield client
    finally:
        client.close()


def send(address: Address, user: str, subject: str, body: str = "Down the rabbit-hole.\r\n") -> None:
    """Submit a message from C{user} to that user."""
    with smtp(address, user) as client:
        client.sendmail(f"{user}@example.com", [f"{user}@example.com"], message(subject, body))


def arrived(address: Address, user: str, subject: str) -> bytes:
    """The message in the INBOX of C{user}, as soon as it arrives."""
    found: list[bytes] = []

    def look() -> bool:
        client.select(readonly=True)
        numbers = client.search(None, "SUBJECT", f'"{subject}"')[1][0].split()
        for number in numbers:
            response: Any = client.fetch(number.decode(), "BODY.PEEK[]")[1]
            found.append(response[0][1])
        return bool(found)

    with imap(address, user) as client:
        waitUntil(look, f"{subject} is in the mailbox of {user}")
    return found[0]


_SCHEMES = {
    ("imap", "implicit"): "imaps",
    ("pop3", "implicit"): "pop3s",
    ("smtp", "implicit"): "smtps",
}


def curl(
    address: Address, path: str, *options: str, login: str = "", given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """curl, with C{USER:PASSWORD} in C{login}; C{path} is what follows host, port and slash."""
    scheme = _SCHEMES.get((address.protocol, address.tls), address.protocol)
    arguments = ["--silent", "--show-error", "--max-time", str(PATIENCE), "--cacert", address.authority]
    if address.tls == "starttls":
        arguments.append("--ssl-reqd")
    if login:
        arguments += ["--user", login]
    return run("curl", [*arguments, *options, f"{scheme}://{address.host}:{address.port}/{path}"], given)


_SWAKS_TLS = {"plain": [], "starttls": ["--tls"], "implicit": ["--tls-on-connect"]}


def swaks(address: Address, to: str, subject: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    """swaks, which sends a message and prints the whole conversation."""
    arguments = [
        *("--server", address.host, "--port", str(address.port), "--timeout", str(PATIENCE)),
        *("--helo", "swaks.example", "--from", "sender@example.com", "--to", to),
        *("--header", f"Subject: {subject}"),
        *_SWAKS_TLS[address.tls],
    ]
    if address.tls != "plain":
        arguments += ["--tls-verify", "--tls-ca-path", address.authority]
    return run("swaks", [*arguments, *options])


_MBSYNC_TLS = {"plain": "None", "starttls": "STARTTLS", "implicit": "IMAPS"}

_MBSYNCRC = """
IMAPAccount gateway
Host {address.host}
Port {address.port}
User {user}
Pass {password}
SSLType {tls}
SystemCertificates no
CertificateFile {address.authority}
AuthMechs LOGIN
Timeout {patience}

IMAPStore far
Account gateway

MaildirStore near
Path {folder}/
Inbox {folder}/INBOX

Channel all
Far :far:
Near :near:
Patterns INBOX
Create Both
Sync All
SyncState *
"""


def mbsync(address: Address, user: str, folder: str, password: str = PASSWORD) -> subprocess.CompletedProcess[bytes]:
    """mbsync, which synchronizes the maildir C{folder}/INBOX and the INBOX of C{user}."""
    configuration = os.path.join(folder, "mbsyncrc")
    with open(configuration, "w") as file:
        file.write(
            _MBSYNCRC.format(
                address=address,
                user=user,
                password=password,
                tls=_MBSYNC_TLS[address.tls],
                patience=PATIENCE,
                folder=folder,
            )
        )
    return run("mbsync", ["--config", configuration, "--all"])
