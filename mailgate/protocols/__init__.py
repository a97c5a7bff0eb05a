"""The protocols that clients speak, one package each. They do not import authenticators or each other."""
