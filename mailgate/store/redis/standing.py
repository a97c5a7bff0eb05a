# -*- test-case-name: mailgate.test.store.test_contract mailgate.test.store.test_redis -*-
"""
Reads what L{mailgate.store.redis.loginscripts.CHECK} and L{mailgate.store.redis.loginscripts.KNOWN} return.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from mailgate.store.interfaces import Guess, Mark, Question, Standing

__all__ = ["standingOf", "standingsOf"]

_HEAD = Struct("<IIIHdddHBBB")
_GUESS = Struct("<I2sBB")
_GOOD = Struct("<2sI")
_MARK = Struct("<BdHBH")
_SESSIONS = Struct("<BHH")
_ONE = Struct("<HI")

_NOTHING = Standing()


def standingOf(reply: bytes, *things: bytes) -> Standing:
    """
    Return a reply as a value.

    @param reply: the reply.
    @param things: the digests of the pair, the address and the user.
    @raise ValueError: it is no such reply. Other errors of reading what is no such reply are possible.
    """
    if not reply:
        return _NOTHING
    head = _HEAD.unpack_from(reply)
    atAddress, atNetwork, ofUser, failedUsers, last, wait, turn, guesses, goods, marks, gateways = head
    at = _HEAD.size
    standing = Standing(
        (),
        atAddress,
        atNetwork,
        ofUser,
        failedUsers,
        None if last < 0 else last,
        wait=wait / 1e6 if wait > 0 else wait,
        turn=turn / 1e6,
    )
    if guesses:
        end = at + guesses * _GUESS.size
        rows = _GUESS.iter_unpack(reply[at:end])
        standing.guesses = [Guess(tag if tagged else b"", age / 1000, weight) for age, tag, weight, tagged in rows]
        at = end
    if goods:
        end = at + goods * _GOOD.size
        standing.goods = [*_GOOD.iter_unpack(reply[at:end])]
        at = end
    if marks or gateways:
        _readRest(standing, reply, at, marks, gateways, things)
    return standing


def standingsOf(reply: bytes, questions: Sequence[Question]) -> list[Standing | None]:
    """
    Return a reply about several logins as values; L{None} for each of which nothing is known.

    @param reply: the reply.
    @param questions: the logins.
    @raise ValueError: as for L{standingOf}.
    """
    found: list[Standing | None] = [None] * len(questions)
    at = 0
    while at < len(reply):
        number, length = _ONE.unpack_from(reply, at)
        at += _ONE.size
        question = questions[number]
        found[number] = standingOf(reply[at : at + length], question.pair, question.address, question.user)
        at += length
    return found


def _readRest(standing: Standing, reply: bytes, at: int, marks: int, gateways: int, things: tuple[bytes, ...]) -> None:
    found = []
    for _ in range(marks):
        which, left, count, ruleLength, nameLength = _MARK.unpack_from(reply, at)
        at += _MARK.size
        rule = reply[at : at + ruleLength].decode("ascii")
        at += ruleLength
        found.append(Mark(things[which], rule, left / 1e6, count, reply[at : at + nameLength]))
        at += nameLength
    standing.marks = found
    sessions = {}
    for _ in range(gateways):
        length, total, own = _SESSIONS.unpack_from(reply, at)
        at += _SESSIONS.size
        sessions[reply[at : at + length].decode("ascii")] = total, own
        at += length
    standing.sessions = sessions
