"""A machine for tests: namespaces of its own with a process 1, one shoald on it, and clients of its API."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from shoal.lab.host import answers
from shoal.lab.image import archive
from shoal.lab.processes import command_line, entering

DEADLINE_S = 30.0
CGROUPS = Path("/sys/fs/cgroup")


def until(look: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """What `look` gives, once that is something."""
    end = time.monotonic() + deadline_s
    while True:
        if found := look():
            return found
        assert time.monotonic() < end, f"not in {deadline_s:.0f} s: {what}"
        time.sleep(0.02)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a command that was started on a machine: `nsenter` has it as its child, and ends with it.

    (It has to: a child that it left unreaped would be this process's, where an engine has made it a subreaper,
    and would keep its machine on.)
    """
    children = []
    with suppress(OSError):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    if not children:
        process.kill()
    process.wait(DEADLINE_S)


class Machine:
    """Everything on it ends with its process 1; `off` leaves nothing behind."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "run" / "shoal.sock"
        self.cgroup = f"shoal-test-{os.getpid()}-{root.name}"
        self.shoald: subprocess.Popen[bytes] | None = None
        self._holder: subprocess.Popen[bytes] | None = None
        self.init_pid = 0
        self.tree: Path | None = None  # of another version of shoald than this one

    # --- power ---

    def __enter__(self) -> Self:
        """On, with shoald and the image busybox."""
        try:
            self.on()
            self.start()
            self.load_image()
        except BaseException:
            self.off()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.off()

    def on(self) -> None:
        """Namespaces, loopback up, a resolver that answers nothing."""
        resolv = self.root / "resolv.conf"
        resolv.write_text("# no resolver above this machine\n")
        setup = f"mount --bind {resolv} /etc/resolv.conf && ip link set lo up && exec catatonit -- sleep infinity"
        with (self.root / "init.log").open("wb") as log:
            self._holder = subprocess.Popen(
                ["unshare", "--mount", "--uts", "--pid", "--net", "--fork", "--kill-child", "--propagation=private",
                 "--mount-proc", "sh", "-c", setup],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/")
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        self.init_pid = int(until(lambda: children.read_text().strip(), "process 1"))
        until(lambda: command_line(self.init_pid)[:1] == ["catatonit"], "process 1 has set up the machine")

    def off(self) -> None:
        if self._holder is not None:
            with suppress(ProcessLookupError):
                os.kill(self.init_pid, signal.SIGKILL)
            self._holder.wait(DEADLINE_S)
        if self.shoald is not None:
            self.shoald.wait(DEADLINE_S)
        for controller in [CGROUPS, *CGROUPS.iterdir()]:
            _remove_cgroup(controller / self.cgroup)
        shutil.rmtree(self.root, ignore_errors=True)

    def start(self) -> float:
        """Start shoald. Returns the seconds until it answered."""
        began = time.monotonic()
        with (self.root / "shoald.log").open("ab") as log:
            self.shoald = subprocess.Popen(
                [*entering(self.init_pid), sys.executable, "-m", "shoal.daemon", "--data-root", str(self.root / "data"),
                 "--run-root", str(self.root / "run"), "--cgroup-parent", f"/{self.cgroup}",
                 "--config", str(self._config())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
                env={**os.environ, **({"PYTHONPATH": str(self.tree)} if self.tree else {})})
        until(lambda: self._alive() and answers(self.socket), "shoald answers")
        return time.monotonic() - began

    def _config(self) -> Path:
        path = self.root / "shoald.json"
        path.write_text("{}")
        return path

    def _alive(self) -> bool:
        assert self.shoald is not None
        assert self.shoald.poll() is None, f"shoald ended: {self.log()}"
        return True

    def kill(self) -> None:
        """SIGKILL to shoald alone."""
        assert self.shoald is not None
        self.daemon_signal(signal.SIGKILL)
        self.shoald.wait(DEADLINE_S)

    def daemon_signal(self, number: int) -> None:
        os.kill(self.daemon_pid(), number)

    def daemon_pid(self) -> int:
        """As this test sees it: `nsenter --pid` has it as a child."""
        assert self.shoald is not None
        children = Path(f"/proc/{self.shoald.pid}/task/{self.shoald.pid}/children").read_text().split()
        return int(children[0]) if children else self.shoald.pid

    def log(self) -> str:
        return (self.root / "shoald.log").read_text(errors="replace")[-4000:]

    def inside(self, *command: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine."""
        return subprocess.run([*entering(self.init_pid), *command], text=True, capture_output=True,
                              timeout=DEADLINE_S, check=False, **more)

    @contextmanager
    def serving(self, folder: Path, port: int) -> Iterator[str]:
        """A web server on its loopback with the files of a folder; where."""
        server = subprocess.Popen([*entering(self.init_pid), sys.executable, "-m", "http.server", str(port), "--bind",
                                   "127.0.0.1", "--directory", str(folder)], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        where = f"http://127.0.0.1:{port}/"
        look = f"import urllib.request; urllib.request.urlopen({where!r})"
        try:
            until(lambda: self.inside(sys.executable, "-c", look).returncode == 0, "the files are served")
            yield where
        finally:
            end(server)

    # --- clients ---

    def environment(self) -> dict[str, str]:
        known = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
        return {**known, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.root / "config")}

    def docker_run(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """The docker command, to its end."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(["docker", *words], env=self.environment(), text=True, capture_output=True,
                              timeout=DEADLINE_S, check=False, **given)

    def docker(self, *words: str, stdin: str | None = None, code: int = 0) -> str:
        """What the docker command says: on stderr where it is meant to end with another code than 0."""
        done = self.docker_run(*words, stdin=stdin)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr, self.log())
        return (done.stderr if code else done.stdout).strip()

    def docker_start(self, *words: str) -> subprocess.Popen[str]:
        """The docker command, going on. Its stdin is a pipe."""
        return subprocess.Popen(["docker", *words], env=self.environment(), text=True, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def inspect(self, what: str) -> Any:
        return json.loads(self.docker("inspect", what))[0]

    def call(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None) -> tuple[int, Any]:
        """A request without any client of Docker's. Returns the status, and the JSON or text of the answer."""
        connection = http.client.HTTPConnection("localhost", timeout=DEADLINE_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(DEADLINE_S)
        connection.sock.connect(str(self.socket))
        try:
            data = raw if raw is not None else None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"} if data is not None else {})
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, json.loads(text) if answer.headers.get_content_type() == "application/json" else text
        finally:
            connection.close()

    def load_image(self) -> None:
        path = self.root / "busybox.tar"
        path.write_bytes(archive()[0])
        self.docker("load", "--input", str(path))


def _remove_cgroup(path: Path) -> None:
    for folder, _, _ in os.walk(path, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()
