"""What stands behind ``oracles``: its options, and the commands that are no search over every layer."""
