"""
Tests for L{mailgate.config.inifile}, and for messages about invalid files: L{BAD} has the commonest mistakes.
"""

from __future__ import annotations

import glob
import os
import random
import re
from configparser import ConfigParser

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse, readOne
from mailgate.config.inifile import IniFile
from mailgate.directives import ConfigurationError
from mailgate.registry import SECTIONS
from mailgate.system.pidfile import PIDSettings
from mailgate.test.support.documents import MISSING, ROOT, codeBlocks, documents
from mailgate.test.support.nowhere import NOWHERE

HEAD = "[mail]\nauth_http = http://127.0.0.1:9000/auth\n[server imap]\nprotocol = imap\n"
"""Four valid lines."""
LISTEN = "listen = 127.0.0.1:143\n"

END = 'the ";" at the end is part of the value: remove it'
BEHIND = "a comment after a value is part of the value: put it on a line of its own"
QUOTES = "the quotes are part of the value: remove them"
INDENTED = "remove the indentation"
BLOCK = 'is nginx syntax; begin a section with "[server NAME]" in place of "server {", and remove "}"'
NEITHER = 'is neither "[SECTION]" nor "OPTION = VALUE"'

BAD = (
    # syntax of other formats
    (f"{HEAD}listen = 143;\n", f"5: [server imap] listen = 143;: {END}"),
    (f"{HEAD}listen = 143 # imap\n", f"5: [server imap] listen = 143 # imap: {BEHIND}"),
    (f"{HEAD}listen = 143 ; imap\n", f"5: [server imap] listen = 143 ; imap: {BEHIND}"),
    (f"{HEAD}listen = 143; # imap\n", f"5: [server imap] listen = 143; # imap: {BEHIND}; {END}"),
    (f'{HEAD}listen = "143"\n', f'5: [server imap] listen = "143": {QUOTES}'),
    (f"{HEAD}{LISTEN}timeout = '5s'\n", f"6: [server imap] timeout = '5s': {QUOTES}"),
    (f"{HEAD}{LISTEN}timeout = 5s;\n", f"6: [server imap] timeout = 5s;: {END}"),
    (f"{HEAD}{LISTEN}proxy = on # yes\n", f"6: [server imap] proxy = on # yes: {BEHIND}"),
    (f'{HEAD}{LISTEN}imap_auth = "plain" "login"\n', f'6: [server imap] imap_auth = "plain" "login": {QUOTES}'),
    (
        f"{HEAD}{LISTEN}timeout = 5x;\n",
        f"6: [server imap] timeout = 5x;: must be a time, such as 30s, 1h30m or 500ms; {END}",
    ),
    (
        f"{HEAD}{LISTEN}auth_http_ssl_trusted_certificate = '/nowhere/x'\n",
        "6: [server imap] auth_http_ssl_trusted_certificate = FOLDER/'/nowhere/x':"
        f" cannot be read: No such file or directory; {QUOTES}",
    ),
    (f"{HEAD}{LISTEN}timeout 5s\n", '6: has no "=" after timeout; write timeout = VALUE'),
    (f"{HEAD}{LISTEN}timeout 5s;\n", '6: has no "=" after timeout; write timeout = VALUE, without the ";"'),
    (f"{HEAD}{LISTEN}timeout: 5s\n", '6: has ":" after timeout in place of "="; write timeout = VALUE'),
    (
        f"{HEAD}{LISTEN}auth_http_header X-Key c2VzYW1l=\n",
        '6: has no "=" after auth_http_header; write auth_http_header = VALUE',
    ),
    (f"{HEAD}{LISTEN}server {{\n", f"6: {BLOCK}"),
    (f"{HEAD}{LISTEN}}}\n", f"6: {BLOCK}"),
    # an indented line belongs to the line above
    (
        f"{HEAD}{LISTEN}timeout = 5s\n  max_errors = 3\n",
        f"7: [server imap] max_errors: is indented and therefore continues the value of timeout in line 6; {INDENTED}",
    ),
    (
        f"{HEAD}listen =\n    127.0.0.1:143\n    timeout = 5s\n",
        f"7: [server imap] timeout: is indented and therefore continues the value of listen in line 5; {INDENTED}",
    ),
    (
        f"{HEAD}{LISTEN}\t[server pop3]\nlisten = 110\n",
        "6: [server imap]: [server pop3] is indented and therefore continues the value of listen in line 5;"
        f" {INDENTED}",
    ),
    # sections
    (
        "timeout = 5s\nmax_errors = 3\n" + HEAD + LISTEN,
        "1: is before the first section; write a header such as [mailgate] above it",
    ),
    (f"{HEAD}{LISTEN}[mail]\ntimeout = x\n", "6: [mail]: this section appears twice, first in line 1; merge them"),
    (
        f"{HEAD}{LISTEN}[server  imap]\n{LISTEN}",
        "6: [server imap]: this section appears twice, first in line 3; merge them",
    ),
    (f"{HEAD}{LISTEN}[mail\ntimeout = x\n", '6: has no "]" after the section name'),
    (f"{HEAD}{LISTEN}[]\ntimeout = x\n", "6: has no name between [ and ]"),
    (
        f"[mail] timeout = 5s\n{HEAD[7:]}{LISTEN}",
        '1: [mail]: has text after "[mail]"; put that on a line of its own',
    ),
    (f"{HEAD}{LISTEN}[server]\n", "6: [server]: needs a name, such as [server imap]; did you mean server NAME?"),
    (f"{HEAD}{LISTEN}[Mail]\n", "6: [Mail]: is an unknown section; did you mean mail?"),
    # options
    (
        f"{HEAD}{LISTEN}timeout = 5s\n# x\ntimeout = 6s\n",
        "8: [server imap] timeout: is set twice, first in line 6; remove one of them",
    ),
    (
        f"{HEAD}{LISTEN}ssl_cert = /x\n",
        "6: [server imap] ssl_cert: is an unknown option; did you mean ssl_certificate?",
    ),
    (
        f"{HEAD}{LISTEN}worker_processes = 2\n",
        "6: [server imap] worker_processes: belongs in [mailgate]; move it there",
    ),
    (f"{HEAD}{LISTEN}= 5\n", f"6: {NEITHER}"),
    (f"{HEAD}{LISTEN}sesame\n", f"6: {NEITHER}"),
    (f"{HEAD}{LISTEN}\ufefftimeout = 5s\n", "6: contains the invisible character U+FEFF; type the line again"),
    (f"{HEAD}{LISTEN}server_name = a b\n", "6: [server imap] server_name = a b: must be one word of printable ASCII"),
    (f"{HEAD}{LISTEN}timeout =\n", "6: [server imap] timeout = : must be a time, such as 30s, 1h30m or 500ms"),
    # a mistake in a value of [mail] is reported there, not at the server that inherits it
    (
        HEAD.replace("[server", f"proxy_ssl_trusted_certificate = {NOWHERE}/x\n[server") + LISTEN,
        f"3: [mail] proxy_ssl_trusted_certificate = {NOWHERE}/x: cannot be read: No such file or directory",
    ),
)
"""Configurations with one mistake, and the end of the message about it."""


class MistakeTests(SynchronousTestCase):
    """Each mistake causes one message, with the number of its line."""

    def test_table(self):
        """L{BAD}."""
        for text, expected in BAD:
            error = self.assertRaises(ConfigurationError, parse, text, f"{NOWHERE}/x.ini")
            self.assertEqual(str(error), f"{NOWHERE}/x.ini:{expected}".replace("FOLDER", NOWHERE), text)

    def test_secrets(self):
        """A line that cannot be read is not shown, because it may contain a secret."""
        for line in ("auth_http_header X-Key c2VzYW1l=", "auth_http_header: X-Key c2VzYW1l=", "X-Key c2VzYW1l="):
            error = self.assertRaises(ConfigurationError, parse, f"{HEAD}{LISTEN}{line}\n")
            self.assertNotIn("c2VzYW1l", str(error))

    def test_good(self):
        """Lines that only look like these mistakes are valid."""
        parse(f"\ufeff{HEAD}{LISTEN}")
        parse(f"{HEAD}{LISTEN}".replace("\n", "\r\n"))
        listen = "\tlisten =\n\t\t[::1]:143\n\t\t\n\t# one\n\t\t127.0.0.1:143\n\ttimeout = 5s\n"
        parse(f"[server imap]\n{listen}\tproxy_pass = 10.0.0.1:143\n")
        parse(f"[mail] # all\n{HEAD[7:]}{LISTEN}".replace("[server imap]", "[ server\timap ] ; one"))
        parse(f"{HEAD}{LISTEN}auth_http_header =\n    timeouts = 5\n    X-A b; # c\n")


class MutationTests(SynchronousTestCase):
    """Any file is either read, or its mistakes are reported."""

    WORDS = (
        *("", "\0", "\ufeff", "=", ":", ";", '"', " # x", "9" * 30, "unix:", "[::1%lo]:143", "systemd:", "data:"),
        *("\u0663", "1e5", "${", "\x85", "*:0", "https://[::1", "~nobody/x", "/dev/zero", "/", "shared:a:1m", "[mail]"),
        *("[", "}"),
    )

    def mutant(self, text: str, randomness: random.Random) -> str:
        """C{text} with two of its lines changed."""
        lines = text.split("\n")
        for _ in range(2):
            at = randomness.randrange(len(lines))
            place = randomness.randint(0, len(lines[at]))
            word = randomness.choice(self.WORDS)
            name, equals, _ = lines[at].partition("=")
            lines[at] = randomness.choice(
                (
                    f"  {lines[at]}",
                    lines[at].lstrip(),
                    f"{lines[at]}{word}",
                    f"{name}{equals} {word}",
                    lines[at][:place] + word + lines[at][place:],
                    f"{lines[at]}\n{lines[at]}",
                    lines[at].replace(" =", ""),
                )
            )
        return "\n".join(lines)

    def test_mutants(self):
        """Only L{ConfigurationError} is raised, and all problems of sections have a line."""
        randomness = random.Random(11)
        for _ in range(400):
            text = self.mutant(f"{HEAD}{LISTEN}imap_auth =\n  plain\n[mailgate]\npid = x\nuser = root\n", randomness)
            readings = [lambda text=text: parse(text), lambda text=text: readOne(text, "gateway.ini", PIDSettings)]
            for read in readings:
                try:
                    read()
                except ConfigurationError as error:
                    without = [each for each in error.problems if not each.line and each.option]
                    self.assertEqual(without, [], text)


class GrammarTests(SynchronousTestCase):
    """The grammar is that of C{configparser}."""

    skip = MISSING

    def test_same(self):
        """All configurations in the documents are read as C{configparser} reads them."""
        texts = [block for text in documents().values() for block in codeBlocks(text, "ini")]
        for name in glob.glob(os.path.join(ROOT, "etc", "*.ini")):
            with open(name, encoding="utf-8") as opened:
                texts.append(opened.read())
        self.assertTrue(len(texts) > 5)
        for text in texts:
            parser = ConfigParser(interpolation=None, delimiters=("=",), default_section="\0")
            parser.optionxform = str
            parser.read_string(text)
            expected = {
                name: {option: re.sub(r"\n+", "\n", value).strip() for option, value in parser[name].items()}
                for name in parser.sections()
            }
            found = IniFile(text, "x.ini", (), SECTIONS)
            self.assertEqual(found.problems, [])
            read = {
                section.name: {name: option.value for name, option in section.options.items()}
                for section in found.sections.values()
            }
            self.assertEqual(read, expected)
