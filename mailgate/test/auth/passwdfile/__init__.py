"""Tests of L{mailgate.auth.passwdfile}."""
