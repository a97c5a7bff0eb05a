"""
Limits on connections and logins, and the defence against guessed passwords. docs/limits.rst describes the rules.
"""
