"""A status line that shows the current stage of the search."""

import contextlib


@contextlib.contextmanager
def progress(verbose):
    """Yields a function that shows a text, in a terminal and if `verbose`."""
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
