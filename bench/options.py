# -*- test-case-name: bench.test.test_options -*-
"""
What can be said on the command line of C{python -m bench}.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence

from bench.measures import GROUPS

__all__ = ["PROXIES", "REPOSITORY", "parser"]

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROXIES = ("nginx", "mailgate", "haproxy", "dovecot", "perdition")


def _words(known: Sequence[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        words = text.replace(",", " ").lower().split()
        unknown = [word for word in words if word not in known]
        if unknown or not words:
            raise argparse.ArgumentTypeError(f"{' '.join(unknown) or 'nothing'}: known are {', '.join(known)}")
        return [word for word in known if word in words]

    return read


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text}: a number from 1 on is wanted")
    return int(text)


def _program(text: str) -> str:
    if not (os.path.isfile(text) and os.access(text, os.X_OK)):
        raise argparse.ArgumentTypeError(f"{text}: is no program")
    return os.path.abspath(text)


def _folder(text: str) -> str:
    if not os.path.isdir(os.path.join(text, "mailgate")):
        raise argparse.ArgumentTypeError(f"{text}: no mailgate is in this folder")
    return os.path.abspath(text)


_DESCRIPTION = """\
Measures mailgate against nginx's mail module, and against HAProxy, Dovecot's proxy and Perdition where they are
installed, over this machine's loopback. Prints tables; writes them, the figures and plots into a folder, named by the
day. A whole run takes about a quarter of an hour, in which nothing else should run here.
"""

_EPILOG = """\
Groups: login (CPU of a login), relay (CPU of bulk transfer), ping (CPU of small messages), memory (of idle sessions),
latency (what a client waits), growth (CPU of a login beside thousands of idle sessions), worker (what one more takes).
"""


def parser() -> argparse.ArgumentParser:
    """
    The options: C{only} and C{proxies} are lists of known words in their own order, C{repeats} is a number from 1 on,
    C{mailgate} is an absolute path, and so is C{nginx}, or C{None}.
    """
    made = argparse.ArgumentParser(prog="python -m bench", description=_DESCRIPTION, epilog=_EPILOG)
    option = made.add_argument
    option(
        "--only", type=_words(tuple(GROUPS)), default=list(GROUPS), metavar="GROUPS", help="some of the groups below"
    )
    option(
        "--proxies", type=_words(PROXIES), default=list(PROXIES), metavar="NAMES", help=f"some of {','.join(PROXIES)}"
    )
    option("--repeats", type=_count, default=5, metavar="N", help="figures are medians over N (default: 5)")
    option("--quick", action="store_true", help="little work, one repeat: shows whether it runs, not how fast")
    option("--nginx", type=_program, metavar="PATH", help="the nginx to measure (default: the installed one)")
    source = "the source of the mailgate to measure (default: this one)"
    option("--mailgate", type=_folder, metavar="FOLDER", default=REPOSITORY, help=source)
    results = os.path.join(REPOSITORY, "bench", "results")
    option("--output", metavar="FOLDER", default=results, help="where to write to (default: bench/results)")
    option("--no-plots", dest="plots", action="store_false", help="make no plots, which take matplotlib")
    return made
