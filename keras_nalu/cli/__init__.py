"""The command line: `keras-nalu`, also `python -m keras_nalu`.

Keras is imported only once the options are read: `--help` answers at once, and
`--backend` can still choose.
"""

import contextlib
import io
import os
import sys

import keras_nalu
from keras_nalu.cli import benchmark, discover, train
from keras_nalu.cli.parsing import Failure, Parser, Version


def main(argv=None) -> int:
    sys.stdout = sys.stdout or open(os.devnull, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Not every name of a file, nor every text in one, can be encoded.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            options = _parser().parse_args(argv)
            options.run(options)
        finally:
            # Here, so that a full disk is told: also of what `--help` printed.
            sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # The reader of our output is gone, as with `| head`: nothing to say to it.
        _close_stdout()
        return 141
    except KeyboardInterrupt:
        failure = Failure("interrupted", 130)
    except MemoryError:
        failure = Failure(
            "not enough memory. Try a smaller --size, --batch-size or --population"
        )
    except OSError as error:
        failure = Failure(f"cannot write: {error}. Try another --output")
    except Failure as error:
        failure = error
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        failure = Failure(
            f"{type(error).__name__}: {error}. For a report with all that led there: "
            "`python -X dev -m keras_nalu ...`"
        )
    with contextlib.suppress(OSError, AttributeError):
        # What was typed may have lines.
        print(f"keras-nalu: {' '.join(str(failure).split())}.", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _close_stdout()
    return failure.status


def _close_stdout():
    """Python would try again to write what is left, and complain."""
    with contextlib.suppress(OSError):
        sys.stdout.close()


def _parser():
    parser = Parser("keras-nalu", description=(keras_nalu.__doc__ or "").split("\n")[0])
    parser.add_argument("--version", action=Version, nargs=0, help="show the version")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for file in train, discover, benchmark:
        file.add_commands(commands)
    return parser
