"""The spawner's process: takes orders from its parent, and makes a copy of itself for each.

The copy is a child of the parent, so that the parent waits for it as for any other. Nothing is read from a disk
once it serves: a copy stands in a container before it is the program. Ends with its parent.

    parent → spawner   START with descriptors: the order, a socket for the answers, a pidfd of the container's
                       init, stdin, stdout, stderr (no such three where a terminal is made)
    spawner → parent   on that socket: STARTED and the pid; or FAILED and why
    copy → parent      on that socket: TERMINAL with a descriptor; FAILED and why; its end once the program runs
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import fcntl
import marshal
import os
import sys
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_CTRUNC, MSG_NOSIGNAL, socket

from shoal.engine.containers.spawner import kernel
from shoal.engine.containers.spawner.entering import enter, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shoal.engine.containers.spawner.order import Order

CONTROL, OWN_PIDS = 3, 4
"""Descriptors. What is received has higher numbers."""

_MAX_DESCRIPTORS = 6
_SIGNALS = 65


def main(control_end: int) -> None:
    """`control_end`: the descriptor of the socket to the parent."""
    kernel.set_dumpable(False)
    _check_sealed()
    os.dup2(control_end, CONTROL, False)
    for number in range(1, _SIGNALS):
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    kernel.close_from(OWN_PIDS)
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    assert own == OWN_PIDS
    os.chdir("/")
    os.environ.clear()
    sys.meta_path.clear()  # from now on nothing is imported
    control = socket(fileno=CONTROL)
    control.send(b"R")
    os.dup2(0, 2)  # where it complained as long as it could not answer
    _serve(control)


def _check_sealed() -> None:
    """A container may execute /proc/self/exe as long as that is this program, and write to it then (CVE-2019-5736)."""
    descriptor = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) == kernel.SEALS
    except OSError:
        sealed = False
    finally:
        os.close(descriptor)
    if not sealed:
        raise SystemExit("this interpreter is no sealed copy")


def _serve(control: socket) -> None:
    room = CMSG_SPACE(4 * _MAX_DESCRIPTORS)
    while True:
        message, ancillary, flags, _ = control.recvmsg(16, room, MSG_CMSG_CLOEXEC)
        if not message:
            return
        descriptors = [
            int.from_bytes(data[at : at + 4], sys.byteorder)
            for _, _, data in ancillary for at in range(0, len(data) // 4 * 4, 4)
        ]
        try:
            if len(descriptors) in (3, _MAX_DESCRIPTORS) and not flags & MSG_CTRUNC:
                _obey(*descriptors)
                kernel.setns(OWN_PIDS, kernel.NEWPID)  # holds no container's namespace
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _obey(payload: int, report_end: int, init: int, *stdio: int) -> None:
    report = socket(fileno=report_end)
    order = marshal.loads(os.pread(payload, os.fstat(payload).st_size, 0))  # noqa: S302 (of the parent, who is us)
    try:
        kernel.setns(init, kernel.NEWPID)
        pid = _copy(order, [*(stdio or (0, 1, 2)), report_end, init])
        _say(report, b"P" + str(pid).encode())
    except OSError as error:
        gone = error.errno == 3  # ESRCH
        reason = f"unable to start container process: cannot make a process: {words(error)}"
        _say(report, b"E" + (b"cannot exec in a stopped container" if gone else reason.encode()))
    finally:
        report.detach()


def _copy(order: Order, ends: list[int]) -> int:
    """Its pid. It stands in the PID namespace that was joined, in the first of the cgroups of v2 that takes it."""
    groups = order["unified"]
    for number, group in enumerate(groups or [""], start=1):
        folder = os.open(group, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if group else -1
        try:
            pid = kernel.clone_sibling(folder)
            if pid == 0:
                enter(order, ends)  # never returns
            return pid
        except OSError:  # a group with groups below it (EBUSY): the init's own comes next
            if number >= len(groups):
                raise
        finally:
            if folder >= 0:
                os.close(folder)
    raise AssertionError("no cgroup")


def _say(report: socket, message: bytes) -> None:
    try:
        report.send(message, MSG_NOSIGNAL)
    except OSError:
        return  # nobody listens any more
