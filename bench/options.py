# -*- test-case-name: bench.test.test_options -*-
"""
The command line of C{python -m bench}.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

from bench.measures import GROUPS

__all__ = [
    "ATTACKED",
    "COMPARISONS",
    "PROXIES",
    "RATED",
    "REPOSITORY",
    "SCHEMES",
    "TRACED",
    "appending",
    "clustering",
    "comparing",
    "guessing",
    "limiting",
    "parser",
    "storing",
    "tracing",
    "viewing",
    "watching",
]

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROXIES = ("nginx", "mailgate", "haproxy", "dovecot", "perdition")
COMPARISONS = ("asked", "cached", "passthrough", "tls", "behind", "behind-resumed", "behind-group")
COMMON = COMPARISONS[:4]
"""Those of directives that every tree knows, which are taken unless others are asked for."""

TRACED = ("asked", "cached", "tls", "limits", "admin", "all", "new", "new-limits", "ping", "ping-tls", "pop3", "smtp")
"""What bytecodes are counted for."""

SCHEMES = ("plain", "ssha512", "sha512-crypt", "bcrypt5", "bcrypt12")
ATTACKED = ("sha512-crypt", "bcrypt12")
"""The default schemes of owners' accounts."""

RATED = ("plain", "ssha512", "sha512-crypt", "bcrypt5")
"""The default schemes when guesses are counted."""


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


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text}: a number from 0 on is wanted")
    return int(text)


def _counts(text: str) -> list[int]:
    return [_whole(word) for word in text.replace(",", " ").split()]


def _program(text: str) -> str:
    if not (os.path.isfile(text) and os.access(text, os.X_OK)):
        raise argparse.ArgumentTypeError(f"{text}: is no program")
    return os.path.abspath(text)


def _folder(text: str) -> str:
    if not os.path.isdir(os.path.join(text, "mailgate")):
        raise argparse.ArgumentTypeError(f"{text}: no mailgate is in this folder")
    return os.path.abspath(text)


def _setting(text: str) -> str:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not (name and equals) or "\n" in text:
        raise argparse.ArgumentTypeError(f"{text}: a line NAME = VALUE is wanted")
    return f"{name} = {value}"


_DESCRIPTION = """\
Measures mailgate against nginx's mail module, and against HAProxy, Dovecot's proxy and Perdition where they are
installed, over this machine's loopback. Prints tables; writes them, the figures and plots into a folder, named by the
day and the machine; after each group, too. A whole run takes about 20 minutes, in which nothing else should run here.
"""

_EPILOG = """\
Groups: login (CPU of a login), relay (CPU of bulk transfer), ping (CPU of small messages), memory (of idle sessions),
latency (what a client waits), growth (CPU of a login beside thousands of idle sessions), worker (what one more takes),
rate (logins per second at saturation, and latency at half of that), site (as many sessions as descriptors permit).
"""


def parser() -> argparse.ArgumentParser:
    """
    The options: C{only} and C{proxies} are lists of known words in their own order, C{repeats} is a number from 1 on,
    C{mailgate} is an absolute path, and so are C{nginx} and C{before}, or C{None}; C{name} is a text or C{None};
    C{more} and C{process} are lists of lines of an ini file.
    """
    made = argparse.ArgumentParser(prog="python -m bench", description=_DESCRIPTION, epilog=_EPILOG)
    option = made.add_argument
    option("--only", type=_words(GROUPS), default=list(GROUPS), metavar="GROUPS", help="some of the groups below")
    option(
        "--proxies", type=_words(PROXIES), default=list(PROXIES), metavar="NAMES", help=f"some of {','.join(PROXIES)}"
    )
    option("--repeats", type=_count, default=8, metavar="N", help="figures are medians over N (default: 8)")
    option("--quick", action="store_true", help="little work, one repeat: shows whether it runs, not how fast")
    option("--nginx", type=_program, metavar="PATH", help="the nginx to measure (default: the installed one)")
    source = "the source of the mailgate to measure (default: this one)"
    option("--mailgate", type=_folder, metavar="FOLDER", default=REPOSITORY, help=source)
    before = "the source of another mailgate, which is measured too, in a column of its own"
    option("--before", type=_folder, metavar="FOLDER", help=before)
    _addSetting(made, "--set", "more", "a line of [mail] for this mailgate alone; may be given several times")
    _addSetting(made, "--set-process", "process", "a line of [mailgate] for this mailgate alone")
    sessions = "sessions of one worker in the group site (default: as many as descriptors permit)"
    option("--sessions", type=_count, metavar="N", help=sessions)
    option("--name", metavar="NAME", help="the machine in the names of files (default: its processor)")
    results = os.path.join(REPOSITORY, "bench", "results")
    option("--output", metavar="FOLDER", default=results, help="where to write to (default: bench/results)")
    option("--no-plots", dest="plots", action="store_false", help="make no plots, which take matplotlib")
    return made


_COMPARING = """\
Compares the CPU that a login takes in this tree and in another one, in bursts that take turns, and prints two tables.
Nothing else should run on the machine: what differs by a few percent shows only then.
"""

_ROWS = """\
Rows: asked (plain, auth_http asked each time), cached (plain, auth_cache_ttl), passthrough (plain, proxy_pass alone),
tls (full handshake, auth_http asked each time). With --only also behind, behind-resumed (plain, proxy_pass to a backend
that speaks TLS: full handshakes, resumed ones) and behind-group (resumed; this side with a group of ten such backends).
"""


def comparing() -> argparse.ArgumentParser:
    """
    The options of C{python -m bench.compare}: C{only} is a list of L{COMPARISONS} in their order, C{before} and
    C{mailgate} are absolute paths, C{bursts}, C{logins}, C{concurrency} and C{renew} are numbers from 1 on, C{more},
    C{process}, C{moreBefore} and C{processBefore} are lists of lines of an ini file.
    """
    made = argparse.ArgumentParser(prog="python -m bench.compare", description=_COMPARING, epilog=_ROWS)
    option = made.add_argument
    option("--before", type=_folder, required=True, metavar="FOLDER", help="the source tree to compare with")
    option("--mailgate", type=_folder, metavar="FOLDER", default=REPOSITORY, help="the other one (default: this one)")
    rows = "some of the rows below"
    option("--only", type=_words(COMPARISONS), default=list(COMMON), metavar="ROWS", help=rows)
    option("--bursts", type=_count, default=20, metavar="N", help="pairs of bursts for a row (default: 20)")
    together = "logins at a time (default: 32)"
    option("--concurrency", type=_count, default=32, metavar="N", help=together)
    option("--logins", type=_count, default=500, metavar="N", help="logins in a burst (default: 500)")
    renew = "bursts after which both sides are started anew (default: 5)"
    option("--renew", type=_count, default=5, metavar="N", help=renew)
    greeting = "let the backend offer no ID, so that it cannot be told who the client is"
    option("--without-id", dest="withoutID", action="store_true", help=greeting)
    settings = (
        ("--set", "more", "a line of [mail] for this tree alone; may be given several times"),
        ("--set-process", "process", "a line of [mailgate] for this tree alone"),
        ("--set-before", "moreBefore", "a line of [mail] for the other tree alone"),
        ("--set-process-before", "processBefore", "a line of [mailgate] for the other tree alone"),
    )
    for name, target, meaning in settings:
        _addSetting(made, name, target, meaning)
    return made


def _addSetting(made: argparse.ArgumentParser, name: str, target: str, meaning: str) -> None:
    made.add_argument(name, dest=target, type=_setting, action="append", default=[], metavar="LINE", help=meaning)


_GUESSING = """\
Guesses passwords of a gateway with auth_file from many connections of one address, and measures what an owner at
another address waits to log in, and what a session that is logged in notices. Nothing else should run on the machine.
"""

_HASHES = """\
Schemes: plain, ssha512, sha512-crypt (5,000 rounds), bcrypt5 and bcrypt12 (BLF-CRYPT of such a cost).
"""


def guessing() -> argparse.ArgumentParser:
    """
    The options of C{python -m bench.guessing}: C{schemes} is a list of L{SCHEMES} in their order, or L{None},
    C{attackers} is a list of numbers, C{again} a number, C{owners} and C{seconds} are numbers from 1 on, C{mailgate} is
    an absolute path, C{more} and C{process} are lists of lines of an ini file.
    """
    made = argparse.ArgumentParser(prog="python -m bench.guessing", description=_GUESSING, epilog=_HASHES)
    option = made.add_argument
    source = "the source of the mailgate to measure (default: this one)"
    option("--mailgate", type=_folder, metavar="FOLDER", default=REPOSITORY, help=source)
    schemes = f"some of those below (default: {','.join(ATTACKED)}; with --rates {','.join(RATED)})"
    option("--schemes", type=_words(SCHEMES), metavar="NAMES", help=schemes)
    attackers = "how many connections guess; a row for each number (default: 0,300)"
    option("--attackers", type=_counts, default=[0, 300], metavar="NUMBERS", help=attackers)
    owners = "accounts that log in, a second after each other (default: 10)"
    option("--owners", type=_count, default=10, metavar="N", help=owners)
    option("--again", type=_whole, default=1, metavar="N", help="how often each logs in again (default: 1)")
    rates = "count the guesses alone: of one connection that sends 900 at once, and of 300 that send one"
    option("--rates", action="store_true", help=rates)
    option("--seconds", type=_count, default=25, metavar="N", help="for how long, with --rates (default: 25)")
    _addSetting(made, "--set", "more", "a line of [mail]; may be given several times")
    _addSetting(made, "--set-process", "process", "a line of [mailgate]")
    return made


_APPENDING = """\
Measures what a client waits that writes a command in two pieces: directly at Dovecot, and through mailgate.
"""


def appending() -> argparse.ArgumentParser:
    """
    The options of C{python -m bench.append}: C{count} is a number from 1 on, C{mailgate} is an absolute path, and so is
    C{before}, or L{None}; C{more} and C{process} are lists of lines of an ini file.
    """
    made = argparse.ArgumentParser(prog="python -m bench.append", description=_APPENDING)
    option = made.add_argument
    source = "the source of the mailgate to measure (default: this one)"
    option("--mailgate", type=_folder, metavar="FOLDER", default=REPOSITORY, help=source)
    option("--before", type=_folder, metavar="FOLDER", help="another source tree, to have a column of its own")
    option("--count", type=_count, default=50, metavar="N", help="how many of each command (default: 50)")
    _addSetting(made, "--set", "more", "a line of [mail]; may be given several times")
    _addSetting(made, "--set-process", "process", "a line of [mailgate]")
    return made


_WATCHING = """\
Measures what the admin side of mailgate costs: a login and an idle session with it and without it, and its answers
with thousands of sessions."""


class _Quick(argparse.Action):
    """Sets the numbers of C{--quick}."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        little = {"bursts": 2, "logins": 100, "renew": 2, "sessions": 200, "answers": 2, "flood": 20_000, "slow": 300}
        little |= {"singles": 20, "calls": 200, "seconds": 1, "pairs": 100, "blocks": 10}
        vars(namespace).update({name: count for name, count in little.items() if name in namespace})


_BURSTS = (
    ("bursts", 20, "pairs of bursts of logins"),
    ("logins", 500, "logins in a burst"),
    ("concurrency", 32, "logins at a time"),
    ("renew", 5, "bursts after which both sides are started anew"),
)


def _sized(program: str, description: str, numbers: Sequence[tuple[str, int, str]]) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    option = made.add_argument
    source = "the source of the mailgate to measure (default: this one)"
    option("--mailgate", type=_folder, metavar="FOLDER", default=REPOSITORY, help=source)
    for name, default, help in numbers:
        option(f"--{name}", type=_count, default=default, metavar="N", help=f"{help} (default: {default})")
    quick = "little work: shows whether it runs; the figures mean little"
    option("--quick", action=_Quick, nargs=0, help=quick)
    option("--output", metavar="FILE", help="write the report into this file, too")
    return made


def watching() -> argparse.ArgumentParser:
    """
    The options of C{python -m bench.watching}: C{mailgate} is an absolute path; C{bursts}, C{logins}, C{concurrency},
    C{renew}, C{sessions} and C{answers} are numbers from 1 on; C{output} is a path, or C{None}.
    """
    more = (("sessions", 9000, "idle sessions"), ("answers", 9, "answers of each kind"))
    return _sized("bench.watching", _WATCHING, (*_BURSTS, *more))


_LIMITING = """\
Measures what the limits cost: a login with them and without them, in one process and with a keeper; the memory of a
flood of users and addresses; and a login beside slow connections of another address."""


def limiting() -> argparse.ArgumentParser:
    """
    The options of C{python -m bench.limits}: C{mailgate} is an absolute path; C{bursts}, C{logins}, C{concurrency},
    C{renew}, C{singles}, C{flood}, C{memory}, C{slow} and C{answers} are numbers from 1 on; C{output} is a path, or
    C{None}.
    """
    more = (
        ("singles", 100, "logins one after the other in a burst, with workers"),
        ("flood", 1_000_000, "users and addresses of the flood"),
        ("memory", 16, "limit_memory of the flood, in MiB"),
        ("slow", 3000, "slow connections"),
        ("answers", 20, "logins beside them"),
    )
    return _sized("bench.limits", _LIMITING, (*_BURSTS, *more))


_CLUSTERING = """\
Measures a store with the sessions of many gateways: its memory by kind of key, and its CPU for the commands that the
gateways send. The gateways are simulated."""


def clustering() -> argparse.ArgumentParser:
    """
    The options of C{python -m bench.cluster}: C{gateways}, C{sessions}, C{minutes}, C{pairs}, C{blocks} and C{seconds}
    are numbers from 1 on; C{output} is a path, or C{None}.
    """
    return _sized(
        "bench.cluster",
        _CLUSTERING,
        (
            ("gateways", 50, "gateways"),
            ("sessions", 5_000_000, "sessions at all of them"),
            ("minutes", 30, "minutes that a session lasts"),
            ("pairs", 100_000, "pairs of a user and an address with failures"),
            ("blocks", 10_000, "blocks of rules"),
            ("seconds", 20, "seconds of all gateways that are sent"),
        ),
    )


_STORING = """\
Measures what a store costs that several gateways share: the time and the keeper's CPU of a login with limits, with the
store and without it; and the store's CPU with many logins a second at two gateways."""


def storing() -> argparse.ArgumentParser:
    """
    The options of C{python -m bench.store}: C{mailgate} is an absolute path; C{bursts}, C{logins}, C{concurrency},
    C{renew}, C{singles}, C{calls}, C{rate} and C{seconds} are numbers from 1 on; C{output} is a path, or C{None}.
    """
    more = (
        ("singles", 100, "logins one after the other in a burst"),
        ("calls", 5000, "questions to the store, one after the other"),
        ("rate", 2000, "logins a second at the two gateways"),
        ("seconds", 10, "for how long"),
    )
    return _sized("bench.store", _STORING, (*_BURSTS, *more))


_TRACING = """\
Counts the bytecodes that a gateway executes for a login, of several kinds, and for a message through the relay. Other
work on the machine hardly changes the figures."""


def tracing() -> argparse.ArgumentParser:
    """
    The options of C{python -m bench.bytecodes}: C{mailgate} is an absolute path, and so is C{before}, or C{None};
    C{only} is a list of known words in their own order; C{logins} is a number from 1 on; C{functions} is one from 0 on;
    C{output} is a path, or C{None}.
    """
    made = _sized("bench.bytecodes", _TRACING, (("logins", 640, "logins of each kind, or messages, that are counted"),))
    before = "the source of another mailgate, which is counted, too"
    made.add_argument("--before", type=_folder, metavar="FOLDER", help=before)
    only = f"some of {', '.join(TRACED)} (default: all)"
    made.add_argument("--only", type=_words(TRACED), default=list(TRACED), metavar="KINDS", help=only)
    functions = "also list the N functions that execute most, or most more than the kind that a kind is compared with"
    made.add_argument("--functions", type=_whole, default=0, metavar="N", help=functions)
    return made


_VIEWING = """\
Measures what viewers of the live page cost: the CPU of the keeper and of the workers without viewers and with them,
with a login a second and idle sessions, and how many bytes each viewer gets."""


def viewing() -> argparse.ArgumentParser:
    """
    The options of C{python -m bench.viewers}: C{mailgate} is an absolute path; C{viewers}, C{sessions}, C{workers} and
    C{seconds} are numbers from 1 on.
    """
    made = argparse.ArgumentParser(prog="python -m bench.viewers", description=_VIEWING)
    option = made.add_argument
    source = "the source of the mailgate to measure (default: this one)"
    option("--mailgate", type=_folder, metavar="FOLDER", default=REPOSITORY, help=source)
    for name, default, help in (
        ("viewers", 10, "viewers of the page"),
        ("sessions", 1000, "idle sessions"),
        ("workers", 2, "worker processes"),
        ("seconds", 30, "for how long each part is measured"),
    ):
        option(f"--{name}", type=_count, default=default, metavar="N", help=f"{help} (default: {default})")
    return made
