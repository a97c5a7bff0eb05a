# -*- test-case-name: mailgate.test.test_documents -*-
"""
The documents are valid reStructuredText, and their links lead to existing files.
"""

from __future__ import annotations

import io
import os
import re

from docutils import nodes
from docutils.core import publish_doctree
from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.documents import MISSING, ROOT, document, documents

LINK = re.compile(r"<([\w./-]+)(?:#[\w-]+)?>`_")
"""A relative link to a file or a folder of the checkout."""

PART = re.compile(r"<([\w./-]*)#([\w-]+)>`_")
"""A relative link to a section of a document, or of the same one."""

WARNING = 2
"""The severity from which complaints of docutils count; 1 is information."""


class DocumentTests(SynchronousTestCase):
    """README, NEWS, docs/ and the benchmark's README."""

    skip = MISSING

    def setUp(self) -> None:
        self.documents = {**documents(), "bench/README.rst": document("bench", "README.rst")}

    def test_valid(self) -> None:
        """docutils reads each without a warning."""
        for name, text in self.documents.items():
            complaints = io.StringIO()
            settings = {"warning_stream": complaints, "report_level": WARNING, "syntax_highlight": "none"}
            publish_doctree(text, source_path=os.path.join(ROOT, name), settings_overrides=settings)
            self.assertEqual(complaints.getvalue(), "", name)

    def test_links(self) -> None:
        """Each relative link leads to a file."""
        for name, text in self.documents.items():
            folder = os.path.dirname(os.path.join(ROOT, name))
            dead = [target for target in LINK.findall(text) if not os.path.exists(os.path.join(folder, target))]
            self.assertEqual(dead, [], name)

    def test_parts(self) -> None:
        """Each link to a section of a document leads to one."""
        sections = {name: self.sections(text) for name, text in self.documents.items()}
        for name, text in self.documents.items():
            for target, part in PART.findall(text):
                path = os.path.normpath(os.path.join(os.path.dirname(name), target)) if target else name
                self.assertIn(part, sections.get(path, ()), f"{name}: {target}")

    def sections(self, text: str) -> set[str]:
        """The anchors of the sections of C{text}."""
        settings = {"warning_stream": io.StringIO(), "syntax_highlight": "none"}
        found = publish_doctree(text, settings_overrides=settings).findall(nodes.section)
        return {anchor for section in found for anchor in section["ids"]}

    def test_reached(self) -> None:
        """Each document of docs/ is linked from the index, and links back to it."""
        index = LINK.findall(self.documents["docs/index.rst"])
        names = {os.path.basename(name) for name in self.documents if name.startswith("docs/")} - {"index.rst"}
        self.assertEqual(names - set(index), set())
        for name in names:
            self.assertIn("index.rst", LINK.findall(self.documents[f"docs/{name}"]), name)
