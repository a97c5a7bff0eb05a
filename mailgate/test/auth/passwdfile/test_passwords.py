"""
Tests of L{mailgate.auth.passwdfile.passwords} and L{mailgate.auth.passwdfile.slowhashes}. C{doveadm pw} of Dovecot
2.3.19 made the vectors from the password "secret"; for the schemes that it can only verify, libxcrypt 4.4.33 made them.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout

from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.passwdfile import slowhashes
from mailgate.auth.passwdfile.crypt3 import HashFailed
from mailgate.auth.passwdfile.passwords import Password, commonest, expense, parsePassword
from mailgate.auth.passwdfile.slowhashes import UnusablePassword
from mailgate.login import Method

SHA512 = b"$6$M3PPqsLK2DJQmraz$Rx0iXRQbGA0GySB8N65E/TzAPMkUJYLY0ZDBmFrDfzWdaaIkC88YYHb3Z9I/w65CcNq9fftwHNfjjhIsgaV1U."
SHA512_ROUNDS = (
    b"$6$rounds=4000$E6jj4HI51KABQcNp$"
    b"ly1VaTwA9JNhaHpQgkjyAhO1a8qkOLTt0JziZ5yoJ3RFLmIMZojKPEPa5z81Q4wWmQ9dzC6OCsxz8V97Z6Bbe0"
)
SHA256 = b"$5$TisNU0FkaDmbrVpk$f3w7JivOt57mFaZZ4OKU2JCRo4h9xbGpnRUlpIPcC91"
BLOWFISH = b"$2y$05$D0Ck29t8eOiLe8t3hPkJU.cOb3buphx0ZjPac7c.sP8i5wn7gSuhS"
YESCRYPT = b"$y$j75$k2XAnEHBqQ1Ct2aMXFKNa/$Tg4ZRR7tz/WRlmYbADZh9OJYakPewgSPQqW55EXAJ14"
GOST_YESCRYPT = b"$gy$j75$k2XAnEHBqQ1Ct2aMXFKNa/$O2VXkrrbK/nrZECj6gzoetucyvBE.tkY7fQCPxGaah8"
SCRYPT = b"$7$66..../....k2XAnEHBqQ1Ct2aM$SKCtfQ946jYUHuXqwA/2M1ygewv095rErWQiJYpgynB"
ARGON2ID = b"$argon2id$v=19$m=65536,t=3,p=1$NGUx3JYFI0tpej5jQ1X8zA$hWdAYOIhSIkznhMdqM6MVbe5Z9WMBvHQv+PrnHCjMDE"
ARGON2I = b"$argon2i$v=19$m=32768,t=4,p=1$kv+pP0UUciY53mMR1eidyA$LnrADnokcdWRjgW+ESAnr1XRvCWYO84dww6MAV0Iy9g"
SSHA256 = b"ATOncGB2cNWyfBhdTpNRTOoucfUwMrZbt/Zs8Xsc2T5SIlcW"
SSHA512 = b"FHKplhG/qjqif43meKzRNXKQ8YWpDwv/oZsMORaYKLNJ0Wk8ltv5cNYDYJAws7mCdH18eNnhMSbYKozFXEkyutfW3ic="

FAST = [
    (b"{PLAIN}secret", "PLAIN"),
    (b"{plain}secret", "PLAIN"),
    (b"{CLEAR}secret", "PLAIN"),
    (b"{CLEARTEXT}secret", "PLAIN"),
    (b"{PLAIN.B64}c2VjcmV0", "PLAIN"),
    (b"{PLAIN.hex}736563726574", "PLAIN"),
    (b"{SSHA256}" + SSHA256, "SSHA256"),
    (b"{SSHA512}" + SSHA512, "SSHA512"),
    (b"{SSHA256.HEX}e723ccf2a2d1b7f2fff2b42ee9ad806ad01ad2ae9bb0ce8a8a5e5cba2ccad5644399ff22", "SSHA256"),
    (b"{SSHA256.B64}TaEdHawu1nxLNOJkstMYTjW07uKnQtnjG+Ip6YY5KSHb7OYz", "SSHA256"),
    (b"{Ssha256.base64}TaEdHawu1nxLNOJkstMYTjW07uKnQtnjG+Ip6YY5KSHb7OYz", "SSHA256"),
    (
        b"{SSHA512.HEX}e7308d2dd11b10c1e2cda334bb8b6741caf3608ec341b7639ace92828c2b1825"
        b"06e7742499069fb1ac1b61bb1690a4a0c321cd71a6d28d1c42905369e7df8be68287e4d7",
        "SSHA512",
    ),
]

SLOW = [
    (b"{SHA256-CRYPT}" + SHA256, "SHA256-CRYPT"),
    (b"{SHA512-CRYPT}" + SHA512, "SHA512-CRYPT"),
    (b"{SHA512-CRYPT}" + SHA512_ROUNDS, "SHA512-CRYPT"),
    (b"{CRYPT}" + SHA512, "SHA512-CRYPT"),
    (SHA512, "SHA512-CRYPT"),
    (SHA256, "SHA256-CRYPT"),
    (BLOWFISH, "BLF-CRYPT"),
    (b"{BLF-CRYPT}" + BLOWFISH, "BLF-CRYPT"),
    (b"{SHA512-CRYPT}" + BLOWFISH, "BLF-CRYPT"),
    (
        b"{BLF-CRYPT.HEX}24327924303524744930652e614139436a67487a43586d384a62304e2e6a5679702e382f"
        b"65673373597057427873375435444c3355495a306f2e4d2e",
        "BLF-CRYPT",
    ),
    (
        b"{SHA512-CRYPT.B64}JDYkOEEvbW5oZy54VUdsSmtTMiQ5RnlrTWhDM0c2SVBWVDBFVW5OeFVUL0htVVdMcHo2ZVNJODhEdXYwdzk5V3py"
        b"UlU1YUZxZTZTRnk3YVVvak9CeGI2bmx2bEJEdjVNQ1UxR1ZFN29uMA==",
        "SHA512-CRYPT",
    ),
    (b"{CRYPT}" + YESCRYPT, "yescrypt"),
    (YESCRYPT, "yescrypt"),
    (b"{CRYPT}" + GOST_YESCRYPT, "gost-yescrypt"),
    (b"{CRYPT}" + SCRYPT, "scrypt"),
    (b"{SHA512-CRYPT}" + YESCRYPT, "yescrypt"),
    (b"{ARGON2ID}" + ARGON2ID, "ARGON2ID"),
    (b"{ARGON2I}" + ARGON2I, "ARGON2I"),
    (b"{ARGON2ID}" + ARGON2I, "ARGON2I"),
]


class PasswordTestCase(SynchronousTestCase):
    """Common code for tests of passwords."""

    def parse(self, text: bytes) -> Password:
        """Return the password of C{text}, which is not locked."""
        password = parsePassword(text)
        assert password is not None
        return password

    def unusable(self, text: bytes) -> str:
        """Return why C{text} is invalid."""
        return str(self.assertRaises(UnusablePassword, parsePassword, text))

    def without(self, library: str) -> None:
        """Hide C{library}, as if it were not installed."""
        present = {name: sys.modules[name] for name in list(sys.modules) if name.partition(".")[0] == library}
        for name in present:
            del sys.modules[name]
        sys.modules[library] = None  # type: ignore[assignment]

        def putBack() -> None:
            del sys.modules[library]
            sys.modules.update(present)

        self.addCleanup(putBack)


class SchemeTests(PasswordTestCase):
    """Every scheme, as Dovecot writes it."""

    def test_right(self) -> None:
        """The right password matches in every scheme and encoding."""
        for text, scheme in FAST + SLOW:
            password = self.parse(text)
            self.assertEqual(password.scheme, scheme, text)
            self.assertTrue(password.matches(b"secret"), text)

    def test_wrong(self) -> None:
        """No other password matches: in another case, shortened, extended, or empty."""
        for text, _ in FAST + SLOW:
            password = self.parse(text)
            for wrong in (b"Secret", b"secre", b"secret ", b"", b"secret\0", b"secret\n"):
                self.assertFalse(password.matches(wrong), (text, wrong))

    def test_hashOfNothing(self) -> None:
        """An empty password does not match even its own hash."""
        stored = base64.b64encode(hashlib.sha256(b"salt").digest() + b"salt")
        self.assertFalse(self.parse(b"{SSHA256}" + stored).matches(b""))

    def test_hashItselfIsNoPassword(self) -> None:
        """The text of the hash does not match as a password."""
        for text, scheme in FAST + SLOW:
            if scheme != "PLAIN":
                self.assertFalse(self.parse(text).matches(text[:70]), text)
                self.assertFalse(self.parse(text).matches(text.partition(b"}")[2] or text), text)

    def test_slow(self) -> None:
        """The slow schemes are marked as slow, and the others are not."""
        self.assertEqual({self.parse(text).slow for text, _ in SLOW}, {True})
        self.assertEqual({self.parse(text).slow for text, _ in FAST}, {False})

    def test_plain(self) -> None:
        """Only PLAIN stores the password itself."""
        self.assertEqual(self.parse(b"{PLAIN.B64}c2VjcmV0").plain, b"secret")
        self.assertIsNone(self.parse(b"{SSHA512}" + SSHA512).plain)
        self.assertIsNone(self.parse(SHA512).plain)

    def test_plainIsExact(self) -> None:
        """Spaces and braces in a PLAIN password belong to it."""
        self.assertTrue(self.parse(b"{PLAIN} a}{b ").matches(b" a}{b "))
        self.assertFalse(self.parse(b"{PLAIN} a}{b ").matches(b"a}{b"))

    def test_notASCII(self) -> None:
        """A password is bytes: Dovecot's hash of a word in UTF-8 matches that, and not the word in Latin-1."""
        password = self.parse(
            b"$6$rounds=5001$idosbc99EHKPendJ$"
            b"ZBODNWtncvsFdy8u1CXX.f27y/ZHy2RLYvI24ysgbJdkUZg4BNzIOa0Us6kaovwQY/wVTPLXvtHaL.oaPrkB/."
        )
        self.assertTrue(password.matches("pässwörd".encode()))
        self.assertFalse(password.matches("pässwörd".encode("latin-1")))
        for text in (BLOWFISH, SHA256, b"{ARGON2I}" + ARGON2I, b"{PLAIN}secret"):
            self.assertFalse(self.parse(text).matches(b"\xff\xfe"))

    def test_bcryptLooksAt72Bytes(self) -> None:
        """As with crypt(3), bcrypt uses the first 72 bytes; a longer password raises nothing."""
        password = self.parse(b"{BLF-CRYPT}$2y$05$ZesW0neJerbuFiYDbAAoCuSAqoUZ2rL1EL2PxBbV.RFgl3ij/hKjm")
        for length in (72, 73, 80, 511):
            self.assertTrue(password.matches(b"a" * length), length)
        self.assertFalse(password.matches(b"a" * 71))

    def test_cryptTakes511Bytes(self) -> None:
        """A password that is too long for crypt(3) never matches, and takes no time."""
        password = self.parse(b"{BLF-CRYPT}$2y$05$ZesW0neJerbuFiYDbAAoCuSAqoUZ2rL1EL2PxBbV.RFgl3ij/hKjm")
        self.assertFalse(password.matches(b"a" * 512))
        self.assertFalse(self.parse(SHA512).matches(b"a" * 1_000_000))

    def test_repr(self) -> None:
        """The repr of a password shows neither it nor its hash."""
        for text, scheme in FAST + SLOW:
            shown = repr(self.parse(text))
            self.assertIn(scheme, shown)
            self.assertNotIn("secret", shown)
            self.assertNotIn(text[-12:].decode(), shown)


class DigestTests(PasswordTestCase):
    """CRAM-MD5 and APOP."""

    CHALLENGE = b"<1896.697170952@postoffice.reston.mci.net>"

    def test_cramMD5(self) -> None:
        """The example of RFC 2195 matches, in lower and in upper case."""
        password = self.parse(b"{PLAIN}tanstaaftanstaaf")
        for digest in (b"b913a602c7eda7a495b4e6e7334d3890", b"B913A602C7EDA7A495B4E6E7334D3890"):
            self.assertTrue(password.answers(Method.CRAM_MD5, self.CHALLENGE, digest))

    def test_apop(self) -> None:
        """The example of RFC 1939 matches."""
        digest = b"c4c9334bac560ecc979e58001b3e22fb"
        password = self.parse(b"{PLAIN}tanstaaf")
        self.assertTrue(password.answers(Method.APOP, b"<1896.697170952@dbc.mtview.ca.us>", digest))
        self.assertFalse(password.answers(Method.CRAM_MD5, b"<1896.697170952@dbc.mtview.ca.us>", digest))

    def test_anotherChallenge(self) -> None:
        """A digest for another challenge does not match: it cannot be replayed."""
        password = self.parse(b"{PLAIN}tanstaaftanstaaf")
        self.assertFalse(password.answers(Method.CRAM_MD5, b"<2@x>", b"b913a602c7eda7a495b4e6e7334d3890"))

    def test_odd(self) -> None:
        """A text that is no digest does not match, and raises nothing."""
        password = self.parse(b"{PLAIN}tanstaaftanstaaf")
        for digest in (b"", b"tanstaaftanstaaf", b"\xff" * 32, b"b913a602c7eda7a495b4e6e7334d389"):
            self.assertFalse(password.answers(Method.CRAM_MD5, self.CHALLENGE, digest))

    def test_hashed(self) -> None:
        """A hashed password matches no digest, not even that of an empty password."""
        password = self.parse(b"{SSHA256}" + SSHA256)
        empty = Password("PLAIN", lambda secret: False, plain=b"")
        ofNothing = b"74e6f7298a9c2d168935f58c001bad88"
        self.assertFalse(password.answers(Method.CRAM_MD5, b"", ofNothing))
        self.assertFalse(empty.answers(Method.CRAM_MD5, b"", ofNothing))


class UnusableTests(PasswordTestCase):
    """Stored passwords that never match."""

    def test_empty(self) -> None:
        """An empty stored password is invalid, in every scheme and encoding."""
        for text in (b"", b"{PLAIN}", b"{PLAIN.B64}", b"{CLEARTEXT.HEX}", b"{SSHA256}", b"{CRYPT}", b"{ARGON2ID}"):
            self.assertIn("is empty", self.unusable(text))

    def test_locked(self) -> None:
        """A hash that starts with * or ! is locked, as in shadow(5); a PLAIN password with such a start is not."""
        for text in (b"*", b"!", b"!!", b"!" + SHA512, b"{SHA512-CRYPT}*0", b"{ARGON2ID}!", b"{SSHA256}*"):
            self.assertIsNone(parsePassword(text), text)
        self.assertTrue(self.parse(b"{PLAIN}!secret").matches(b"!secret"))

    def test_unknownScheme(self) -> None:
        """An unknown scheme is reported with the most similar known one."""
        self.assertEqual(self.unusable(b"{SSHA-512}abc"), "has the unknown scheme SSHA-512; did you mean SSHA512?")
        self.assertEqual(self.unusable(b"{blf-crpyt}abc"), "has the unknown scheme blf-crpyt; did you mean BLF-CRYPT?")
        self.assertEqual(self.unusable(b"{MD5}abc"), "has the unknown scheme MD5")

    def test_unknownEncoding(self) -> None:
        """An unknown encoding is reported with the most similar known one."""
        self.assertEqual(self.unusable(b"{PLAIN.B46}abc"), "has the unknown encoding .B46; did you mean B64?")

    def test_notDecodable(self) -> None:
        """A text that is not in the encoding of its scheme is invalid."""
        for text in (b"{SSHA256}\xff\xff", b"{SSHA256.HEX}zz", b"{PLAIN.B64}c2Vj*mV0", b"{SSHA512}" + SSHA512[:-1]):
            self.assertIn("is not encoded as ", self.unusable(text))

    def test_withoutSalt(self) -> None:
        """A salted digest without a salt, which Dovecot also rejects, is invalid."""
        self.assertIn("too short", self.unusable(b"{SSHA256.HEX}" + b"00" * 32))
        self.assertIn("too short", self.unusable(b"{SSHA512.HEX}" + b"00" * 64))

    def test_broken(self) -> None:
        """A hash that is incomplete, of an old kind, or has too few rounds is invalid."""
        fewRounds = SHA512_ROUNDS.replace(b"4000", b"500")
        for text in (SHA512[:-1], SHA256 + b"x", BLOWFISH[:-1], fewRounds, b"$1$salt$hash", b"$y$j9T$x", b"secret"):
            self.assertIn("is not a complete $5$, ", self.unusable(text))
        for text in (b"$argon2d$v=19$m=8,t=1,p=1$abc$abc", b"secret", BLOWFISH, ARGON2ID.partition(b"$hWd")[0]):
            self.assertIn("not a complete Argon2 hash", self.unusable(b"{ARGON2ID}" + text))

    def test_argon2WithoutScheme(self) -> None:
        """An Argon2 hash without its scheme, which Dovecot does not recognise either, is reported as such."""
        self.assertIn("{ARGON2ID}", self.unusable(ARGON2ID))
        self.assertIn("{ARGON2ID}", self.unusable(b"{CRYPT}" + ARGON2ID))

    def test_noEndOfScheme(self) -> None:
        """An unclosed or malformed scheme is not quoted: it may be a password."""
        for text in (b"{hunter2", b"{}hunter2", b"{a hunter2}x", b"{hunter2" + b"2" * 40 + b"}"):
            self.assertNotIn("hunter2", self.unusable(text))

    def test_messagesQuoteNothing(self) -> None:
        """No message, and no traceback, quotes the hash."""
        for text in (b"{SSHA256}Zaphod\xff", b"{PLAIN.HEX}Zaphod", b"{CRYPT}$6$Zaphod", b"{ARGON2I}Zaphod", b"Zaphod"):
            error = self.assertRaises(UnusablePassword, parsePassword, text)
            self.assertNotIn("Zaphod", str(error))
            self.assertTrue(error.__cause__ is None and (error.__context__ is None or error.__suppress_context__))


class LibraryTests(PasswordTestCase):
    """Slow hashes are computed by the system, or else by a library."""

    def withoutSystem(self) -> None:
        """Hide the system's crypt(3)."""
        self.patch(slowhashes, "loadCrypt3", lambda: None)

    def test_missing(self) -> None:
        """Without its library a scheme is unusable, and the message names what to install."""
        self.withoutSystem()
        for library, text, package in (
            ("bcrypt", BLOWFISH, '"mailgate[passwdfile]"'),
            ("passlib", SHA512, "libpass"),
            ("passlib", SHA256, "libpass"),
            ("argon2", b"{ARGON2ID}" + ARGON2ID, '"mailgate[passwdfile]"'),
        ):
            self.without(library)
            self.assertIn(f"pip install {package}", self.unusable(text))

    def test_systemNeedsNone(self) -> None:
        """Hashes that the system's crypt(3) computes need no library."""
        for library in ("bcrypt", "passlib"):
            self.without(library)
        for text, scheme in SLOW:
            if not scheme.startswith("ARGON2"):
                self.assertTrue(self.parse(text).matches(b"secret"), text)

    def test_withoutSystem(self) -> None:
        """Without crypt(3), libraries compute the usual hashes, with the same results."""
        self.withoutSystem()
        for text, scheme in SLOW:
            if scheme in ("SHA256-CRYPT", "SHA512-CRYPT", "BLF-CRYPT"):
                password = self.parse(text)
                self.assertEqual((password.scheme, password.slow), (scheme, True))
                self.assertTrue(password.matches(b"secret"), text)
                for wrong in (b"Secret", b"", b"secret\0", b"x" * 600):
                    self.assertFalse(password.matches(wrong), (text, wrong))
        password = self.parse(b"{BLF-CRYPT}$2y$05$ZesW0neJerbuFiYDbAAoCuSAqoUZ2rL1EL2PxBbV.RFgl3ij/hKjm")
        self.assertTrue(password.matches(b"a" * 80))

    def test_unknownToTheSystem(self) -> None:
        """A kind of hash that neither the system nor a library supports is reported by its name."""
        self.withoutSystem()
        for text, scheme in ((YESCRYPT, "yescrypt"), (GOST_YESCRYPT, "gost-yescrypt"), (SCRYPT, "scrypt")):
            expected = f"is a {scheme} hash, which this system's libcrypt does not support"
            self.assertEqual(self.unusable(b"{CRYPT}" + text), expected)

    def test_pythonOneAtATime(self) -> None:
        """Hashes in pure Python are computed one at a time, because each blocks all threads."""
        self.withoutSystem()
        password = self.parse(SHA512)
        with slowhashes._ONE_AT_A_TIME, ThreadPoolExecutor(1) as threads:
            answer = threads.submit(password.matches, b"secret")
            self.assertFalse(answer.done())
            self.assertRaises(FutureTimeout, answer.result, 0.05)
            slowhashes._ONE_AT_A_TIME.release()
            try:
                self.assertTrue(answer.result(30))
            finally:
                slowhashes._ONE_AT_A_TIME.acquire()

    def test_noMemory(self) -> None:
        """An Argon2 hash that fails for lack of memory is not a wrong password."""
        huge = ARGON2ID.replace(b"m=65536", b"m=4294967295")
        self.assertRaises(HashFailed, self.parse(b"{ARGON2ID}" + huge).matches, b"secret")

    def test_notNeeded(self) -> None:
        """PLAIN and salted digests need no library."""
        self.withoutSystem()
        for library in ("bcrypt", "passlib", "argon2"):
            self.without(library)
        for text, _ in FAST:
            self.assertTrue(self.parse(text).matches(b"secret"))


class ExpenseTests(PasswordTestCase):
    """L{expense}: unusually slow hashes."""

    def test_rounds(self) -> None:
        """More than 100,000 rounds of SHA-crypt are reported, in each spelling of the scheme."""
        many = SHA512.replace(b"$6$", b"$6$rounds=100001$")
        for text in (many, b"{CRYPT}" + many, b"{SHA512-CRYPT.B64}" + base64.b64encode(many), many.replace(b"6", b"5")):
            self.assertIn("takes 100001 rounds", expense(text))
        for text in (SHA512, SHA512_ROUNDS, many.replace(b"100001", b"100000"), b"!" + many, b"{MD5}" + many):
            self.assertEqual(expense(text), "", text)

    def test_cost(self) -> None:
        """A cost of bcrypt above 13 is reported."""
        self.assertIn("has the cost 14", expense(BLOWFISH.replace(b"$05$", b"$14$")))
        self.assertEqual(expense(BLOWFISH.replace(b"$05$", b"$13$")), "")

    def test_others(self) -> None:
        """Nothing else is reported."""
        for text, _ in FAST + SLOW:
            self.assertEqual(expense(text), "")


class CommonestTests(PasswordTestCase):
    """L{commonest}."""

    def test_most(self) -> None:
        """The most frequent scheme is chosen, in any spelling, and its first password."""
        texts = [b"{PLAIN}a", b"{CRYPT}" + SHA512, SHA512_ROUNDS, b"{ARGON2ID}" + ARGON2ID]
        found = commonest(texts)
        assert found is not None
        self.assertEqual((found.scheme, found.slow), ("SHA512-CRYPT", True))

    def test_usableOnly(self) -> None:
        """Unusable passwords are not counted."""
        found = commonest([b"", b"*", b"{MD5}x", b"{MD5}y", b"{PLAIN}a"])
        assert found is not None
        self.assertEqual(found.scheme, "PLAIN")
        self.assertIsNone(commonest([b"", b"*", b"{MD5}x"]))
        self.assertIsNone(commonest([]))
