"""The way of one exec's process from the spawner's copy to its program. Never returns to whoever called it.

The order is that of `runc exec` (libcontainer, setns_init_linux.go and init_linux.go, 1.1): first what needs the
host's files, then into the namespaces, the terminal, the filter, the user, the program. From the first moment in
the namespaces on nothing of the host is open but stdio and the socket on which failure is told, and nothing is
imported: what lies in the container is not to be trusted.
"""

from __future__ import annotations

import os
import stat
import sys
from _socket import socket

from shoal.engine.containers.spawner import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shoal.engine.containers.spawner.order import Order

REPORT, INIT = 3, 4
"""The descriptors of the socket on which failure is told (the program's start closes it), and of the init's pidfd."""

MAX_REPORT_BYTES = 32 * 1024
_PTMX = os.makedev(5, 2)
_CAPABILITIES = 64
_EXECUTABLE = 0o111


class Failed(Exception):
    """What the client is told, in runc's words."""


def enter(order: Order, ends: list[int]) -> None:
    """Become the program. `ends`: stdin, stdout, stderr, the report, a pidfd of the container's init; all above 4."""
    try:
        for number, end in enumerate(ends):
            os.dup2(end, number, number < REPORT)
        kernel.close_from(len(ends))
        program = kernel.seccomp_program(order["filter"]) if order["filter"] else None
        _prepare_on_host(order)
        kernel.setns(INIT, kernel.NEWNS | kernel.NEWIPC | kernel.NEWUTS | kernel.NEWNET | kernel.NEWCGROUP)
        os.close(INIT)
        os.setsid()
        os.umask(0o022)
        if order["tty"]:
            _make_terminal(order["console_size"])
        if order["no_new_privileges"]:
            kernel.set_no_new_privileges()
        elif program is not None:
            kernel.load_filter(program)  # without the former it takes capabilities, which go next
        _confine(order)
        path = find_program(order["argv"][0], dict(order["env"]).get(b"PATH", b""))
        if program is not None and order["no_new_privileges"]:
            kernel.load_filter(program)
        _execute(path, order)
    except Failed as failure:
        _tell(str(failure))
    except OSError as error:
        _tell(words(error))
    except BaseException as error:  # the edge of this process
        _tell(f"{type(error).__name__}: {error}")
    finally:
        os._exit(1)  # whatever happens, this copy never goes on as the spawner


def _execute(path: bytes, order: Order) -> None:
    """As runc has it, what the kernel does not take says so itself, and has run."""
    try:
        os.execve(path, order["argv"], dict(order["env"]))  # noqa: S606
    except OSError as error:
        os.write(2, b"exec " + path + f": {words(error)}\n".encode())


def words(error: OSError) -> str:
    """As Go says it."""
    text = os.strerror(error.errno or 0)
    return text[:1].lower() + text[1:]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _tell(reason: str) -> None:
    os.write(REPORT, b"E" + f"unable to start container process: {reason}".encode()[:MAX_REPORT_BYTES])


# --- on the host ---

def _prepare_on_host(order: Order) -> None:
    if order["oom_score_adj"] is not None:
        _write("/proc/self/oom_score_adj", str(order["oom_score_adj"]))
    for path in order["task_files"]:
        try:
            _write(path, "0")  # this one thread of this one process: a move that waits for nobody
        except OSError as error:
            raise Failed(f"error adding pid to cgroups: {path}: {words(error)}") from error
    for number, soft, hard in order["rlimits"]:
        try:
            kernel.limit(number, soft, hard)
        except OSError as error:
            raise Failed(f"error setting rlimits for process: error setting rlimit type {number}: {words(error)}"
                         ) from error
    kernel.join_keyring(order["keyring"])
    if order["apparmor"]:
        _confine_by_apparmor(order["apparmor"])


def _confine_by_apparmor(profile: str) -> None:
    """From the program's start on. The host's /proc is asked: in the container something else may lie over it."""
    own = "/proc/self/attr/apparmor/exec"
    path = own if os.path.exists(own) else "/proc/self/attr/exec"  # noqa: PTH110
    try:
        _write(path, f"exec {profile}")
    except OSError as error:
        raise Failed("unable to apply apparmor profile: apparmor failed to apply profile: "
                     f"write {path}: {words(error)}") from error


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


# --- in the container ---

def _make_terminal(size: tuple[int, int]) -> None:
    """A terminal of the container's own, its end sent to the daemon, its peer as stdio and controlling terminal."""
    terminal = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    found = os.fstat(terminal)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _PTMX:
        raise Failed("the container's /dev/ptmx makes no terminals")
    kernel.unlock_terminal(terminal)
    if all(size):
        kernel.resize_terminal(terminal, *size)
    peer = kernel.open_peer(terminal)
    report = socket(fileno=REPORT)
    report.sendmsg([b"T"], [(1, 1, terminal.to_bytes(4, sys.byteorder))])  # SOL_SOCKET, SCM_RIGHTS
    report.detach()
    for number in range(REPORT):
        os.dup2(peer, number, True)
    kernel.close_from(REPORT + 1)
    kernel.control_terminal(0)


def _confine(order: Order) -> None:
    """The working folder, the user, and no more capabilities than asked."""
    entered = _change_folder(order["cwd"], may_fail=True)
    for number in range(_CAPABILITIES):
        if not order["bounding"] >> number & 1 and not kernel.drop_bounding(number):
            break
    kernel.keep_capabilities(True)
    _own_stdio(order["uid"])
    os.setgroups(order["groups"])
    os.setgid(order["gid"])
    os.setuid(order["uid"])
    kernel.set_dumpable(False)  # the change of user may have set it as fs.suid_dumpable says
    if not entered:
        _change_folder(order["cwd"], may_fail=False)
    kernel.keep_capabilities(False)
    kernel.set_capabilities(order["effective"], order["permitted"])


def _change_folder(path: bytes, *, may_fail: bool) -> bool:
    """False where this user may not, and the next is to try. Never anywhere outside (CVE-2024-21626)."""
    try:
        os.chdir(path)
    except PermissionError as error:
        if may_fail:
            return False
        raise _no_folder(path, error) from error
    except OSError as error:
        raise _no_folder(path, error) from error
    try:
        inside = kernel.working_folder().startswith(b"/")
    except FileNotFoundError:
        inside = False
    if not inside:
        raise Failed("current working directory is outside of container mount namespace root -- possible container "
                     "breakout detected")
    return True


def _no_folder(path: bytes, error: OSError) -> Failed:
    return Failed(f'chdir to cwd ("{_text(path)}") set in config.json failed: {words(error)}')


def _own_stdio(uid: int) -> None:
    """So that the user may open /dev/stdout again. What is not to be owned stays as it is."""
    null = os.stat("/dev/null").st_rdev  # noqa: PTH116
    for number in range(REPORT):
        found = os.fstat(number)
        if found.st_uid != uid and found.st_rdev != null:
            try:
                os.fchown(number, uid, -1)
            except OSError as error:
                if error.errno not in (1, 22, 30):  # EPERM, EINVAL, EROFS
                    raise


def find_program(name: bytes, path: bytes) -> bytes:
    """Where the program is. Raises Failed as Go's exec.LookPath has it."""
    if b"/" in name:
        if (reason := _unfit(name)) is None:
            return name
        raise Failed(f'exec: "{_text(name)}": {reason}')
    for folder in path.split(b":"):
        place = (folder or b".") + b"/" + name
        if folder.startswith(b"/") and _unfit(place) is None:  # Go takes nothing from where the process just is
            return place
    raise Failed(f'exec: "{_text(name)}": executable file not found in $PATH')


def _unfit(path: bytes) -> str | None:
    """Why that cannot be executed, as far as its mode tells."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except OSError as error:
        return f"stat {_text(path)}: {words(error)}"
    if stat.S_ISDIR(mode):
        return "is a directory"
    return None if mode & _EXECUTABLE else "permission denied"
