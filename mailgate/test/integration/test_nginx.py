# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
nginx and mailgate side by side.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration import conversations_pop3
from mailgate.test.integration.conversation import Transcript
from mailgate.test.integration.differences import DIFFERENCES, Difference

SIDES = ("client", "auth", "backend")


def compare(
    name: str, nginx: Transcript, mailgate: Transcript, differences: Sequence[Difference], met: set[tuple[int, str]]
) -> str:
    report = []
    for side in SIDES:
        wanted: str = getattr(nginx, side)
        got: str = getattr(mailgate, side)
        for index, difference in enumerate(differences):
            patterns = [pattern for pattern in difference.where if fnmatchcase(name, pattern)]
            changed = difference.apply(wanted) if patterns and side == difference.side else wanted
            if changed != wanted:
                wanted = changed
                met.update((index, pattern) for pattern in patterns)
        if wanted != got:
            report += [f"{name}: {side}", *difflib.ndiff(wanted.splitlines(), got.splitlines())]
    return "\n".join(report)
