"""Takes back what a change has done so far when a later step of it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgefarm.errors import EdgefarmError, NetworkFailed


class Transaction:
    """The inverse of every step that was begun, latest last.

    Each is registered before its step, because a step that fails may be half done; so it must also do when nothing was.
    """

    def __init__(self) -> None:
        self._inverses: list[Callable[[], None]] = []

    def inverse(self, action: Callable[[], None]) -> None:
        """Call `action` when the transaction fails."""
        self._inverses.append(action)

    def roll_back(self) -> list[str]:
        """Take everything back, latest first; what could not be, as sentences."""
        problems = []
        while self._inverses:
            try:
                self._inverses.pop()()
            except (EdgefarmError, OSError) as error:
                problems.append(str(error))
        return problems


@contextmanager
def transaction() -> Iterator[Transaction]:
    """All steps of the block are done, or none; NetworkFailed says why and what could not be taken back."""
    steps = Transaction()
    try:
        yield steps
    except (EdgefarmError, OSError) as error:
        why = f"cannot store the change: {error.strerror or error}" if isinstance(error, OSError) else str(error)
        if problems := steps.roll_back():
            raise NetworkFailed(f"{why}; and not everything could be taken back: {'; '.join(problems)}") from error
        raise NetworkFailed(why) from error
    except BaseException:  # a mistake of ours, or the daemon is told to end
        steps.roll_back()
        raise
