"""Tests the tests: `python tests/mutants.py`.

It copies the clone to `logs/mutants`, measures there which test covers which line and
how long it takes, and lets Cosmic Ray change one thing after the other, as
`tests/mutants.toml` says. A server that has imported Keras forks for every mutant, and
runs the tests that cover its line, the fastest first, until one fails. The same command
again goes on where it was stopped; delete the folder to begin anew.

`python tests/mutants.py main training 200` takes 200 at random of those in files whose
path has that word; a number after it is the seed, 0 else.

A clone needs `pip install -e ".[mutation]"`, and hours of one core.
"""

import ast
import collections
import difflib
import gc
import inspect
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types

ROOT = pathlib.Path(__file__).parent.parent
TREE = ROOT / "logs" / "mutants"
SESSION = "session"
#: A mutant that survives on the first is tested on the second. Of the slow tests each
#: runs what it runs in CI.
BACKENDS = {"tensorflow": "2/5", "jax": "1/5"}
#: What a mutant's tests took without it, at most: the slowest are left out.
LIMIT = float(os.environ.get("MUTANTS_LIMIT", 120))
#: And what those took that are tried first, which kill most.
QUICK = 15.0
OPTIONS = ["-q", "-m", "", "-p", "no:cacheprovider"]
#: Who knows the modules that are mutated; the first are the fastest.
TESTS = [
    f"tests/test_{name}.py"
    for name in (
        "losses metrics initializers solutions regularizers inputs equations cell "
        "conformance fused population tasks inalu_recipe saving callbacks resume "
        "devices"
    ).split()
]
#: It runs in processes of its own, what no test is seen to run.
UNSEEN = "tests/test_devices.py::test_several_devices"


def main(word="", count=None, seed=0):
    if not TREE.exists():
        leave_out = shutil.ignore_patterns(".*", "logs", "__pycache__", "notebooks")
        shutil.copytree(ROOT, TREE, ignore=leave_out)
        (TREE / "logs").mkdir()
    os.chdir(TREE)
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": str(TREE)}

    def start(*command):
        return subprocess.Popen([sys.executable, __file__, *command], env=env)

    def run(*command):
        subprocess.run(command, env=env, check=True)

    for backend in BACKENDS:
        done = pathlib.Path(backend + ".json").exists()
        if not done and start("measure", backend).wait():
            sys.exit("The tests must pass before one can test them.")
    if not pathlib.Path(SESSION).exists():
        run("cosmic-ray", "init", "tests/mutants.toml", SESSION)
        run("cr-filter-operators", SESSION, "tests/mutants.toml")
        sample(word, count, seed)
    for backend in BACKENDS:
        pathlib.Path(backend).unlink(missing_ok=True)
    servers = [start("serve", backend) for backend in BACKENDS]
    try:
        while not all(pathlib.Path(backend).exists() for backend in BACKENDS):
            if any(server.poll() is not None for server in servers):
                sys.exit("A server ended at once.")
            time.sleep(0.1)
        run("cosmic-ray", "exec", "tests/mutants.toml", SESSION)
    finally:
        for server in servers:
            server.terminate()
    report()


def sample(word, count, seed):
    from cosmic_ray.work_db import use_db
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    skipped = WorkResult(worker_outcome=WorkerOutcome.SKIPPED)
    with use_db(SESSION) as db:
        # Their identifiers are other ones every time.
        items = sorted(db.pending_work_items, key=lambda item: str(item.mutations))
        found = [i for i in items if word in str(i.mutations[0].module_path)]
        random.Random(int(seed)).shuffle(found)
        chosen = found[: None if count is None else int(count)]
        others = {i.job_id for i in items} - {i.job_id for i in chosen}
        db.set_multiple_results(others, skipped)


def measure(backend):
    os.environ |= {"KERAS_BACKEND": backend, "COVERAGE_FILE": backend + ".coverage"}
    OPTIONS.extend(["--share", BACKENDS[backend]])
    import pytest

    seconds = collections.Counter()

    class Stopwatch:
        def pytest_runtest_logreport(self, report):
            seconds[report.nodeid] += report.duration

    cover = ["--cov=keras_nalu", "--cov-context=test", "--cov-report="]
    if code := pytest.main([*OPTIONS, *cover, *TESTS], plugins=[Stopwatch()]):
        sys.exit(code)
    # Those of the tests stay; a mutant's would be taken for that of the next.
    for cache in pathlib.Path("keras_nalu").rglob("__pycache__"):
        shutil.rmtree(cache)
    pathlib.Path(backend + ".json").write_text(json.dumps(seconds))


def serve(backend):
    os.environ |= {"KERAS_BACKEND": backend, "PYTHONDONTWRITEBYTECODE": "1"}
    OPTIONS.extend(["--share", BACKENDS[backend]])
    sys.dont_write_bytecode = True
    import keras
    import pytest
    import tensorflow  # noqa: F401

    server = Server(backend)
    # No number may be computed before a fork: TensorFlow's threads do not survive.
    server.scope = keras.StatelessScope()
    server.scope.__enter__()
    if backend == "tensorflow":
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        pytest.main([*OPTIONS, *TESTS], plugins=[server])
    else:
        # What the tests import starts threads of JAX', which no fork survives.
        server.listen()


class Server:
    """Forks for every mutant. As a plugin of pytest it does so once the tests are
    collected; a child exchanges the code of the functions that were changed."""

    def __init__(self, backend):
        import coverage

        self.backend = backend
        self.data = coverage.CoverageData(backend + ".coverage")
        self.data.read()
        self.seconds = json.loads(pathlib.Path(backend + ".json").read_text())
        files = pathlib.Path("keras_nalu").rglob("*.py")
        self.files = {str(file): file.read_text() for file in files}
        self.items = {}
        self.kills = collections.Counter()
        self.failed = []

    def pytest_runtestloop(self, session):
        if session.testsfailed:
            sys.exit("A file of tests computes something when it is imported.")
        self.items = {item.nodeid: item for item in session.items}
        functions = [f for f in gc.get_objects() if isinstance(f, types.FunctionType)]
        here = os.path.abspath("keras_nalu")
        self.functions = [
            f for f in functions if f.__code__.co_filename.startswith(here)
        ]
        self.listen()
        return True

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)

    def listen(self):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.backend)
        listener.listen()
        # Else every fork would go through all of it.
        gc.freeze()
        while True:
            client, _ = listener.accept()
            with client:
                verdict = self.judge()
                client.sendall(verdict.encode())
            self.kills[kind(verdict.split(": ")[-1])] += 1

    def judge(self):
        name, lines = changed(self.files)
        if not name:
            return "survived: nothing was changed"
        order = select(
            name, self.files[name], lines, self.data, self.seconds, self.kills
        )
        if not order:
            return "survived: no test covers it"
        path = os.path.abspath(name)
        codes = exchange(self.files[name], pathlib.Path(path).read_text(), path)
        if self.items and codes:
            chosen, total = limited(order, self.seconds, QUICK)
            verdict = self.fork(lambda: self.run_items(path, codes, chosen), total)
            if verdict.startswith("killed"):
                return verdict
        # All anew: what ran when a module was imported, too, and what was made of it.
        chosen, total = limited(order, self.seconds, LIMIT)
        return self.fork(lambda: run_anew(chosen), total)

    def fork(self, function, seconds):
        def function_in_child():
            # What was put off.
            self.scope.__exit__(None, None, None)
            return function()

        return in_child(function_in_child, seconds)

    def run_items(self, path, codes, chosen):
        for function in self.functions:
            code = function.__code__
            if code.co_filename == path and place(code) in codes:
                function.__code__ = codes[place(code)]
        items = [self.items[test] for test in chosen if test in self.items]
        for item, following in itertools.pairwise([*items, None]):
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                return f"killed: {self.failed[0]}"
        return f"survived {len(items)} tests"


def place(code):
    return code.co_qualname, code.co_firstlineno


def exchange(before, now, path):
    """The new code of every function; none, where more has changed than functions."""
    codes = {}

    def same(a, b):
        """But for the functions in it."""
        if not isinstance(a, types.CodeType) or not isinstance(b, types.CodeType):
            return repr(a) == repr(b)
        consts = list(zip(a.co_consts, b.co_consts, strict=False))
        if a.co_flags & inspect.CO_OPTIMIZED:
            codes[place(a)] = b
            for pair in consts:
                same(*pair)
            return a.co_freevars == b.co_freevars
        return (
            (a.co_code, a.co_names) == (b.co_code, b.co_names)
            and len(a.co_consts) == len(b.co_consts)
            and all([same(*pair) for pair in consts])
        )

    try:
        return same(compile(before, path, "exec"), compile(now, path, "exec")) and codes
    except SyntaxError:
        return {}


def changed(files):
    """The file that is not what it was, and the lines that were changed in it."""
    for name, before in files.items():
        now = pathlib.Path(name).read_text()
        if now != before:
            diff = difflib.SequenceMatcher(
                None, before.split("\n"), now.split("\n"), autojunk=False
            )
            spans = [(a, b) for tag, a, b, *_ in diff.get_opcodes() if tag != "equal"]
            return name, {n + 1 for a, b in spans for n in range(a, max(b, a + 1))}
    return None, set()


def select(name, text, lines, data, seconds, kills):
    """The tests that cover these lines, the fastest first, but of each kind one, and
    earlier those that killed others."""
    measured = next((f for f in data.measured_files() if f.endswith(name)), name)
    of_line = {
        line: {c.split("|")[0] for c in contexts if c}
        for line, contexts in data.contexts_by_lineno(measured).items()
    }
    inside = {
        n
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
        for n in range(node.body[0].lineno, node.end_lineno + 1)
    }
    if not lines <= inside:
        # What runs when the module is imported concerns all who use it, and who asks
        # for a constant or a signature runs no line of it.
        files = {t.split("::")[0] for t in set().union(*of_line.values())}
        tests = {t for t in seconds if t.split("::")[0] in files}
    elif of_line:
        tests = set().union(*(of_line.get(line, ()) for line in lines))
        # The other backend's is skipped at once.
        unseen = {t for t, s in seconds.items() if kind(t) == UNSEEN and s > 1}
        tests = tests or unseen
    else:
        tests = set()
    spent = collections.Counter()
    order = {}
    for test in sorted(tests & set(seconds), key=seconds.get):
        spent[kind(test)] += seconds[test]
        order[test] = spent[kind(test)] / (1 + kills[kind(test)])
    return sorted(order, key=order.get)


def kind(test):
    return test.split("[")[0]


def limited(tests, seconds, limit):
    """As many of the tests as take so long together, and how long that is."""
    chosen, total = {}, 0
    for test in tests:
        if chosen and total + seconds[test] > limit:
            continue
        total += seconds[test]
        chosen[test] = len(chosen)
    return chosen, total


def in_child(function, seconds):
    """What the function returns, in a fork, which may take twenty times as long."""
    with tempfile.TemporaryFile("w+") as verdict:
        pid = os.fork()
        if not pid:
            os.setsid()
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in 0, 1, 2:
                os.dup2(nowhere, stream)
            verdict.write(function())
            verdict.flush()
            os._exit(0)
        limit = time.monotonic() + 120 + 20 * seconds
        while not os.waitpid(pid, os.WNOHANG)[0]:
            if time.monotonic() > limit:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return "killed: it hangs"
            time.sleep(0.01)
        verdict.seek(0)
        # Nothing is written where the process itself died of it.
        return verdict.read() or "killed: the process died"


def run_anew(chosen):
    import keras
    import pytest

    keras.saving.get_custom_objects().clear()
    for module in list(sys.modules):
        if module.split(".")[0] in ("keras_nalu", "conftest") or "test_" in module[:12]:
            del sys.modules[module]
    failed = []

    class Chosen:
        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items):
            items[:] = [item for item in items if item.nodeid in chosen]
            items.sort(key=lambda item: chosen[item.nodeid])

        def pytest_runtest_logreport(self, report):
            if report.failed:
                failed.append(report.nodeid)

    files = sorted({test.split("::")[0] for test in chosen})
    code = pytest.main([*OPTIONS, "-x", *files], plugins=[Chosen()])
    if code:
        return f"killed anew: {failed[0] if failed else 'it cannot be imported'}"
    return f"survived {len(chosen)} tests"


def ask():
    for backend in BACKENDS:
        with socket.socket(socket.AF_UNIX) as server:
            # Without a server it is neither killed nor alive.
            while server.connect_ex(backend):
                time.sleep(1)
            verdict = server.makefile().read()
        print(backend, verdict)
        if not verdict.startswith("survived"):
            sys.exit(1)


def report():
    from cosmic_ray.work_db import use_db
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome

    counts = collections.defaultdict(collections.Counter)
    survivors = []
    listed = (ROOT / "tests" / "mutants.md").read_text().splitlines()
    with use_db(SESSION) as db:
        for job, result in db.completed_work_items:
            if result.worker_outcome != WorkerOutcome.NORMAL:
                continue
            mutation = job.mutations[0]
            name = str(mutation.module_path)
            survived = result.test_outcome == TestOutcome.SURVIVED
            counts[name]["survived" if survived else "killed"] += 1
            if survived:
                diff = [d for d in result.diff.split("\n") if d[:1] in "+-"][3:]
                new = [d[1:].strip() for d in diff if d[0] == "+"]
                of_file = f"| {name.removeprefix('keras_nalu/')} |"
                rows = [row for row in listed if row.startswith(of_file)]
                if not any(line and line in row for line in new for row in rows):
                    survivors.append((name, mutation.start_pos[0], *diff))
    for name, line, *diff in sorted(survivors):
        print(f"\n{name}:{line}", *diff, sep="\n")
    counts["all"] = sum(counts.values(), collections.Counter())
    print(f"\n{'':40}mutants survived killed")
    for name, count in counts.items():
        share = count["killed"] / count.total()
        print(f"{name:40}{count.total():7}{count['survived']:9}{share:7.1%}")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:] or ["main"]
    globals()[command](*arguments)
