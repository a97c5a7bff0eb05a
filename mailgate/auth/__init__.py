"""
Authenticators: a module or package for each kind, and the code that they share. Nothing here knows the dialogue with a
client.

L{mailgate.auth.firstof} and L{mailgate.auth.cred} help applications that hand over their own authenticator: a chain of
authenticators, and checkers of twisted.cred. L{mailgate.config.outside} connects these to the configuration.
"""
