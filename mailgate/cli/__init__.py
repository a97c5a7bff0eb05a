"""
The command C{mailgate}: checks, imports, and commands to a gateway that runs.
"""
