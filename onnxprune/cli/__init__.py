"""The command line: what has to be there before the libraries are, which take a second to load."""

from collections.abc import Sequence

from onnxprune.cli.interrupts import ending_at_once, heard_again


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, that of the process where none is given; gives the exit code.

    0 done; 1 a check failed, or a bug; 2 usage; 3 the model is invalid or not supported; 4 files; 5 the model is in
    place, but something beside it could not be written; 130 Ctrl-C.
    """
    ending_at_once()
    try:
        from onnxprune.cli.entry import run

        return run(arguments)
    finally:
        if arguments is None:
            ending_at_once()  # nothing is left to be undone: Python is about to end
        else:
            heard_again()


__all__ = ["main"]
