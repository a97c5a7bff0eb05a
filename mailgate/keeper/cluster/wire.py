# -*- test-case-name: mailgate.test.keeper.cluster.test_others -*-
"""
The messages between keepers of different gateways: questions, and the parts of answers. They are sealed for the channel
on which they are sent, so that those who can write to the store can neither give orders nor answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

__all__ = [
    "ASK",
    "LONGEST",
    "SKEW",
    "BadMessage",
    "Part",
    "Question",
    "answerChannel",
    "parts",
    "readPart",
    "readQuestion",
]

ASK = "ask"
"""The channel of questions."""

LONGEST = 64 * 1024
"""Bytes of a message, before it is sealed."""

SKEW = 300.0
"""
Seconds by which the clocks of two gateways may differ. A question that is older may be a copy that someone sends again;
a younger copy has an id that is known.
"""

_VERSION = 1

_SPARE = 1024
"""Bytes of a part without its rows and without why it is incomplete."""

_LONGEST_REASON = 300
_MOST_REASONS = 50


class BadMessage(ValueError):
    """A message of another gateway is not valid."""


def answerChannel(gateway: str) -> str:
    """
    Return the channel of the answers to a gateway.

    @param gateway: its name.
    """
    return f"to:{gateway}"


@frozen
class Question:
    """
    A question to all other gateways, or an order.

    @ivar id: 16 random hexadecimal digits.
    @ivar gateway: who asks.
    @ivar at: when, in seconds since 1970.
    @ivar word: which: a name of L{mailgate.keeper.cluster.answers.ANSWERS}.
    @ivar arguments: its arguments.
    """

    id: str
    gateway: str
    at: float
    word: str
    arguments: Mapping[str, Any] = field(factory=dict)

    def write(self) -> bytes:
        """
        Return the message.

        @raise ValueError: it is longer than L{LONGEST}.
        """
        message = _json(
            {
                **{"v": _VERSION, "id": self.id, "from": self.gateway, "at": self.at},
                **{"word": self.word, "arguments": self.arguments},
            }
        )
        if len(message) > LONGEST:
            raise ValueError(f"a question to other gateways must not be longer than {LONGEST} bytes")
        return message


@frozen
class Part:
    """
    A part of an answer.

    @ivar id: the id of the question.
    @ivar gateway: who answers.
    @ivar number: which part, from 0.
    @ivar isLast: whether it is the last one.
    @ivar rows: the rows, each a value of JSON.
    @ivar missing: why the answer is incomplete; in the last part alone.
    """

    id: str
    gateway: str
    number: int
    isLast: bool
    rows: Sequence[Any] = ()
    missing: Sequence[str] = ()


def parts(id: str, gateway: str, rows: Iterable[Any], missing: Sequence[str]) -> Iterator[bytes]:
    """
    Yield the messages of an answer.

    @param id: the id of the question.
    @param gateway: who answers.
    @param rows: the rows. One that is longer than a message is left out, and the answer says so.
    @param missing: why the answer is incomplete.
    """
    number, size = 0, 0
    texts: list[bytes] = []
    why = [each[:_LONGEST_REASON] for each in missing[:_MOST_REASONS]]
    for row in rows:
        text = _json(row)
        if len(text) > LONGEST - _SPARE:
            why.append(f"a row is longer than {LONGEST - _SPARE} bytes")
            continue
        if size + len(text) + 1 > LONGEST - _SPARE:
            yield _part(id, gateway, number, texts)
            number, size, texts = number + 1, 0, []
        texts.append(text)
        size += len(text) + 1
    if texts and size + sum(6 * len(each) + 3 for each in why) > LONGEST - _SPARE:
        yield _part(id, gateway, number, texts)
        number, texts = number + 1, []
    yield _part(id, gateway, number, texts, tuple(dict.fromkeys(why)))


def _part(id: str, gateway: str, number: int, rows: Sequence[bytes], missing: Sequence[str] | None = None) -> bytes:
    head = {"v": _VERSION, "id": id, "from": gateway, "part": number, "last": missing is not None}
    if missing:
        head["missing"] = list(missing)
    # The rows are written already.
    return b'%s,"rows":[%s]}' % (_json(head)[:-1], b",".join(rows))


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _read(message: bytes, **kinds: Any) -> dict[str, Any]:
    try:
        found = json.loads(message)
    except (ValueError, RecursionError):
        raise BadMessage("it is not JSON") from None
    if not isinstance(found, dict) or found.get("v") != _VERSION:
        raise BadMessage(f"its version is not {_VERSION}")
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind) or (isinstance(found[name], bool) and kind is not bool):
            raise BadMessage(f"{name} is not valid")
    return found


def readQuestion(message: bytes) -> Question:
    """
    Read a question.

    @param message: what L{Question.write} has returned.
    @raise BadMessage: it is not valid.
    """
    found = _read(message, **{"id": str, "from": str, "at": (int, float), "word": str, "arguments": dict})
    return Question(found["id"], found["from"], found["at"], found["word"], found["arguments"])


def readPart(message: bytes) -> Part:
    """
    Read a part of an answer.

    @param message: what L{parts} has yielded.
    @raise BadMessage: it is not valid.
    """
    found = _read(message, **{"id": str, "from": str, "part": int, "last": bool, "rows": list})
    missing = found.get("missing", [])
    if not isinstance(missing, list) or not all(isinstance(each, str) for each in missing):
        raise BadMessage("missing is not valid")
    return Part(found["id"], found["from"], found["part"], found["last"], found["rows"], missing)
