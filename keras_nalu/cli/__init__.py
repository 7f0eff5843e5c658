"""The command line: `keras-nalu`, also `python -m keras_nalu`.

Keras is imported after the options are parsed, so that `--help` answers at once and
`--backend` can still choose.
"""

import contextlib
import io
import os
import sys

import keras_nalu
from keras_nalu.cli import benchmark, discover, train
from keras_nalu.cli.parsing import Failure, Parser, Version
from keras_nalu.cli.running import command_line, python


def main(argv=None) -> int:
    sys.stdout = sys.stdout or open(os.devnull, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names and contents of files may have characters that stdout cannot encode.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            options = _parser().parse_args(argv)
            options.run(options)
        finally:
            # `--help` exits, and an error of a full disk must still be reported.
            sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # The reader has closed the pipe, as `| head` does.
        _close_stdout()
        return 141
    except KeyboardInterrupt:
        failure = Failure("interrupted", 130)
    except MemoryError:
        failure = Failure(
            "not enough memory. Try fewer rows, a smaller --batch-size or --population"
        )
    except OSError as error:
        failure = Failure(f"cannot write: {error}. Try another --output")
    except Failure as error:
        failure = error
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        failure = Failure(
            f"{type(error).__name__}: {error}. For the traceback run `{python()} "
            "-X dev -m keras_nalu ...` with the same options"
        )
    with contextlib.suppress(OSError, AttributeError):
        # The message may contain line breaks that the user typed.
        print(f"keras-nalu: {' '.join(str(failure).split())}.", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _close_stdout()
    return failure.status


def _close_stdout():
    """At exit Python would flush stdout again, and print another error."""
    with contextlib.suppress(OSError):
        sys.stdout.close()


def _parser():
    description = (keras_nalu.__doc__ or "").split("\n")[0]
    parser = Parser(command_line(), description=description)
    parser.add_argument("--version", action=Version, nargs=0, help="show the version")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for file in train, discover, benchmark:
        file.add_commands(commands)
    return parser
