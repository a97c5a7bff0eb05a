# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
The record of a conversation, in a form that can be compared.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from attrs import frozen

__all__ = ["Normal", "Transcript", "lines"]


@frozen
class Transcript:
    """
    The parts of a conversation that are compared: what the client sent and received, the requests of the authentication
    service, and what the backend received. Each has one line, with everything but printable ASCII escaped.
    """

    client: str
    auth: str
    backend: str


def lines(data: bytes, prefix: str) -> list[str]:
    """C{data} in the form of a L{Transcript}."""
    *ended, rest = data.split(b"\n")
    whole = [*(part + b"\n" for part in ended), *filter(None, [rest])]
    return [prefix + part.decode("latin-1").encode("unicode_escape").decode("ascii") for part in whole]


class Normal:
    """
    Makes the transcripts of two proxies equal where they must differ: ports, and the challenges of digest methods,
    which are numbered instead.
    """

    def __init__(self, ports: Mapping[int, str]) -> None:
        self._ports = {str(port).encode(): name.encode() for port, name in ports.items()}
        self._salts: dict[bytes, bytes] = {}

    def __call__(self, data: bytes) -> bytes:
        data = re.sub(rb"(?m)^((?:\+|334) )([A-Za-z0-9+/]{24,}=*)(?=\r\n)", self._challenge, data)
        data = re.sub(rb"<[0-9]+\.[0-9]+@", self._salt, data)
        return re.sub(rb"\b[0-9]{4,5}\b", lambda number: self._ports.get(number[0], number[0]), data)

    def _challenge(self, match: re.Match[bytes]) -> bytes:
        try:
            challenge = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            return match[0]
        return match[1] + b"base64 of " + challenge

    def _salt(self, match: re.Match[bytes]) -> bytes:
        return self._salts.setdefault(match[0], b"<SALT%d@" % (len(self._salts) + 1))
