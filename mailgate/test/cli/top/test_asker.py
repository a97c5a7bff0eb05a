"""Tests for L{mailgate.cli.top.asker}."""

from __future__ import annotations

import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.adminclient import AdminClient, NoAnswer, Place
from mailgate.cli.top.actions import Question
from mailgate.cli.top.asker import Asker
from mailgate.system.exitstatus import REFUSED

GET = Question("overview", "/get", {"a": 1})
POST = Question("order", "/post", body={})


class Client(AdminClient):
    """A client without a server."""

    def __init__(self) -> None:
        super().__init__(Place("/nowhere"), 1.0)
        self.error: Exception | None = None
        self.answer: Any = None

    def _ask(self, method: str, path: str, body: bytes | None, isBusyGood: bool = False) -> Any:
        if self.error is not None:
            raise self.error
        return [method, path, body] if self.answer is None else self.answer


class AskerTests(SynchronousTestCase):
    """Questions and answers."""

    def setUp(self) -> None:
        self.client = Client()
        self.asker = Asker(self.client, lambda work: work())

    def test_kinds(self) -> None:
        """A question with a body is a POST, also if the body is empty."""
        self.asker.ask(GET)
        self.asker.ask(POST)
        self.assertEqual(
            list(self.asker.answers()), [(GET, ["GET", "/get?a=1", None]), (POST, ["POST", "/post", b"{}"])]
        )
        self.assertEqual(list(self.asker.answers()), [])

    def test_errors(self) -> None:
        """An error is the answer, whatever it is: the page waits for none for ever."""
        for error, expected in (
            (NoAnswer("absent", REFUSED), "absent"),
            (RecursionError("deep"), "RecursionError: deep"),
        ):
            self.client.error = error
            self.asker.ask(GET)
            ((_, answer),) = self.asker.answers()
            self.assertIsInstance(answer, NoAnswer)
            self.assertEqual(str(answer), expected)

    def test_deep(self) -> None:
        """An answer that is nested too deep is none: the page could not show it."""
        for _ in range(500):
            self.client.answer = [self.client.answer]
        for question in (GET, POST):
            self.asker.ask(question)
            ((_, answer),) = self.asker.answers()
            self.assertIsInstance(answer, NoAnswer)

    def test_thread(self) -> None:
        """A question is sent from another thread, which does not keep the process."""
        threads: list[threading.Thread] = []
        done = threading.Event()

        class Threaded(Client):
            def _ask(self, *arguments: Any) -> Any:
                threads.append(threading.current_thread())
                done.set()

        Asker(Threaded()).ask(GET)
        self.assertTrue(done.wait(30))
        self.assertIsNot(threads[0], threading.current_thread())
        self.assertTrue(threads[0].daemon)
