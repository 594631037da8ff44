"""Machines in QEMU, emulated: no KVM, no tap device. Each has a wire to the others and a shell by ssh over loopback.

Nothing outlives the process that made them: QEMU and ssh die with it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shoal.cli.client import Client
from tests.vm.hub import Hub
from tests.vm.image import Image, run

SUBNET = "10.77.0"
SOCKET = "/run/shoal/shoal.sock"
INITS = {"bare": "/usr/local/sbin/bare-init", "systemd": "/sbin/init"}
MEMORY_MIB = 1024
BOOT_TIMEOUT_S = 300.0
"""Far more than it takes, before anything is known of how slow the machines are."""

TIED = ("setpriv", "--pdeathsig", "KILL", "--")
"""What runs behind these words dies with the thread that started it: start it in the main thread."""

KERNEL_WORDS = ("console=ttyS0 quiet root=/dev/vda rw net.ifnames=0 panic=1 mitigations=off audit=0 nokaslr "
                "clocksource=hpet tsc=unstable no_timer_check systemd.show_status=no")
"""The TSC is measured at boot, and wrongly on a busy host: clocks ran five times too fast. QEMU's HPET does not."""


class MachineError(Exception):
    """A machine did not do what it was told."""


def new_disk(backing: Path, disk: Path) -> None:
    """A disk that begins with what another has, and writes to itself."""
    kind = "raw" if backing.suffix == ".ext4" else "qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", kind, disk])


class Machine:
    """One machine, on or off. Its disk outlives its power."""

    def __init__(self, image: Image, folder: Path, number: int, hub: Hub, backing: Path) -> None:
        self.number = number
        self.name = f"vm{number}"
        self.address = f"{SUBNET}.{10 + number}"
        self.disk = folder / f"{self.name}.qcow2"
        self.socket = folder / f"{self.name}.sock"
        self._console = folder / f"{self.name}.console"
        self._shell = folder / f"{self.name}.shell"
        self._image, self._hub = image, hub
        self._wire = hub.port(number)
        self._port = 0
        self._qemu: subprocess.Popen[bytes] | None = None
        self._ssh: subprocess.Popen[bytes] | None = None
        new_disk(backing, self.disk)

    # --- power ---

    def power_on(self, init: str) -> None:
        """Begin to boot; see `wait_until_up`. Only in the main thread."""
        self._hub.heal(self.number)
        self._port = _free_port()
        mac = f"52:54:00:00:{{:02x}}:{self.number:02x}"
        words = f"{KERNEL_WORDS} lab.name={self.name} lab.ip={self.address}/24 init={INITS[init]}"
        with self._console.open("ab") as errors:
            self._qemu = subprocess.Popen(
                [*TIED, "qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max", "-M", "q35",
                 "-smp", "1", "-m", str(MEMORY_MIB), "-nodefaults", "-display", "none", "-no-reboot",
                 "-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd), "-append", words,
                 "-drive", f"if=none,id=disk,file={self.disk},format=qcow2,cache=unsafe",
                 "-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci",
                 "-chardev", f"file,id=console,path={self._console},append=on", "-serial", "chardev:console",
                 "-netdev", f"user,id=shell,restrict=on,hostfwd=tcp:127.0.0.1:{self._port}-10.0.2.15:22",
                 "-device", f"virtio-net-pci,netdev=shell,romfile=,mac={mac.format(1)}",
                 "-netdev", self._wire, "-device", f"virtio-net-pci,netdev=wire,romfile=,mac={mac.format(2)}"],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)

    def wait_until_up(self) -> None:
        """Until it offers a shell. Raises MachineError with the end of its console."""
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while not self._greets():
            assert self._qemu is not None
            if self._qemu.poll() is not None or time.monotonic() > deadline:
                raise MachineError(f"{self.name} did not come up; its console ends: {self.console()}")
            time.sleep(0.2)

    def open_shell(self) -> None:
        """Begin the connection that commands and the API go through. Only in the main thread."""
        self._shell.unlink(missing_ok=True)
        self._ssh = subprocess.Popen(
            [*TIED, *self._words(), "-M", "-N", "-o", "StreamLocalBindUnlink=yes", "-o", "ServerAliveInterval=60",
             "-L", f"{self.socket}:{SOCKET}", "root@127.0.0.1"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while not self._shell.exists():
            if self._ssh.poll() is not None or time.monotonic() > deadline:
                raise MachineError(f"{self.name} gives no shell; its console ends: {self.console()}")
            time.sleep(0.1)

    def power_off(self) -> None:
        """The cable first, so that no peer sees a connection close; then the power. What was not synced is lost."""
        self._hub.cut(self.number)
        self._end(kill=True)

    def wait_until_off(self, timeout_s: float) -> None:
        """Until it has shut itself down. Raises MachineError where it has not in time."""
        assert self._qemu is not None
        try:
            self._qemu.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise MachineError(f"{self.name} did not shut down in {timeout_s:.0f} s; its console ends: "
                               f"{self.console()}") from None
        self._end(kill=False)

    def _end(self, *, kill: bool) -> None:
        for process in (self._qemu, self._ssh):
            if process is not None:
                if kill or process is self._ssh:
                    process.kill()
                process.wait()
        self._qemu = self._ssh = None

    # --- use ---

    def run(self, command: str, *, check: bool = True, stdin: Path | None = None, timeout_s: float = 300) -> str:
        """What a shell command prints. Raises MachineError where it fails."""
        words = [*self._words(), "-T", "root@127.0.0.1", command]
        with (stdin or Path(os.devnull)).open("rb") as given:
            done = subprocess.run(words, stdin=given, capture_output=True, text=True, errors="replace", check=False,
                                  timeout=timeout_s)
        if check and done.returncode:
            raise MachineError(f"{self.name}: {command!r} failed ({done.returncode}): {done.stdout} {done.stderr}")
        return done.stdout.strip()

    def put(self, file: Path, target: str) -> None:
        self.run(f"cat > {target}", stdin=file)

    def client(self) -> Client:
        return Client(f"unix://{self.socket}")

    def console(self) -> str:
        """The end of what the kernel and QEMU said."""
        return self._console.read_text(errors="replace")[-3000:] if self._console.exists() else ""

    def _words(self) -> list[str]:
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes",
                   f"ConnectTimeout={BOOT_TIMEOUT_S:.0f}", "IPQoS=none", "Compression=no")
        return ["ssh", "-F", "none", "-i", str(self._image.key), "-S", str(self._shell), "-p", str(self._port),
                *(word for option in options for word in ("-o", option))]

    def _greets(self) -> bool:
        """Whether its ssh server says its name. The port itself is QEMU's, open from the start."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as probe:
                return probe.recv(4) == b"SSH-"
        except OSError:
            return False


class Machines:
    """Machines on one wire. `with` powers off all of them at the end."""

    def __init__(self, image: Image, folder: Path, count: int, backing: Path) -> None:
        self._hub = Hub(folder)
        self.all = [Machine(image, folder, number, self._hub, backing) for number in range(1, count + 1)]

    def __enter__(self) -> Machines:
        self._hub.start()
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.all:
            machine.power_off()
        self._hub.close()

    def named(self, name: str) -> Machine:
        return next(machine for machine in self.all if machine.name == name)

    def boot(self, init: str, machines: Sequence[Machine] | None = None) -> None:
        """Power on, all at once, until each has a shell."""
        chosen = self.all if machines is None else machines
        for machine in chosen:
            machine.power_on(init)
        each(chosen, Machine.wait_until_up)
        for machine in chosen:
            machine.open_shell()

    def cut(self, machine: Machine) -> None:
        self._hub.cut(machine.number)

    def heal(self, machine: Machine) -> None:
        self._hub.heal(machine.number)


def each(machines: Sequence[Machine], work: Callable[[Machine], Any]) -> list[Any]:
    """Do something on all of them at once."""
    with ThreadPoolExecutor(len(machines)) as pool:
        return list(pool.map(work, machines))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- how slow they are ---

MOST_SLOW = 60.0
"""What is slower than this stands in line for a processor, and will not always."""

_LOOP = """
import time
def loop():
    begin = time.perf_counter()
    total = 0
    for number in range(200000):
        total += number * number
    return time.perf_counter() - begin
print(min(loop() for _ in range(3)))
"""


def slowness(machines: Sequence[Machine]) -> float:
    """How many times slower than this host the slowest of them is while all are busy: 1 to `MOST_SLOW`."""
    here = float(run(["python3", "-I", "-S", "-c", _LOOP]))
    there = each(machines, lambda machine: float(machine.run(f"python3 -I -S -c '{_LOOP}'")))
    return min(max(1.0, max(there) / here), MOST_SLOW)
