"""Tests with real Dovecot, Postfix and mail clients; skipped where these are missing."""
