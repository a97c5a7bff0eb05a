# -*- test-case-name: mailgate.test.keeper.cluster.test_sessionrecords -*-
"""
What the store has of each session: a sealed list of JSON, so that the other gateways can list the sessions of one that
does not answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mailgate.keeper.answers.sessions import textOf
from mailgate.keeper.messages import WireError
from mailgate.keeper.moments import isMoment, moment
from mailgate.log.connection import peerOf
from mailgate.session import Phase
from mailgate.store.seal import Seal, SealBroken

__all__ = ["LONGEST_ID", "Record", "SessionRecords", "readRow"]

Record = tuple[str, str, str, str, str, float]
"""
The user (each byte as a character), the protocol, the name of the server, the client and its port, the backend, and
when the connection began. Later releases may have more.
"""

LONGEST_ID = 24
"""Characters of an id (L{mailgate.sessionids.SessionIds})."""

_TEXTS = 5
_LONGEST_TEXT = 1024
_LONGEST = 2048
_LONGEST_RECORD = 8192
_FIELDS = 5


def readRow(row: Any) -> tuple[str, str, str, str, bytes]:
    """
    Read what a process has told about a session (L{mailgate.keeper.feed.rowOf}). What is kept for other gateways is
    checked by those that read it.

    @param row: a value of JSON.
    @return: the id, the user (each byte as a character), the protocol, the address of the client, and the L{Record} as
        JSON.
    @raise WireError: it is something else. The error does not quote it.
    """
    try:
        if type(row) is list:
            id, user, protocol, host, record = row[:_FIELDS]
            # Of what JSON has, only text can be encoded, or added to text.
            user.encode("latin-1")
            isShort = len(user + protocol + host + id) <= _LONGEST and len(record) <= _LONGEST_RECORD
            if isShort and 0 < len(id) <= LONGEST_ID:
                return id, user, protocol, host, record.encode()
    except (AttributeError, TypeError, ValueError):
        pass
    raise WireError("invalid message: no session")


def _isRecord(record: list[Any]) -> bool:
    if len(record) <= _TEXTS or not isMoment(record[_TEXTS]):
        return False
    for text in record[:_TEXTS]:
        if type(text) is not str or len(text) > _LONGEST_TEXT:
            return False
    try:
        record[0].encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


class SessionRecords:
    """
    Seals and opens records.

    @param seal: the seal of the store.
    @param clock: returns the seconds since 1970.
    """

    def __init__(self, seal: Seal, clock: Callable[[], float]) -> None:
        self._seal = seal
        self._seconds = clock

    def close(self, gateway: str, id: str, record: bytes) -> bytes:
        """
        Seal a record.

        @param gateway: the name of the gateway.
        @param id: the id of the session.
        @param record: the record as JSON.
        """
        return self._seal.close(record, _placeOf(gateway, id))

    def read(self, gateway: str, id: str, sealed: bytes) -> dict[str, Any] | None:
        """
        Return a session in the form of the API's lists, with C{at}, when it began in whole seconds since 1970. What is
        not known of it is L{None}.

        @param gateway: the name of the gateway.
        @param id: the id of the session.
        @param sealed: what L{close} has returned.
        @return: L{None} if it is damaged.
        """
        try:
            record = json.loads(self._seal.open(sealed, _placeOf(gateway, id)))
        except (SealBroken, ValueError, RecursionError):
            return None
        if type(record) is not list or not _isRecord(record) or id.count(".") not in (1, 2):
            return None
        user, protocol, server, client, backend, started = record[: _TEXTS + 1]
        address, port = _peerOf(client)
        return {
            "id": id,
            "gateway": gateway,
            "worker": id.split(".")[-2],
            "protocol": protocol,
            "server": server,
            "client": {"address": address, "port": port},
            "user": textOf(user.encode("latin-1")),
            "backend": backend or None,
            "tls": None,
            "method": None,
            "phase": Phase.RELAY.value,
            "since": moment(started),
            "age": round(max(0.0, self._seconds() - started), 3),
            "idle": None,
            "received": None,
            "sent": None,
            "at": int(started),
        }


def _peerOf(client: str) -> tuple[str, int | None]:
    try:
        return peerOf(client)
    except ValueError:
        # The port is no number.
        return client, None


def _placeOf(gateway: str, id: str) -> bytes:
    return f"r:{gateway}:{id}".encode("ascii", "replace")
