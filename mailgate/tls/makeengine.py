# -*- test-case-name: mailgate.test.tls.test_makeengine -*-
"""
Makes a TLS connection from what C{startTLS} takes, and the best L{TLSEngine} for it.

L{FastEngine} relies on private parts of the installed pyOpenSSL. So it is tested before its first use, in a short
conversation with a L{PublicEngine} that takes a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import cache, partial
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator

from mailgate.tls.engine import PeerClosed, PublicEngine, TLSEngine, Verification
from mailgate.tls.fastengine import FastBinding, FastEngine
from mailgate.tls.tickets import ITicketReader

__all__ = ["EngineKind", "chooseKind", "fastEngineWorks", "makeEngine"]

EngineKind = Callable[[SSL.Connection], TLSEngine]


def _connect(contextFactory: Any, server: bool) -> SSL.Connection:
    """
    Make a connection.

    @raise TypeError: C{startTLS} would not accept C{contextFactory}.
    """
    if server and ITicketReader.providedBy(contextFactory):
        # It does not call failVerification().
        connection = contextFactory.newConnection()
        connection.set_accept_state()
        return connection
    verification: Any = Verification()
    if server and IOpenSSLServerConnectionCreator.providedBy(contextFactory):
        connection = contextFactory.serverConnectionForTLS(verification)
    elif not server and IOpenSSLClientConnectionCreator.providedBy(contextFactory):
        connection = contextFactory.clientConnectionForTLS(verification)
    elif hasattr(contextFactory, "getContext"):
        connection = SSL.Connection(contextFactory.getContext(), None)
    else:
        raise TypeError(
            f"{type(contextFactory).__name__} makes no connections for a {'server' if server else 'client'}"
        )
    if server:
        connection.set_accept_state()
    else:
        connection.set_connect_state()
    connection.set_app_data(verification)
    return connection


def makeEngine(contextFactory: object, server: bool, kind: EngineKind | None = None) -> TLSEngine:
    """
    Make an engine.

    @param contextFactory: what C{startTLS} takes. If it reads tickets (L{ITicketReader}), selecting by tickets is left
        to the caller.
    @param server: whether this end is the server.
    @param kind: makes the engine from a connection; L{None} is for the best kind.
    @raise TypeError: C{contextFactory} makes no connections for this side.
    """
    return (kind or _bestKind())(_connect(contextFactory, server))


def fastEngineWorks() -> bool:
    """Whether L{FastEngine} works with the installed pyOpenSSL. The result is cached."""
    return _bestKind() is not PublicEngine


@cache
def _bestKind() -> EngineKind:
    return chooseKind(_private)


def _private() -> tuple[Any, Any]:
    """pyOpenSSL's bindings to OpenSSL: the functions, and cffi."""
    from OpenSSL._util import ffi, lib

    return lib, ffi


def chooseKind(private: Callable[[], tuple[Any, Any]]) -> EngineKind:
    """
    Select the kind of engine.

    @param private: returns pyOpenSSL's bindings to OpenSSL: the functions, and cffi.
    @return: L{FastEngine} with these, if it passes a test, or else L{PublicEngine}.
    """
    try:
        kind = partial(FastEngine, binding=FastBinding(*private()))
        works = _talks(kind) and _refuses(kind)
    # pyOpenSSL's private parts have changed: any exception is possible, and PublicEngine needs none of them.
    except Exception:
        works = False
    return kind if works else PublicEngine


def _talks(kind: EngineKind) -> bool:
    """Whether an engine of C{kind} exchanges data with a public one, and both notice the end."""
    engine, peer = _acquainted(kind)
    data = bytes(range(256)) * 160
    engine.write(data)
    _carry(engine, peer)
    engine.settle()
    understood = _read(peer, len(data)) == data
    peer.write(data)
    ciphertext = bytes(peer.output())
    engine.feed(ciphertext[:20000])
    received = _read(engine, len(data))
    engine.settle()
    engine.forget()
    engine.feed(ciphertext[20000:])
    received += _read(engine, len(data))
    engine.closeNotify()
    _carry(engine, peer)
    peer.closeNotify()
    _carry(peer, engine)
    return understood and received == data and _hasClosed(peer) and _hasClosed(engine)


def _refuses(kind: EngineKind) -> bool:
    """Whether engines of C{kind} refuse a forged record and a forged handshake, with a reason and an alert."""
    (engine, _), stranger = _acquainted(kind), kind(_server())
    engine.feed(b"\x17\x03\x03\x00\x20" + bytes(32))
    stranger.feed(b"\x16\x03\x01\x00\x05hello")
    for refusing, attempt in ((engine, engine.read), (stranger, stranger.handshake)):
        try:
            attempt()
        except SSL.Error as error:
            if error.args[0] and refusing.output():
                continue
        return False
    return True


def _acquainted(kind: EngineKind) -> tuple[TLSEngine, TLSEngine]:
    """An engine of C{kind} and a public one that have completed a handshake."""
    client = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    client.set_connect_state()
    engine, peer = kind(_server()), PublicEngine(client)
    for _ in range(3):
        peer.handshake()
        _carry(peer, engine)
        engine.handshake()
        _carry(engine, peer)
    assert engine.handshaken and peer.handshaken
    return engine, peer


def _server() -> SSL.Connection:
    connection = SSL.Connection(_selfSigned(), None)
    connection.set_accept_state()
    return connection


def _carry(source: TLSEngine, target: TLSEngine) -> None:
    target.feed(bytes(source.output()))


def _read(engine: TLSEngine, size: int) -> bytes:
    """What C{engine} has to read. Stops if that is more than C{size} bytes."""
    plaintext = b""
    while len(plaintext) <= size and (read := engine.read()) is not None:
        plaintext += read
    return plaintext


def _hasClosed(engine: TLSEngine) -> bool:
    """Whether the next read of C{engine} is the end."""
    try:
        engine.read()
    except PeerClosed:
        return True
    return False


@cache
def _selfSigned() -> SSL.Context:
    """The context of a server with a self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mailgate")])
    today = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today)
        .not_valid_after(today + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    return context
