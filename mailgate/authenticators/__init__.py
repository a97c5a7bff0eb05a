"""Who judges logins, a file for each kind."""
