import collections
import os
import signal
import zlib

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest
from hypothesis import HealthCheck, Phase, settings

pytest.register_assert_rewrite("oracles")
from oracles import gradients  # noqa: E402

#: Generated cases of each test: the same few in every run, or many random ones.
settings.register_profile(
    "sample",
    max_examples=4,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "nightly",
    settings.get_profile("sample"),
    max_examples=600,
    derandomize=False,
    database=None,
    print_blob=True,
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
settings.load_profile("sample")


def pytest_configure(config):
    # A shell makes the processes that it starts in the background ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Keras causes it with NumPy 2, in keras/src/backend/tensorflow/core.py.
    config.addinivalue_line(
        "filterwarnings",
        "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning",
    )


def pytest_addoption(parser):
    parser.addoption("--share", metavar="K/N", help="run one of N shares of the slow")


def pytest_collection_modifyitems(config, items):
    left_out = set()
    slow = collections.defaultdict(list)
    for item in items:
        if only := item.get_closest_marker("only"):
            if only.args != (keras.backend.backend(),):
                item.add_marker(pytest.mark.skip(**only.kwargs))
        elif item.get_closest_marker("slow"):
            slow[item.nodeid.partition("[")[0]].append(item)
    k, n = map(int, (config.getoption("share") or "1/1").split("/"))
    for test, cases in slow.items():
        # Every share gets cases of every test. If these are too few, the first shares
        # get one each; a single case goes to the first share or the second.
        shares = min(n, max(2, len(cases)))
        for i, item in enumerate(cases, zlib.crc32(test.encode())):
            if i % shares != k - 1:
                left_out.add(item)
    config.hook.pytest_deselected(items=[*left_out])
    items[:] = [item for item in items if item not in left_out]


def pytest_report_header():
    return f"keras {keras.__version__} on {keras.backend.backend()}"


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def differentiate():
    return gradients.differentiate
