"""
Who judges logins: a module or a package for each kind of authenticator, and what they share. Nothing here knows a
dialogue.
"""
