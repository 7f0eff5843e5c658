"""Python without the names that only POSIX has, as on Windows.

Keras, its backend and the standard library are imported before, as they use the names
of the machine that they run on.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: That Windows has none of, by the documentation of Python.
MODULES = "fcntl grp posix pty pwd resource syslog termios tty".split()
OS = (
    "sysconf sysconf_names confstr fork forkpty register_at_fork posix_spawn uname "
    "getuid geteuid getgid getegid getgroups setuid setgid getpgid getpgrp setpgid "
    "getsid setsid killpg nice getpriority setpriority getloadavg chown lchown chroot "
    "fchmod fchown mkfifo mknod statvfs fstatvfs sync wait wait3 wait4 waitid pipe2 "
    "sched_getaffinity sched_setaffinity sched_yield openpty ttyname ctermid "
    "posix_fadvise posix_fallocate pread pwrite readv writev sendfile getxattr "
    "setxattr memfd_create pidfd_open eventfd copy_file_range"
).split()
SIGNALS = (
    "SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGCHLD SIGQUIT SIGTSTP SIGPIPE SIGALRM alarm "
    "setitimer pause sigwait pthread_kill pthread_sigmask siginterrupt"
).split()

PREAMBLE = f"""
import keras, tensorboard, tensorflow, rich.progress, h5py
import os, signal, sys, tempfile, subprocess, multiprocessing.pool
import asyncio, concurrent.futures, logging.handlers, platform, shutil, zipfile
platform.uname()
for name in {MODULES}:
    sys.modules[name] = None
for module, names in ((os, {OS}), (signal, {SIGNALS})):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
"""


def run(code: str, cwd: Path) -> subprocess.CompletedProcess:
    """Runs a program in a new process, and returns the completed process."""
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
