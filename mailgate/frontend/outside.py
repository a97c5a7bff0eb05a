# -*- test-case-name: mailgate.test.frontend.test_outside -*-
"""
Checks the answers of authenticators that are not mailgate's own. A mistake in one must fail this login alone, before
the limits and the backends have seen the answer, and with words that name it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from mailgate.login import (
    Backend,
    BackendGroup,
    BackendTLS,
    Denial,
    LoginRequest,
    Route,
    RouteOptions,
    ScramSecret,
    TLSOptions,
    Trouble,
)

__all__ = ["checked"]

_NONE = type(None)
_NUMBER = (int, float)

_TYPES: dict[type, dict[str, Any]] = {
    Route: {
        "backends": (tuple,),
        "user": (bytes,),
        "password": (bytes, _NONE),
        "authzid": (bytes, _NONE),
        "options": (RouteOptions, _NONE),
        "scram": (ScramSecret, _NONE),
    },
    RouteOptions: {
        "key": (bytes, _NONE),
        "tls": (TLSOptions, _NONE),
        "method": (str,),
        "authid": (bytes, _NONE),
        "authzid": (bytes, _NONE),
        "forward": (tuple,),
        "hold": _NUMBER,
        "lifetime": (*_NUMBER, _NONE),
    },
    Backend: {"host": (str,), "port": (int,), "tls": (BackendTLS, _NONE), "name": (str,)},
    BackendGroup: {"text": (str,)},
    Denial: {
        "trouble": (Trouble,),
        "text": (bytes, _NONE),
        "code": (bytes, _NONE),
        "wait": _NUMBER,
        "challenge": (bytes, _NONE),
        "reason": (str,),
        "answer": (bytes,),
        "scram": (ScramSecret, _NONE),
    },
}
"""The types of the fields whose values the gateway uses without looking at them."""


def checked(
    answering: Callable[[LoginRequest], Awaitable[Any]],
) -> Callable[[LoginRequest], Awaitable[Any]]:
    """
    Have each answer of an authenticator checked.

    @param answering: the method of the authenticator that answers.
    @return: a function that returns a coroutine of the same answers. It raises L{TypeError} for a L{Route} or a
        L{Denial} with a value of a wrong type, and L{RuntimeError} if the authenticator raised a C{SystemExit}, a
        C{KeyboardInterrupt} or asyncio's C{CancelledError}: it fails as with any other exception.
    """

    async def answer(request: LoginRequest) -> Any:
        try:
            given = await answering(request)
        except (Exception, GeneratorExit):
            raise
        except BaseException as error:
            raise RuntimeError(f"the authenticator raised {type(error).__name__}") from error
        for fault in _faults(given):
            raise TypeError(f"the authenticator returned {fault}")
        return given

    return answer


def _faults(given: object) -> Iterator[str]:
    """Yield what is wrong in an answer, without the values: they may be secret. Other answers are refused later."""
    if isinstance(given, Denial):
        yield from _wrongTypes(Denial, given)
    elif isinstance(given, Route):
        yield from _wrongTypes(Route, given)
        for backend in given.backends:
            if isinstance(backend, Backend | BackendGroup):
                yield from _wrongTypes(Backend if isinstance(backend, Backend) else BackendGroup, backend)
            else:
                found = type(backend).__name__
                yield f"a Route with a backend of type {found} instead of Backend or BackendGroup"
        if given.options is not None:
            yield from _wrongTypes(RouteOptions, given.options)


def _wrongTypes(kind: type, value: object) -> Iterator[str]:
    for name, types in _TYPES[kind].items():
        content = getattr(value, name)
        if not isinstance(content, types):
            answer, found = kind.__name__, type(content).__name__
            wanted = " or ".join("None" if each is _NONE else each.__name__ for each in types)
            yield f"a {answer} whose {name} is of type {found} instead of {wanted}"
