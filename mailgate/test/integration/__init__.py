"""Tests with real Dovecot, Postfix, nginx and mail clients; skipped where these are missing."""
