"""What can go wrong that is not a bug: one line of where, what, and what to do, and the exit code of the command."""

from __future__ import annotations

import signal
from os import PathLike


class VcorrError(Exception):
    """Base of the errors that vcorr raises on purpose.

    Args:
        where: the file, folder, option or argument at fault.
        what: what is wrong with it, with the values found.
        advice: what the user can do about it.
    """

    exit_code = 1
    shared = False  # raised alike by all processes of a training, so that the first of them tells it for all

    def __init__(self, where: str | PathLike[str], what: str, advice: str) -> None:
        super().__init__(f"{where}: {what}; {advice}")
        self.where, self.what, self.advice = str(where), what, advice

    def __reduce__(self) -> tuple[type[VcorrError], tuple[str, str, str]]:
        """Errors cross from worker processes to the one that asked."""
        return type(self), (self.where, self.what, self.advice)


class UsageError(VcorrError, ValueError):
    """The command or the call asks for something that does not exist or does not fit together."""

    exit_code = 2


class InputError(VcorrError, ValueError):
    """A file or folder that was given cannot be read, or what it holds is not valid."""

    exit_code = 3


class Stopped(VcorrError):
    """A signal ended the work after it was saved: 130 for Ctrl-C, else 75, which asks a scheduler to start it again."""

    def __init__(self, where: str | PathLike[str], number: int) -> None:
        super().__init__(where, f"stopped by {signal.Signals(number).name}, saved", "run the same command to resume")
        self.exit_code = 130 if number == signal.SIGINT else 75
        self.number = number

    def __reduce__(self) -> tuple[type[VcorrError], tuple[str, int]]:  # type: ignore[override]
        return type(self), (self.where, self.number)


class OutputError(VcorrError, OSError):
    """A result cannot be written, or would destroy another one."""

    exit_code = 4
