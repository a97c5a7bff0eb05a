"""The protocols that clients speak, a package each. They know neither authenticators nor each other."""
