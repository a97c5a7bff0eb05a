# -*- test-case-name: mailgate.test.integration.test_screenshots -*-
"""
The screen of a terminal as HTML, with its colours.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping

__all__ = ["asPage"]

_SIXTEEN = (
    *("#1b1f23", "#e5534b", "#57ab5a", "#c69026", "#539bf5", "#b083f0", "#39c5cf", "#d0d7de"),
    *("#768390", "#ff938a", "#8ddb8c", "#daaa3f", "#96d0ff", "#dcbdfb", "#56d4dd", "#ffffff"),
)
"""The colours of a dark terminal."""

_SEQUENCE = re.compile("\x1b\\[([0-9;]*)m|\x1b.|[\x0e\x0f]")

_PAGE = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Terminal</title><style>
body {{ margin: 0; background: {0[0]} }}
pre {{ margin: 0; padding: 12px; display: inline-block; font: 14px/1.25 "DejaVu Sans Mono", monospace; color: {0[7]} }}
</style><pre>{1}</pre>"""


def asPage(screen: str) -> str:
    """
    Return a screen as an HTML document.

    @param screen: lines with sequences for colours (ECMA-48, SGR).
    """
    return _PAGE.format(_SIXTEEN, "".join(_spans(screen.rstrip("\n"))))


def _spans(screen: str) -> Iterator[str]:
    style: dict[str, str] = {}
    place = 0
    for found in _SEQUENCE.finditer(screen):
        yield _span(screen[place : found.start()], style)
        place = found.end()
        if found[1] is not None:
            _change(style, [int(each or 0) for each in found[1].split(";")])
    yield _span(screen[place:], style)


def _span(text: str, style: Mapping[str, str]) -> str:
    if not text or not style:
        return html.escape(text)
    front, back = style.get("front", _SIXTEEN[7]), style.get("back", _SIXTEEN[0])
    if "reverse" in style:
        front, back = back, front
    css = f"color: {front}; background: {back}"
    css += "".join(f"; {style[name]}" for name in ("bold", "dim", "underline") if name in style)
    return f'<span style="{css}">{html.escape(text)}</span>'


_ATTRIBUTES = {
    1: ("bold", "font-weight: bold"),
    2: ("dim", "opacity: 0.65"),
    4: ("underline", "text-decoration: underline"),
}
_ENDS = {22: ("bold", "dim"), 24: ("underline",), 27: ("reverse",), 39: ("front",), 49: ("back",)}


def _change(style: dict[str, str], codes: list[int]) -> None:
    """Change the style as a sequence says."""
    while codes:
        code = codes.pop(0)
        if code == 0:
            style.clear()
        elif code == 7:
            style["reverse"] = "reverse"
        elif code in _ATTRIBUTES:
            name, css = _ATTRIBUTES[code]
            style[name] = css
        elif code in _ENDS:
            for name in _ENDS[code]:
                style.pop(name, None)
        elif code in (38, 48) and codes[:1] == [5]:
            style["front" if code == 38 else "back"] = _indexed(codes[1])
            del codes[:2]
        else:
            _colour(style, code)


def _colour(style: dict[str, str], code: int) -> None:
    for first, name, bright in ((30, "front", 0), (40, "back", 0), (90, "front", 8), (100, "back", 8)):
        if first <= code < first + 8:
            style[name] = _SIXTEEN[code - first + bright]


def _indexed(number: int) -> str:
    """One of 256 colours, as xterm has them."""
    if number < 16:
        return _SIXTEEN[number]
    if number >= 232:
        grey = 8 + 10 * (number - 232)
        return f"rgb({grey} {grey} {grey})"
    parts = (number - 16) // 36, (number - 16) // 6 % 6, (number - 16) % 6
    return "rgb({} {} {})".format(*(55 + 40 * part if part else 0 for part in parts))
