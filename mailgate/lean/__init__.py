"""
What a reactor and its transports are to dialogues, over raw descriptors: connections, listening, connecting, time. They
do what Twisted's own do, for less. Nothing here knows of mail.
"""
