"""Processes of their own that begin with torch and vcorr imported, which takes an interpreter seconds each time.

They are forked from one process that has imported, and done nothing else: ``python -m tests.forked``, which reads a job
a line as JSON. Not for what hangs on the import itself, or on variables of the environment that are read then.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
LIMIT = 280  # seconds


class Ended(NamedTuple):
    """How a process ended; a code below 0 is the signal that ended it."""

    code: int
    stdout: str
    stderr: str


class Forked:
    """A process that runs as ``python ARGUMENTS``, of which ``-m MODULE ...`` and ``-c CODE ...`` are known."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._said = tempfile.TemporaryDirectory(prefix="forked-")
        self._pid = _server().ask(arguments=arguments, environment=environment, said=self._said.name)

    def wait(self) -> Ended:
        """Ends it after ``LIMIT`` seconds."""
        code = _server().ask(wait=self._pid)
        with self._said as folder:
            return Ended(code, *((Path(folder) / name).read_text() for name in ("stdout", "stderr")))


def run(*arguments: str, **environment: str) -> Ended:
    return Forked(*arguments, **environment).wait()


class _Server:
    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked"], cwd=ROOT, env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        atexit.register(self.close)

    def ask(self, **job: Any) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        with self._process:
            os.killpg(self._process.pid, signal.SIGKILL)


@functools.cache
def _server() -> _Server:
    return _Server()


# --- on the other side ----------------------------------------------------------------------------------------------


def become(arguments: list[str], environment: dict[str, str], said: str) -> None:
    """In a child: run what is asked for, and end."""
    code = 1
    for number, name in enumerate(["stdin", "stdout", "stderr"]):
        file = os.open(os.devnull if name == "stdin" else f"{said}/{name}", os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
    os.environ.update(environment)
    try:
        kind, what, *rest = arguments
        sys.argv = [kind, *rest]
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "-c", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> int:
    end = time.monotonic() + LIMIT
    while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(found[1])


def main() -> None:

    import vcorr.cli
    import vcorr.kernels
    import vcorr.training.loop  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            print(ended(job["wait"]), flush=True)
        elif child := os.fork():
            print(child, flush=True)
        else:
            become(**job)


if __name__ == "__main__":
    main()
