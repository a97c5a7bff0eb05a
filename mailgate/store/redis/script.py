# -*- test-case-name: mailgate.test.store.test_contract mailgate.test.store.test_redis -*-
"""
Scripts that the store runs: each is one round trip, and nothing else happens meanwhile. They need Redis 6.2 or Valkey.

Names of keys are built in the scripts, of digests that come packed: that takes the keeper less time than sending each
of them. Redis Cluster is not supported for that, and because a script reads keys of different slots.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Sequence
from hashlib import sha1

from attrs import frozen

from mailgate.store.keys import DIGEST

__all__ = ["PREFIX", "Script", "keyPart", "keyParts", "packed", "script"]

PREFIX = "mg:1:"
"""What all keys and channels begin with. The number is that of this form of keys and values."""

_FILL = b"\0\0"
"""What is added to a digest, so that base64 takes whole groups of letters."""

_GROUP, _LETTERS = 24, 22
"""The letters of a digest with what is added, and those that are the key's."""

_NO_DIGEST = bytes(DIGEST)

_SAFE = bytes.maketrans(b"+/", b"-_")

_COMMON = """
local function micros()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end
local function millis()
  return math.floor(micros() / 1000)
end
local function digest(packed, i)
  return string.sub(packed, 24 * i - 23, 24 * i - 2)
end
local function ttl(micros)
  return math.max(1, math.ceil(micros / 1000))
end
"""


@frozen(eq=False)
class Script:
    """
    A script.

    @ivar name: what it is called in the log.
    @ivar source: in Lua.
    @ivar sha: its hash, by which C{EVALSHA} calls it.
    """

    name: str
    source: str
    sha: str


def script(name: str, *parts: str) -> Script:
    """
    Return a script, with what all scripts have in common.

    @param name: what it is called in the log.
    @param parts: its source, in Lua.
    """
    source = "".join([_COMMON, *parts])
    return Script(name, source, sha1(source.encode("ascii"), usedforsecurity=False).hexdigest())


def packed(*digests: bytes) -> bytes:
    """
    Return digests in the form in which scripts take them.

    @param digests: each of 16 bytes, or empty.
    """
    filled = _FILL.join([each or _NO_DIGEST for each in digests]) + _FILL
    return b2a_base64(filled, newline=False).translate(_SAFE)


def keyParts(digests: Sequence[bytes]) -> list[bytes]:
    """Return what stands for digests in keys: base64url (RFC 4648). C{digests} have 16 bytes each."""
    text = packed(*digests) if digests else b""
    return [text[at : at + _LETTERS] for at in range(0, len(text), _GROUP)]


def keyPart(digest: bytes) -> str:
    """Return what stands for a digest in a key. C{digest} has 16 bytes."""
    return packed(digest)[:_LETTERS].decode()
