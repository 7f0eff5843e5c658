"""Parsing of the command line, and its errors."""

import argparse
import contextlib
import os
import sys
from pathlib import Path

import keras_nalu

BACKENDS = ("tensorflow", "jax", "torch")


class Failure(Exception):
    """Ends the command with one line and a non-zero exit status."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


class Parser(argparse.ArgumentParser):
    def parse_args(self, args=None, namespace=None):
        for typed in sys.argv[1:] if args is None else args:
            option, equals, value = typed.partition("=")
            if equals and value == "--" and option.startswith("-"):
                # Older versions of Python parse it as an empty list.
                self.error(f"argument {option}: expected a value, received '--'")
        return super().parse_args(args, namespace)

    def parse_known_args(self, args=None, namespace=None):
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            # argparse leaves these to the parser above, which has another `--help`.
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown

    def print_help(self, file=None):
        # argparse hides errors of writing.
        (file or sys.stdout).write(self.format_help())

    def error(self, message):
        raise Failure(f"{message}. See `{self.prog} --help`", 2)


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        if action.default is None or action.default is False or action.default == ():
            return action.help
        return super()._get_help_string(action)


class Version(argparse.Action):
    def __call__(self, parser, *_):
        print("keras-nalu", keras_nalu.__version__)
        parser.exit()


def command(commands, name, run, help, more):
    """Adds a command that calls `run(options)`; returns its `add_argument`."""
    subparser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}{more}",
        formatter_class=_Formatter,
    )
    subparser.set_defaults(run=run)
    subparser.add_argument(
        "--backend",
        choices=BACKENDS,
        default=argparse.SUPPRESS,
        help="backend of Keras (default: as Keras is configured)",
    )
    return subparser.add_argument


def _number(text, convert, accept, expected):
    with contextlib.suppress(ValueError):
        value = convert(text)
        if accept(value):
            return value
    raise argparse.ArgumentTypeError(f"expected {expected}, received {text[:80]!r}")


def positive(text):
    return _number(text, int, lambda n: 0 < n < 2**40, "a positive whole number")


def whole(text):
    return _number(text, int, lambda n: 0 <= n < 2**32, "a whole number below 2**32")


def rate(text):
    return _number(text, float, lambda x: 1e-38 < x < 1e38, "a positive number")


def share(text):
    return _number(text, float, lambda x: 0 <= x < 1e38, "a number of 0 or more")


def path(text):
    try:
        # Libraries encode paths as UTF-8, the system in its own encoding.
        text.encode()
        os.fsencode(text)
        if text and "\0" not in text:
            return Path(text)
    except UnicodeEncodeError:
        pass
    raise argparse.ArgumentTypeError(
        f"expected a path of characters that the system's locale (LANG) can encode, "
        f"received {text[:80]!r}"
    )
