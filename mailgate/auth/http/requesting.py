# -*- test-case-name: mailgate.test.auth.http.test_authenticator -*-
"""
What treq needs for requests that have nothing to do with each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from http.cookiejar import Cookie, CookieJar

from hyperlink import URL

__all__ = ["NoCookies", "NormalURL"]


class NoCookies(CookieJar):
    """A cookie jar that is always empty: no login may affect another."""

    def __iter__(self) -> Iterator[Cookie]:
        return iter(())

    def add_cookie_header(self, request: object) -> None:
        """
        Add no cookies.

        @param request: the request.
        """

    def extract_cookies(self, response: object, request: object) -> None:
        """
        Store no cookies.

        @param response: the response.
        @param request: the request.
        """


class NormalURL(URL):
    """
    A URL in normal form: treq need not normalise it for each request, which takes half of its time.

    @param url: the URL.
    """

    def __init__(self, url: URL) -> None:
        super().__init__(url.scheme, url.host, url.path, url.query, url.fragment, url.port, url.rooted)
        self._text = url.to_text()

    def to_uri(self) -> NormalURL:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return self._text
