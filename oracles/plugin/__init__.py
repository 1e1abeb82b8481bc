"""What stands behind the pytest plugin: what is collected, and what was seen."""
