"""What ``oracles new`` writes: the files of a new layer of manual_bp, and a test of a user's own code."""
