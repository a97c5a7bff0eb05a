# -*- test-case-name: mailgate.test.auth.http.test_surplus -*-
"""
C{python -m bench.surplus}: how many logins are spoilt by a service that sends more than its Content-Length.

For each case attackers choose the surplus bytes. At the same time clients log in at one gateway after the other, half
of them with wrong passwords. After the first surplus byte a gateway keeps no connection, so the moments before that
matter. No client may reach the backend with a wrong password, or as another user.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from mailgate.test.support.surplus import CASES, Attack, Service, Tally

__all__ = ["main"]

COLUMNS = ("attempts", "gateways", "named", "right", "as admin", "wrong", "shifted")


def _row(case: str, tally: Tally) -> str:
    numbers = (tally.attempts, tally.rounds, tally.faults, tally.right, *tally.harm)
    return f"{case:10}" + "".join(f"{number:>10}" for number in numbers)


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.surplus")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each case runs (default: 10)")
    parser.add_argument("--clients", type=int, default=20, help="beside a fifth as many attackers (default: 20)")
    parser.add_argument("--tries", type=int, default=3, help="attempts of each client after the fault is named")
    parser.add_argument("--patience", type=float, default=5.0, help="seconds that the fault is waited for")
    parser.add_argument("--keepalive", default="auto", help="auth_http_keepalive (default: auto)")
    parser.add_argument("--use", default="epoll", help="epoll or reactor (default: epoll)")
    parser.add_argument("--cases", nargs="+", default=CASES, help=f"some of {', '.join(CASES)}, or milliseconds")
    return parser.parse_args(given)


async def _measure(reactor: object, wanted: argparse.Namespace) -> None:
    print(f"{'surplus':10}" + "".join(f"{name:>10}" for name in COLUMNS))
    for case in wanted.cases:
        service = Service(case)
        attack = Attack(reactor, service, wanted.clients, wanted.use, wanted.keepalive)
        end = reactor.seconds() + wanted.seconds  # type: ignore[attr-defined]
        try:
            while reactor.seconds() < end:  # type: ignore[attr-defined]
                await attack.round(wanted.tries, wanted.patience)
        finally:
            service.stop()
        print(_row(case, attack.tally), flush=True)


def main(given: Sequence[str]) -> None:
    """Measure as the arguments C{given} say, and print a table."""
    react(lambda reactor: Deferred.fromCoroutine(_measure(reactor, _arguments(given))))


if __name__ == "__main__":
    main(sys.argv[1:])
