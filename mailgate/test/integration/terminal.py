"""
A terminal: a shell in tmux, without the configuration of the user.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Sequence

from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.gateway import environment
from mailgate.test.integration.programs import programPath

__all__ = ["Terminal"]

_PROMPT = "ready>"


class Terminal:
    """
    A terminal of C{cells} x C{lines} with a shell. C{folder} holds its socket.
    """

    def __init__(self, folder: str, cells: int = 80, lines: int = 24) -> None:
        program = programPath("tmux")
        assert program is not None
        self._tmux = [program, "-u", "-S", os.path.join(folder, "tmux"), "-f", os.devnull]
        shell = ["env", f"PS1={_PROMPT}", "LC_ALL=C.UTF-8", "sh", "-i"]
        size = ["-x", str(cells), "-y", str(lines)]
        self._run("new-session", "-d", *size, shlex.join(shell))
        self.waitFor(_PROMPT)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], env=environment(), capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout

    def type(self, text: str) -> None:
        """Type C{text}, and Enter."""
        self._run("send-keys", "-l", text)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        """Press keys, by the names of tmux."""
        self._run("send-keys", *keys)

    def lines(self) -> Sequence[str]:
        """What is on the screen."""
        return self._run("capture-pane", "-p").split("\n")[:-1]

    def text(self) -> str:
        """The same as one text."""
        return "\n".join(self.lines())

    def coloured(self) -> str:
        """The same with sequences for colours (ECMA-48, SGR)."""
        return self._run("capture-pane", "-e", "-p")

    def waitFor(self, words: str) -> str:
        """Wait until C{words} are on the screen; return all that is there."""
        return self.waitUntil(lambda text: words in text, f"the screen has {words!r}")

    def waitUntil(self, isShown: Callable[[str], object], what: str) -> str:
        """Wait until the screen is as C{isShown} says; return what is there."""
        seen = [""]

        def look() -> object:
            seen[0] = self.text()
            return isShown(seen[0])

        try:
            waitUntil(look, what)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen[0]}") from None
        return seen[0]

    def resize(self, cells: int, lines: int) -> None:
        """Give the terminal another size."""
        self._run("resize-window", "-x", str(cells), "-y", str(lines))

    def value(self, format: str) -> str:
        """What tmux knows, such as C{#{alternate_on}}."""
        return self._run("display-message", "-p", format).strip()

    def close(self) -> None:
        """End the terminal and all that runs in it."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, timeout=30, check=False)
