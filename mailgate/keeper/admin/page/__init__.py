"""
The live page of the admin server: what renders it, and the files that browsers load.
"""
