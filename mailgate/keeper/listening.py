# -*- test-case-name: mailgate.test.keeper.test_listening -*-
"""
The keeper's end of its socket: processes that serve clients connect to it, and a predecessor that hands over its state.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from mailgate.frontend.reactorport import SharedUNIXPort
from mailgate.keeper.conversation import Conversation
from mailgate.keeper.judging import Judging
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.members import LinkedMember
from mailgate.keeper.messages import (
    FROM_OTHERS,
    LONGEST_REPORT,
    Check,
    Handover,
    Hello,
    Judged,
    Move,
    Moved,
    OtherVersion,
    Part,
    Received,
    Record,
    Refused,
    Report,
    Sessions,
    Welcome,
    WireError,
)
from mailgate.keeper.peers import Peer, isAllowed, peerOf
from mailgate.keeper.placemessages import Place, Seat
from mailgate.keeper.placing import Placing
from mailgate.keeper.state import MOST_STATE
from mailgate.log.journal import oneLine

__all__ = ["MOST_CONNECTIONS", "MOVE_WITHIN", "Rendezvous"]

MOST_CONNECTIONS = 512
"""Connections of processes at the same time."""

MOVE_WITHIN = 0.5
"""Seconds until all processes must have sent their last report, when they are sent to a successor."""

_HELLO_WITHIN = 10.0
"""Seconds until a process must have said who it is."""

_HANDOVER_WITHIN = 10.0
"""Seconds that a handover may take."""

_log = Logger("mailgate")


class _FromOthers(Conversation):
    """The keeper's end of a connection."""

    kinds = FROM_OTHERS
    MAX_LENGTH = LONGEST_REPORT

    def __init__(self, rendezvous: Rendezvous) -> None:
        self._rendezvous = rendezvous
        self._peer: Peer | None = None
        self._deadline: IDelayedCall | None = None
        self._state: list[str] | None = None
        self._length = 0
        self.member: LinkedMember | None = None

    def began(self) -> None:
        self._peer = self._rendezvous.peerOf(self.transport)
        if not self._rendezvous.admits(self, self._peer):
            self.abort()
            return
        self._within(_HELLO_WITHIN)

    def _within(self, seconds: float | None) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()
        if seconds is not None:
            self._deadline = self._rendezvous.clock.callLater(seconds, self._expire)

    def _expire(self) -> None:
        _log.error("closed a connection to the keeper: it sent no complete message in time")
        self.abort()

    def received(self, message: Any) -> None:
        if isinstance(message, Handover) and self.member is None:
            self._take(message)
        elif isinstance(message, Hello) and self.member is None and self._state is None:
            self._join(message)
        elif self.member is None:
            self.invalid(WireError(f"unexpected message: {type(message).__name__.lower()}"))
        elif isinstance(message, Check | Record):
            self._judge(self.member, message)
        elif isinstance(message, Sessions):
            self._register(self.member, message)
        elif isinstance(message, Place | Seat):
            self._hearOfPlaces(self.member, message)
        elif isinstance(message, Report):
            self._report(self.member, message)
        elif isinstance(message, Part):
            self.member.heard(message)
        elif isinstance(message, Moved):
            self.member.hasMoved = True
            self._rendezvous.moved()
        else:
            self.invalid(WireError(f"unexpected message: {type(message).__name__.lower()}"))

    def _judge(self, member: LinkedMember, message: Check | Record) -> None:
        judging = self._rendezvous.judging
        if judging is None:
            # It was offered by no keeper here.
            self.invalid(WireError(f"unexpected message: {type(message).__name__.lower()}"))
            return
        try:
            if isinstance(message, Check):
                judged = judging.check(member, message)
                if isinstance(judged, Judged):
                    self.send(judged)
                else:
                    judged.addCallback(self.send)
            else:
                judging.record(member, message)
        except WireError as error:
            self.invalid(error)

    def _register(self, member: LinkedMember, message: Sessions) -> None:
        registry = self._rendezvous.keeper.registry
        try:
            if registry is None:
                # No keeper here has asked for it.
                raise WireError("unexpected message: sessions")
            registry.told(member, message)
        except WireError as error:
            self.invalid(error)

    def _hearOfPlaces(self, member: LinkedMember, message: Place | Seat) -> None:
        placing = self._rendezvous.placing
        if placing is None:
            self.invalid(WireError(f"unexpected message: {type(message).__name__.lower()}"))
        elif isinstance(message, Seat):
            placing.seat(member, message)
        else:
            Deferred.fromCoroutine(placing.place(message)).addCallback(self.send)

    def _report(self, member: LinkedMember, report: Report) -> None:
        if not member.hasMoved:
            member.isRetiring = report.isRetiring
            self._rendezvous.keeper.reported(member, report.totals, report.stories)

    def _join(self, hello: Hello) -> None:
        self._within(None)
        if self._peer is not None and self._peer.pid not in (0, hello.pid):
            self._refuse("its process id is not that of the connection")
            return
        why = self._rendezvous.join(LinkedMember(hello, self, self._rendezvous.clock), self)
        if why:
            self._refuse(why)

    def _refuse(self, why: str) -> None:
        _log.error("the keeper refused the link of a process: {reason}", reason=oneLine(why))
        self.send(Refused(why))
        self.close()

    def _take(self, message: Handover) -> None:
        """Take over the state of a predecessor."""
        if self._state is None:
            self._state = []
            self._within(_HANDOVER_WITHIN)
        self._length += len(message.state)
        if self._length > 2 * MOST_STATE:
            self.invalid(WireError("the state of the predecessor is too long"))
            return
        self._state.append(message.state)
        if message.isLast:
            self._within(None)
            state = "".join(self._state).encode("ascii", "replace")
            self._rendezvous.keeper.handedOver(state, message.members)
            self.send(Received())
            self.close()

    def invalid(self, error: WireError) -> None:
        if isinstance(error, OtherVersion):
            self._within(None)
            self._refuse(str(error))
            return
        _log.error("received an invalid message on the keeper's socket: {error}", error=str(error))
        self.abort()

    def drained(self) -> None:
        if self.member is not None and self._rendezvous.judging is not None:
            self._rendezvous.judging.drained(self.member)

    def ended(self) -> None:
        self._within(None)
        self._rendezvous.left(self)


class Rendezvous(Service):
    """
    Accepts the processes of all generations.

    @param keeper: gets their reports.
    @param listening: the listening unix socket, which stays the caller's.
    @param reactor: the reactor.
    @param uid: the user of the workers; L{None} if it is that of this process.
    @param peer: returns the process at the other end of a transport.
    @ivar keeper: the keeper.
    @ivar clock: the reactor.
    @ivar peerOf: see C{peer}.
    @ivar judging: judges the logins of the processes; L{None} if the keeper has no limits when the service starts.
    @ivar placing: knows the places of users; L{None} if the keeper has none when the service starts.
    """

    def __init__(
        self,
        keeper: Keeper,
        listening: socket.socket,
        reactor: Any,
        uid: int | None = None,
        peer: Callable[[Any], Peer | None] = peerOf,
    ) -> None:
        self.keeper = keeper
        self.clock = reactor
        self.peerOf = peer
        self.judging: Judging | None = None
        self.placing: Placing | None = None
        self._listening = listening
        self._uid = uid
        self._port: Any = None
        self._connections: set[_FromOthers] = set()
        self._members: dict[str, _FromOthers] = {}
        self._isMoving = False
        self._sentAway: dict[str, None] = {}
        self._moved: Deferred[tuple[str, ...]] | None = None
        self._deadline: IDelayedCall | None = None
        self.factory = Factory.forProtocol(lambda: _FromOthers(self))
        self.factory.noisy = False

    def startService(self) -> None:
        super().startService()
        if self.keeper.limits is not None:
            self.judging = Judging(self.keeper.limits, self.clock, lambda: not self.keeper.isHandoverDue)
            self.keeper.limitsChanged = self._settled
        if self.keeper.placing is not None:
            self.placing = self.keeper.placing
            self.placing.isReady = lambda: not self.keeper.isHandoverDue
            self.keeper.limitsChanged = self._settled
        self._port = self.listen()

    def _settled(self) -> None:
        """What the keeper knows of limits and places is that of the gateway now."""
        if self.judging is not None:
            self.judging.refresh()
        if self.placing is not None:
            self.placing.refresh()

    def listen(self) -> Any:
        """Accept connections; return what listens, an C{IListeningPort}."""
        port = SharedUNIXPort._fromListeningDescriptor(self.clock, self._listening.fileno(), self.factory)
        port.startListening()
        return port

    def stopAccepting(self) -> Deferred[None]:
        """Accept no further connections: they wait for the successor. The socket itself stays open."""
        port, self._port = self._port, None
        return succeed(None) if port is None else maybeDeferred(port.stopListening)

    def stopService(self) -> Deferred[None]:
        """Close all connections. The processes connect again."""
        super().stopService()
        closed = self.stopAccepting()
        for each in [*self._connections]:
            each.abort()
        return closed

    def admits(self, conversation: Any, peer: Peer | None) -> bool:
        """
        Return whether a new connection is accepted.

        @param conversation: its protocol.
        @param peer: the process at its other end.
        """
        if len(self._connections) >= MOST_CONNECTIONS:
            _log.error(
                "the keeper refused a connection: it has {most} connections, which is the limit", most=MOST_CONNECTIONS
            )
            return False
        if not isAllowed(peer, self._uid):
            assert peer is not None
            _log.error(
                "the keeper refused a connection of process {pid}: uid {uid} is not the user of the workers",
                pid=peer.pid,
                uid=peer.uid,
            )
            return False
        self._connections.add(conversation)
        return True

    def join(self, member: LinkedMember, conversation: Any) -> str:
        """
        A process has said who it is.

        @param member: the process.
        @param conversation: the connection to it.
        @return: why it is refused; empty if it has joined.
        """
        earlier = self._members.get(member.name)
        if earlier is not None and earlier.member is not None and earlier.member.pid != member.pid:
            return f"another process has the name {member.name}"
        if self._isMoving:
            # It has connected just before this keeper stopped accepting.
            self._sentAway[member.name] = None
            conversation.send(Move())
            conversation.close()
            return ""
        conversation.member = member
        self._members[member.name] = conversation
        self.keeper.join(member)
        if earlier is not None:
            # The process has lost the connection, which this end has not noticed.
            earlier.abort()
        conversation.send(Welcome(self.keeper.name))
        if self.judging is not None:
            self.judging.joined(member)
        if self.keeper.registry is not None:
            self.keeper.registry.joined(member)
        if self.placing is not None:
            self.placing.joined(member)
        return ""

    def left(self, conversation: Any) -> None:
        """
        A connection is closed.

        @param conversation: its protocol.
        """
        self._connections.discard(conversation)
        member = conversation.member
        if member is not None:
            if self._members.get(member.name) is conversation:
                del self._members[member.name]
            # First: what waits for its answer may ask the next question at once.
            self.keeper.left(member)
            if self.judging is not None:
                self.judging.left(member)
            if self.keeper.registry is not None:
                self.keeper.registry.left(member)
            if self.placing is not None:
                self.placing.left(member)
            member.ended()
            self.moved()

    def sendAway(self) -> Deferred[tuple[str, ...]]:
        """
        Send all processes to the successor. Call L{stopAccepting} first. They finish the answers that they have begun.

        @return: fires with their names when they have sent their last reports, or after L{MOVE_WITHIN}.
        """
        self._isMoving = True
        self._moved = Deferred()
        moved = self._moved
        self._deadline = self.clock.callLater(MOVE_WITHIN, self._allMoved)
        for name, conversation in [*self._members.items()]:
            self._sentAway[name] = None
            conversation.send(Move())
        self.moved()
        return moved

    def moved(self) -> None:
        """A process has sent its last report, or is gone."""
        isLate = any(each.member is not None and not each.member.hasMoved for each in self._members.values())
        if self._moved is not None and not isLate:
            self._allMoved()

    def _allMoved(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        moved, self._moved = self._moved, None
        if moved is not None:
            moved.callback(tuple(self._sentAway))
