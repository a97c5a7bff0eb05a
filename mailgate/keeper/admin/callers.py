# -*- test-case-name: mailgate.test.keeper.admin.test_callers -*-
"""
Finds out who sends a request to the admin server: a process at the unix socket, or a client with a token or a
certificate.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode
from collections.abc import Collection
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from mailgate.keeper.admin.asked import Asked, Peer
from mailgate.keeper.admin.replies import Refused
from mailgate.log.journal import Journal, oneLine, printable
from mailgate.watch.tokens import Grant, Level, TokenError, Tokens, readTokens

__all__ = ["Caller", "Callers", "TokenFile"]

PENALTY = 1.0
"""Seconds until the answer to a wrong token. Meanwhile its connection answers nothing else, and ends then."""

_BEARER = re.compile(rb"bearer +([!-~]+) *", re.IGNORECASE)
_BASIC = re.compile(rb"basic +([A-Za-z0-9+/=]+) *", re.IGNORECASE)
_CHALLENGE = ((b"WWW-Authenticate", b'Bearer realm="mailgate"'),)
_BASIC_CHALLENGE = ((b"WWW-Authenticate", b'Basic realm="mailgate", charset="UTF-8"'),)


def _challenges(isBasic: bool) -> tuple[tuple[bytes, bytes], ...]:
    return _BASIC_CHALLENGE if isBasic else _CHALLENGE


def _passwordIn(authorization: bytes) -> bytes | None:
    """The password of HTTP's basic authentication; L{None} if there is none. The user name may be anything."""
    match = _BASIC.fullmatch(authorization)
    if match is None:
        return None
    try:
        return b64decode(match[1], validate=True).partition(b":")[2]
    except ValueError:
        return None


@frozen
class Caller:
    """
    Who sends a request.

    @ivar level: what it may do.
    @ivar name: who it is, for the log.
    """

    level: Level
    name: str


class TokenFile:
    """
    The file of tokens. It is read again when it changes. While it is not valid, no token is: a token that was taken out
    of the file must not stay valid because of another mistake in it.

    @param path: its path; L{None} for no tokens.
    """

    _log = Logger("mailgate")

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._state: Any = None
        self._tokens = Tokens()

    @property
    def tokens(self) -> Tokens:
        """The tokens that are valid now."""
        if self._path is None:
            return self._tokens
        try:
            found = os.stat(self._path)
            state: Any = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        except OSError as error:
            state = error.errno
        if state != self._state:
            self._state = state
            self._read(self._path)
        return self._tokens

    def _read(self, path: str) -> None:
        try:
            self._tokens = readTokens(path)
        except TokenError as error:
            self._tokens = Tokens()
            self._log.error(
                "admin_token_file {path}: {reason}; no token is accepted until it is corrected",
                path=oneLine(path),
                reason=oneLine(str(error)),
            )


class Callers:
    """
    Finds out who sends requests.

    @param tokens: the tokens.
    @param owners: the users whose processes may use the unix socket.
    @param journal: the log.
    """

    def __init__(self, tokens: TokenFile, owners: Collection[int], journal: Journal) -> None:
        self._tokens = tokens
        self._owners = frozenset(owners)
        self._journal = journal

    def find(self, asked: Asked, isBasic: bool = False) -> Caller:
        """
        Find out who sends a request.

        @param asked: the request.
        @param isBasic: whether the token may also be the password of HTTP's basic authentication (RFC 7617).
        @raise Refused: nothing says who it is, or it has no access.
        """
        if asked.peer.isLocal:
            return self._local(asked.peer)
        authorization = asked.header("Authorization")
        if authorization is not None:
            return self._withToken(asked.peer, authorization, isBasic)
        if asked.peer.certificate is not None:
            return self._withCertificate(asked.peer, asked.peer.certificate)
        raise Refused(401, "the header field Authorization: Bearer TOKEN is missing", headers=_challenges(isBasic))

    def _local(self, peer: Peer) -> Caller:
        if peer.uid is None:
            # The system does not say which user it is. The mode of the socket's file has let it in.
            return Caller(Level.ADMIN, "a process at the admin socket")
        if peer.uid not in self._owners:
            self._journal.warn(
                "admin request refused: only root and the user of the gateway may use the admin socket; it came from"
                " uid {uid}, pid {pid}",
                uid=peer.uid,
                pid=peer.pid,
            )
            raise Refused(403, "only root and the user of the gateway may use this socket", closes=True)
        return Caller(Level.ADMIN, f"uid {peer.uid}, pid {peer.pid}")

    def _withToken(self, peer: Peer, authorization: bytes, isBasic: bool) -> Caller:
        match = _BEARER.fullmatch(authorization)
        token = match[1] if match is not None else _passwordIn(authorization) if isBasic else None
        grant = None if token is None else self._tokens.tokens.ofToken(token)
        if grant is None:
            self._journal.warn("admin request refused: wrong token; client {client}", client=peer.address)
            raise Refused(401, "the token is wrong", headers=_challenges(isBasic), closes=True, delay=PENALTY)
        return self._caller(grant, "token", peer)

    def _withCertificate(self, peer: Peer, name: str) -> Caller:
        grant = self._tokens.tokens.ofCertificate(name)
        if grant is None:
            self._journal.warn(
                'admin request refused: certificate not in admin_token_file; client {client}, name "{name}"',
                client=peer.address,
                name=printable(name.encode("utf-8", "surrogateescape")),
            )
            raise Refused(403, "admin_token_file has no line for this certificate", closes=True, delay=PENALTY)
        return self._caller(grant, "certificate", peer)

    def _caller(self, grant: Grant, kind: str, peer: Peer) -> Caller:
        return Caller(grant.level, f"{kind} {grant.name}, client {peer.address}")
