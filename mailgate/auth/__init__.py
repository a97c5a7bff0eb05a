"""
Who judges logins: a module or a package for each kind of authenticator, and what they share. Nothing here knows a
dialogue.

L{mailgate.auth.firstof} and L{mailgate.auth.cred} are for authenticators from outside: a chain of them, and checkers of
twisted.cred. How these come in is L{mailgate.config.outside}'s.
"""
