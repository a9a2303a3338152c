"""The one way in which a command line is refused."""


class Problem(Exception):
    """Raised if an argument or a setting is wrong or missing; its text is one line that says what to do."""
