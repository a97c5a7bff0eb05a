"""
Tests for L{mailgate.keeper.admin.parts}: files, their forms, and which of them a browser gets.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from mailgate.keeper.admin.asked import Asked
from mailgate.keeper.admin.parts import Content, Parts
from mailgate.keeper.admin.replies import Reply

BODY = b"content " * 100


def asked(**fields: str | list[str]) -> Asked:
    """A request with header fields; their names have underscores in place of hyphens."""
    found = {name.replace("_", "-"): [each] if isinstance(each, str) else each for name, each in fields.items()}
    return Asked(b"GET", b"/static/a.js", Headers(found))


def field(reply: Reply, name: bytes) -> bytes | None:
    """A header field of an answer; L{None} if it has none."""
    found = [value for each, value in reply.headers if each == name]
    assert len(found) < 2, found
    return found[0] if found else None


class ContentTests(SynchronousTestCase):
    """L{Content}."""

    def test_accepted(self) -> None:
        """A client gets the compressed form only if it accepts that, by name or as any, with a weight above 0."""
        content = Content(BODY, b"text/plain")
        for accepted, isPacked in (
            ("gzip", True),
            ("GZIP", True),
            ("br, gzip;q=0.5", True),
            ("identity; q=1 , gzip ; Q=0.001", True),
            (["br", "gzip"], True),
            ("*", True),
            ("", False),
            ("identity", False),
            ("br, zstd", False),
            ("gzip;q=0", False),
            ("gzip; q=0.000, *", False),
            ("*;q=0", False),
            ("gzipped", False),
        ):
            for reply in (
                content.reply(asked(Accept_Encoding=accepted)),
                content.cached(asked(Accept_Encoding=accepted)),
            ):
                self.assertEqual(field(reply, b"Content-Encoding"), b"gzip" if isPacked else None, accepted)
                self.assertEqual(gzip.decompress(reply.body) if isPacked else reply.body, BODY, accepted)
                self.assertEqual(field(reply, b"Vary"), b"Accept-Encoding", accepted)

    def test_small(self) -> None:
        """A content that would not become smaller is sent as it is."""
        reply = Content(b"x", b"text/plain").reply(asked(Accept_Encoding="gzip"))
        self.assertEqual((reply.body, field(reply, b"Content-Encoding")), (b"x", None))

    def test_tags(self) -> None:
        """Each form has its own tag, and the client that has the one does not have the other."""
        content = Content(BODY, b"text/plain")
        gzipped, plain = (
            (field(content.cached(asked(Accept_Encoding=each)), b"ETag") or b"").decode()
            for each in ("gzip", "identity")
        )
        self.assertNotEqual(gzipped, plain)
        for form, own, other in (("gzip", gzipped, plain), ("identity", plain, gzipped)):
            for known in (own, f"W/{own}", f'"x", {own}'):
                reply = content.cached(asked(If_None_Match=["W/1", known], Accept_Encoding=form))
                self.assertEqual((reply.status, reply.body, field(reply, b"ETag")), (304, b"", own.encode()), known)
                self.assertEqual(field(reply, b"Vary"), b"Accept-Encoding")
            for known in (other, own.strip('"'), '"x"', ""):
                self.assertEqual(content.cached(asked(If_None_Match=known, Accept_Encoding=form)).status, 200, known)

    def test_fields(self) -> None:
        """An answer has the fields of its caller, too. Only those that are cached have a tag."""
        reply = Content(BODY, b"text/plain").reply(asked(Accept_Encoding="gzip"), ((b"X", b"y"),))
        self.assertEqual((field(reply, b"X"), field(reply, b"ETag")), (b"y", None))


class PartsTests(SynchronousTestCase):
    """L{Parts}."""

    def test_names(self) -> None:
        """Only files of the folder with a known ending are found."""
        folder = Path(os.path.abspath(self.mktemp()))
        (folder / "sub").mkdir(parents=True)
        for name in ("page.js", "x.py", ".hidden.css", "sub/y.css"):
            (folder / name).write_bytes(b"content")
        parts = Parts(folder)
        found = parts.find("page.js")
        assert found is not None
        self.assertEqual((found.body, found.kind), (b"content", b"text/javascript; charset=utf-8"))
        for name in ("x.py", ".hidden.css", "sub/y.css", "../x.css", "sub", "none.js", "a" * 300 + ".js", "page.js\n"):
            self.assertIsNone(parts.find(name), name)

    def test_comments(self) -> None:
        """Scripts are sent without indentation and lines that are only comments. Lines keep their numbers."""
        folder = Path(os.path.abspath(self.mktemp()))
        folder.mkdir()
        script = b'// Why.\nlet a = "// text"; // kept\n\t\t// Also why.\n\ta();\n'
        (folder / "a.js").write_bytes(script)
        (folder / "a.css").write_bytes(b"/* Why,\n\tand what. */\nb{\n\tcolor:red;\n}\n")
        parts = Parts(folder)
        sent, other = (parts.find(name) for name in ("a.js", "a.css"))
        assert sent is not None and other is not None
        self.assertEqual(sent.body, b'\nlet a = "// text"; // kept\n\na();\n')
        # Nobody reads the numbers of lines of a style sheet.
        self.assertEqual(other.body, b"b{\ncolor:red;\n}\n")
