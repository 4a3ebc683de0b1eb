"""Errors that a user can correct; `tokret.runtime.ending` prints each in one line."""


class UserError(Exception):
    """A mistake in what tokret was given: a file, an argument, a field of a config.

    The message is one line that names the thing, what is wrong with it and what to do.
    """


class StoppedError(UserError):
    """A run was stopped by a signal, and saved its state.

    Attributes:
      status: the exit status: 75 after SIGTERM, which is EX_TEMPFAIL, so that whatever
        watches over runs starts them again; 130 after an interrupt from the keyboard.
    """

    def __init__(self, message: str, status: int = 75) -> None:
        """Stops with a message and a status."""
        super().__init__(message)
        self.status = status
