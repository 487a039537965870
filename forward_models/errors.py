"""The one error a person meets when the input, not the program, is at fault."""


class InputRefused(ValueError):
    """The input cannot be processed as it is.

    The message is one line: what was expected, what came, what to do. The command line prints it as it stands and
    exits with code 3.
    """


class FlagConflict(InputRefused):
    """Two arguments contradict each other, or one of them would be ignored; the command line exits with code 2."""
