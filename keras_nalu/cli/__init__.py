"""The command line: `keras-nalu`, also `python -m keras_nalu`.

Keras is imported only once the options are read: `--help` answers at once, and
`--backend` can still choose.
"""

import io
import os
import sys

import keras_nalu
from keras_nalu.cli import benchmark, export, train
from keras_nalu.cli.parsing import Failure, Parser, Version


def main(argv=None) -> int:
    sys.stdout = sys.stdout or open(os.devnull, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Not every name of a file, nor every text in one, can be encoded.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options = _parser().parse_args(argv)
        options.run(options)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # The reader of our output is gone, as with `| head`: nothing to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
    # What was typed may have lines.
    print(f"keras-nalu: {' '.join(str(failure).splitlines())}.", file=sys.stderr)
    return failure.status


def _parser():
    parser = Parser("keras-nalu", description=(keras_nalu.__doc__ or "").split("\n")[0])
    parser.add_argument("--version", action=Version, nargs=0, help="show the version")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for file in train, export, benchmark:
        file.add_commands(commands)
    return parser
