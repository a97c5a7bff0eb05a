# -*- test-case-name: mailgate.test.cli.top.test_asker -*-
"""
Asks the admin server in threads, so that a gateway that hangs does not stop the page.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

from mailgate.cli.adminclient import AdminClient, NoAnswer
from mailgate.cli.top.actions import Question
from mailgate.system.exitstatus import REFUSED
from mailgate.system.fields import checkDepth

__all__ = ["Asker"]


_DEEPEST = 16
"""How deep values of an answer may be nested. Those of a gateway are half as deep."""


def _inThread(work: Callable[[], None]) -> None:
    # It does not keep the process from exiting.
    threading.Thread(target=work, daemon=True).start()


class Asker:
    """
    Sends each question from a thread of its own. There are as many at a time as L{Question} has purposes.

    @param client: asks the admin server; its questions have a deadline.
    @param start: starts a thread.
    """

    def __init__(self, client: AdminClient, start: Callable[[Callable[[], None]], None] = _inThread) -> None:
        self._client = client
        self._start = start
        self._answers: SimpleQueue[tuple[Question, Any]] = SimpleQueue()

    def ask(self, question: Question) -> None:
        """
        Send a question.

        @param question: the question.
        """
        self._start(lambda: self._answers.put((question, self._answer(question))))

    def _answer(self, question: Question) -> Any:
        try:
            if question.isEnd:
                found = self._client.delete(question.path)
            elif question.body is None:
                found = self._client.get(question.path, question.query)
            else:
                found = self._client.post(question.path, question.body)
            # Python may be able to read what it cannot write again.
            checkDepth(found, _DEEPEST)
            return found
        except NoAnswer as error:
            return error
        except Exception as error:
            # The page must not wait for this answer for ever.
            return NoAnswer(f"{type(error).__name__}: {error}", REFUSED)

    def answers(self) -> Iterator[tuple[Question, Any]]:
        """Yield the questions that are answered, with their answers: values of JSON, or the L{NoAnswer}."""
        while True:
            try:
                yield self._answers.get_nowait()
            except Empty:
                return
