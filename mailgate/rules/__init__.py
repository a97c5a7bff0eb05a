"""
Rules that choose a backend from what is known of a client and its login: variables, and the tables of C{[geo NAME]}
and C{[map NAME]} sections.
"""
