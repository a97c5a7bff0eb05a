# -*- test-case-name: bench.test.test_store -*-
"""
C{python -m bench.storecalls PATH COUNT}: the time and the CPU of questions about logins, as a keeper asks the store
with this unix socket. Prints JSON: microseconds of each one after the other, of their CPU, of their CPU with many at a
time, and of that with many known pairs in one question.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from mailgate.store.address import storeAddress
from mailgate.store.interfaces import Question
from mailgate.store.redis.store import RedisStore, storeFor
from mailgate.store.settings import StoreAccess, StoreSettings

__all__ = ["main", "measured"]

_AT_A_TIME = 32
_WARM = 100
_anyReactor: Any = reactor


async def measured(store: RedisStore, count: int) -> dict[str, float]:
    """
    Ask, and return what that took.

    @param store: the store, which is connected.
    @param count: how many questions of each kind.
    """
    question = Question(bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48)), interval=1e-4, burst=1000)
    for _ in range(_WARM):
        await store.check(question)
    times = []
    cpu = time.process_time()
    for _ in range(count):
        began = time.perf_counter()
        await store.check(question)
        times.append(time.perf_counter() - began)
    single = time.process_time() - cpu
    rounds = max(1, count // _AT_A_TIME)
    cpu = time.process_time()
    for _ in range(rounds):
        await gatherResults([store.check(question) for _ in range(_AT_A_TIME)])
    many = time.process_time() - cpu
    cpu = time.process_time()
    for _ in range(rounds):
        await store.checkKnown([question] * _AT_A_TIME)
    known = time.process_time() - cpu
    return {
        "time": median(times) * 1e6,
        "cpu": single / count * 1e6,
        "together": many / (rounds * _AT_A_TIME) * 1e6,
        "known": known / (rounds * _AT_A_TIME) * 1e6,
    }


def main() -> int:
    """Measure and print; return the exit status."""
    path, count = sys.argv[1], int(sys.argv[2])
    settings = StoreSettings(storeAddress(f"redis+unix:{path}", "/"), timeout=1.0)
    store = storeFor(settings, StoreAccess(b"the secret of the benchmark"), reactor, "g1")
    failed: list[object] = []

    def changed(isUp: bool) -> None:
        done = Deferred.fromCoroutine(measured(store, count)).addCallback(lambda found: print(json.dumps(found)))
        done.addErrback(failed.append)
        done.addBoth(lambda _: _anyReactor.stop())

    store.changed = changed
    store.start()
    _anyReactor.run()
    for failure in failed:
        print(failure, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
