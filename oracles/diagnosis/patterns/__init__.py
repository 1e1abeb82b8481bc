"""Patterns of wrong gradients. A pattern takes `Symptoms` and returns a sentence for a bug report, or ``None``."""
