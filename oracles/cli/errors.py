"""The error of a user's file that cannot be imported."""


class BrokenFile(ValueError):
    """A file or module of the user's cannot be imported. The message is one line: where, and what it raises."""
