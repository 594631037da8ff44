"""What one shoald is started with: defaults, the configuration file, then the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.engine.images.distribution.endpoints import RegistryRules, check_rules

DATA_ROOT = Path("/var/lib/shoal")
RUN_ROOT = Path("/run/shoal")
CONFIG_FILE = Path("/etc/shoal/shoald.json")
TLS_FOLDER = Path("/etc/shoal/tls")
PLUGIN_FOLDERS = ("/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins")
LOG_LEVELS = ("debug", "info", "warning", "error")
CGROUP_DRIVERS = ("auto", "systemd", "cgroupfs")


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """The keys of the configuration file are these names with dashes; the command line wins over it."""

    data_root: str = str(DATA_ROOT)
    run_root: str = str(RUN_ROOT)
    hosts: tuple[str, ...] = ()  # unix:///PATH, tcp://ADDRESS:PORT; none: shoal.sock in the run root
    tls: bool | None = None  # TCP with TLS; false: without, also where everybody can reach it
    tlsverify: bool | None = None  # with TLS, and only for clients whose certificate is of tlscacert
    tlscacert: str = str(TLS_FOLDER / "ca.pem")
    tlscert: str = str(TLS_FOLDER / "cert.pem")
    tlskey: str = str(TLS_FOLDER / "key.pem")
    cgroup_parent: str = ""  # a slice (x.slice) with systemd's driver, else a path
    cgroup_driver: str = "auto"  # auto, systemd, cgroupfs
    labels: tuple[str, ...] = ()  # key=value, the engine's labels
    log_level: str = "info"
    default_runtime: str = ""  # empty: the first of runc and crun that works
    exec_spawner: bool = True  # execs without the runtime, where that can be done; false: always by the runtime
    storage_driver: str = ""  # overlay2, vfs; empty: what the data is in, else overlay2 where it works, else vfs
    plugin_folders: tuple[str, ...] = PLUGIN_FOLDERS
    plugin_timeout_s: float = 60.0  # of one call of a plugin; to make and to mount it has twice as long
    insecure_registries: tuple[str, ...] = ()  # HOST[:PORT] or a network: without TLS, or with any certificate
    registry_mirrors: tuple[str, ...] = ()  # URLs, asked before Docker Hub
    max_concurrent_downloads: int = 3  # layers at a time, of all pulls
    max_concurrent_uploads: int = 5  # and of all pushes
    build_cache_bytes: int = 20 << 30  # what builds keep for later ones; the least recently used goes. 0: no bound

    @property
    def serves_tls(self) -> bool:
        """Whether TCP is served with TLS: `tlsverify` has it follow, as dockerd does."""
        return bool(self.tls or self.tlsverify)

    def __post_init__(self) -> None:
        if not 0 < self.plugin_timeout_s <= 3600:
            raise InvalidArgument(f"a plugin's calls cannot have {self.plugin_timeout_s:g} s: give up to an hour")

        for way, most in (("downloads", self.max_concurrent_downloads), ("uploads", self.max_concurrent_uploads)):
            if not 1 <= most <= 100:
                raise InvalidArgument(f"max-concurrent-{way} cannot be {most}: give 1 to 100")
        if self.build_cache_bytes < 0:
            raise InvalidArgument(f"build-cache-bytes cannot be {self.build_cache_bytes}: give 0 for no bound")
        check_rules(self.registries)

    @property
    def registries(self) -> RegistryRules:
        return RegistryRules(insecure=self.insecure_registries, mirrors=self.registry_mirrors)

    @property
    def engine_labels(self) -> dict[str, str]:
        """Raises InvalidArgument for a label that is not key=value."""
        if wrong := [label for label in self.labels if not label.partition("=")[0] or "=" not in label]:
            raise InvalidArgument(f"cannot use the engine label {wrong[0]!r}: it has to be key=value")
        return dict(label.partition("=")[::2] for label in self.labels)


def from_arguments(arguments: list[str] | None = None) -> Settings:
    """The settings of a command line. Ends the process with usage where it is malformed.

    Raises InvalidArgument for a configuration file that cannot be used.
    """
    parser = argparse.ArgumentParser(prog="shoald", description="Run this host as part of Docker-compatible Shoal.")
    add = parser.add_argument
    add("--config", type=Path, help=f"configuration file (default {CONFIG_FILE}, where it exists)")
    add("--data-root", help=f"folder of what is kept (default {DATA_ROOT})")
    add("--run-root", help=f"folder of what ends with the boot (default {RUN_ROOT})")
    add("-H", "--host", dest="hosts", action="append",
        help="where to serve, unix:///PATH or tcp://ADDRESS:PORT (repeatable)")
    for name, meaning in (("tls", "serve TCP with TLS"), ("tlsverify", "and only for clients with a certificate")):
        add(f"--{name}", nargs="?", const=True, type=_truth, metavar="true|false", help=meaning)
    for name, meaning in (("tlscacert", "whose certificates clients need"), ("tlscert", "certificate of this host"),
                          ("tlskey", "its key")):
        add(f"--{name}", metavar="FILE", help=f"{meaning} (default in {TLS_FOLDER})")
    add("--cgroup-parent", help="cgroup below which containers are made (a slice with the driver systemd)")
    add("--cgroup-driver", choices=CGROUP_DRIVERS,
        help="who makes containers' cgroups (default auto: systemd where it is PID 1 and has cgroup v2)")
    add("--label", dest="labels", action="append", help="label of this engine, key=value (repeatable)")
    add("--log-level", choices=LOG_LEVELS)
    add("--default-runtime", help="OCI runtime (default: the first of runc and crun that works)")
    add("--exec-spawner", nargs="?", const=True, type=_truth, metavar="true|false",
        help="start execs without the runtime, where that can be done (default true)")
    add("--storage-driver", help="overlay2 or vfs (default: overlay2 where it works)")
    add("--plugin-folder", dest="plugin_folders", action="append",
        help=f"where volume plugins are looked for (repeatable; default {', '.join(PLUGIN_FOLDERS)})")
    add("--plugin-timeout-s", type=float, help="deadline of one call of a plugin (default 60)")
    add("--insecure-registry", dest="insecure_registries", action="append",
        help="registry spoken to without TLS or with any certificate: HOST[:PORT] or a network (repeatable)")
    add("--registry-mirror", dest="registry_mirrors", action="append",
        help="URL of a mirror that is asked before Docker Hub (repeatable)")
    add("--max-concurrent-downloads", type=int, help="layers at a time, of all pulls (default 3)")
    add("--max-concurrent-uploads", type=int, help="and of all pushes (default 5)")
    add("--build-cache-bytes", type=int, help="what builds keep for later ones, 0 for all (default 20 GiB)")
    given = {key: value for key, value in vars(parser.parse_args(arguments)).items() if value is not None}
    config = given.pop("config", None)
    base = read_config(config or CONFIG_FILE, must_exist=config is not None)
    changes = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return msgspec.structs.replace(base, **changes)


def _truth(word: str) -> bool:
    if word.lower() in ("1", "t", "true"):
        return True
    if word.lower() in ("0", "f", "false"):
        return False
    raise argparse.ArgumentTypeError(f"{word!r} is neither true nor false")


def read_config(path: Path, *, must_exist: bool) -> Settings:
    """The settings of a file, or the defaults. Raises InvalidArgument naming the file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Settings)
    except FileNotFoundError as error:
        if must_exist:
            raise InvalidArgument(f"configuration file {path} does not exist") from error
        return Settings()
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidArgument(f"configuration file {path}: {error}") from error
