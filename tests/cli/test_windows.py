"""The command line uses nothing of `os` that only POSIX has."""

import os
import subprocess
import sys

import pytest

CODE = """
import os, sys
# What others do is theirs.
import keras, tensorboard, tensorflow, rich.progress
for name in ("fcntl", "grp", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
POSIX = '''
    chown fchown lchown chroot confstr ctermid fork forkpty fpathconf fstatvfs getegid
    geteuid getgid getgroups getloadavg getpgid getpgrp getpriority getsid getuid
    killpg lockf mkfifo mknod nice openpty pathconf posix_fadvise posix_spawn pread
    pwrite readv register_at_fork sched_getaffinity sched_setaffinity sched_yield
    setsid statvfs sync sysconf tcgetpgrp ttyname uname wait wait3 wait4 writev
'''
for name in POSIX.split():
    if hasattr(os, name):
        delattr(os, name)
from keras_nalu.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--epochs", "1", "--size", "100", "--no-mlp"],
        pytest.param(["benchmark", "single-module", "--list"], marks=pytest.mark.slow),
    ],
    ids=lambda command: command[0],
)
def test_commands_run_without_posix(command, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *command, "--output", tmp_path / "out"],
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
