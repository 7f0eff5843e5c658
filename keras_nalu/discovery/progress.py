"""One line that tells a person who waits what is being tried."""

import contextlib


@contextlib.contextmanager
def progress(verbose):
    """A function that shows a text; in a terminal only, and with `verbose`."""
    if not verbose:
        yield lambda text: None
        return
    import rich.console

    console = rich.console.Console()
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status("ArithmeticRegressor") as status:
        yield lambda text: status.update(f"ArithmeticRegressor: {text}")
