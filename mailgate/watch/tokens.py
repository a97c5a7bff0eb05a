# -*- test-case-name: mailgate.test.watch.test_tokens -*-
"""
The clients that the admin server accepts over TCP: C{admin_token_file}. Each line is C{NAME LEVEL TOKEN}, or
C{NAME LEVEL certificate} for a client certificate with the common name NAME. LEVEL is C{read}, C{operate} or C{admin}.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
from collections.abc import Iterator
from enum import IntEnum
from hashlib import sha256

from attrs import field, frozen

from mailgate.directives import nearest
from mailgate.system.regularfiles import openRegular, writers

__all__ = ["CERTIFICATE", "LEAST", "MOST", "Grant", "Level", "TokenError", "Tokens", "parseTokens", "readTokens"]

LEAST = 20
"""
The least characters of a token. So many random letters and digits cannot be guessed over the network.
"""

MOST = 64 * 1024
"""The most bytes of the file."""

CERTIFICATE = "certificate"
"""The word in place of a token."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TOKEN = re.compile(r"[!-~]+")


class Level(IntEnum):
    """What a client of the admin server may do. Each level includes those before it."""

    NONE = 0
    """Without a token: health only."""
    READ = 1
    """Numbers, backends, servers: no user names."""
    OPERATE = 2
    """Sessions with their users, and their ends."""
    ADMIN = 3
    """Orders that change the gateway."""

    @property
    def word(self) -> str:
        """Its name in C{admin_token_file} and in messages."""
        return self.name.lower()


_LEVELS = {level.word: level for level in Level if level is not Level.NONE}


class TokenError(ValueError):
    """The file of tokens cannot be used; the text says why, with the number of the line. It contains no token."""


@frozen
class Grant:
    """
    One line of the file.

    @ivar name: the name of the client, for the log.
    @ivar level: what it may do.
    @ivar hidden: SHA-256 of its token; empty for a client certificate.
    """

    name: str
    level: Level
    hidden: bytes = field(default=b"", repr=False)


@frozen
class Tokens:
    """
    The content of the file.

    @ivar grants: its lines.
    """

    grants: tuple[Grant, ...] = ()

    def ofToken(self, token: bytes) -> Grant | None:
        """
        Find the client with a token. It takes the same time for all wrong tokens.

        @param token: the token.
        @return: the client; L{None} if the token is wrong.
        """
        hidden = sha256(token).digest()
        found = None
        for grant in self.grants:
            if hmac.compare_digest(grant.hidden, hidden):
                found = grant
        return found

    def ofCertificate(self, name: str) -> Grant | None:
        """
        Find the client with a certificate.

        @param name: the common name of the verified certificate.
        @return: the client; L{None} if the file has no line for it.
        """
        return next((grant for grant in self.grants if not grant.hidden and grant.name == name), None)


def readTokens(path: str) -> Tokens:
    """
    Read the file of tokens.

    @param path: its path.
    @raise TokenError: it cannot be read, other users can read or change it, or a line is not valid.
    """
    try:
        with openRegular(path) as opened:
            mode = os.fstat(opened.fileno()).st_mode
            content = opened.read(MOST + 1)
    except OSError as error:
        raise TokenError(f"cannot be read: {error.strerror}") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise TokenError(f"every user on this host can open it; run: chmod o-rw {path}")
    reason = writers(path)
    if reason is not None:
        raise TokenError(f"is not safe: {reason}")
    if len(content) > MOST:
        raise TokenError(f"is longer than {MOST // 1024} KiB")
    return parseTokens(content)


def parseTokens(content: bytes) -> Tokens:
    """
    Parse the content of the file of tokens. Empty lines and those that begin with C{#} are comments.

    @param content: the content.
    @raise TokenError: a line is not valid, or there is none.
    """
    grants = tuple(_grants(content))
    if not grants:
        raise TokenError("contains no token")
    return Tokens(grants)


def _grants(content: bytes) -> Iterator[Grant]:
    names: set[str] = set()
    hidden: set[bytes] = set()
    for number, raw in enumerate(content.split(b"\n"), 1):
        line = raw.decode("utf-8", "replace").strip()
        if not line or line.startswith("#"):
            continue
        try:
            grant = _grant(line.split())
            if grant.name in names:
                raise TokenError(f'the name "{grant.name}" is repeated')
            if grant.hidden in hidden and grant.hidden:
                raise TokenError(f'"{grant.name}" has the token of another name')
        except TokenError as error:
            raise TokenError(f"line {number}: {error}") from None
        names.add(grant.name)
        hidden.add(grant.hidden)
        yield grant


def _grant(words: list[str]) -> Grant:
    if len(words) != 3:
        raise TokenError("must be NAME, then read, operate or admin, then TOKEN")
    name, word, token = words
    if not _NAME.fullmatch(name):
        raise TokenError("the name must be at most 64 letters, digits, dots, @, - and _")
    level = _LEVELS.get(word)
    if level is None:
        # The word is not quoted: it may be the token, at the wrong place.
        raise TokenError(f"the second word must be read, operate or admin{nearest(word, list(_LEVELS))}")
    if token == CERTIFICATE:
        return Grant(name, level)
    if not _TOKEN.fullmatch(token):
        raise TokenError("the token must be printable ASCII")
    if len(token) < LEAST:
        raise TokenError(f"the token is shorter than {LEAST} characters; make one with: openssl rand -hex 20")
    return Grant(name, level, sha256(token.encode("ascii")).digest())
