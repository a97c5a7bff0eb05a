"""The protocols that clients speak, a file each. They know neither authenticators nor each other."""
