"""The commands of ``oracles``, imported when they run."""
