"""A machine whose shoald looks for volume plugins in a folder of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from shoal.lab.processes import entering
from tests.integration.daemon.host import Machine, end, until


class PluginMachine(Machine):
    timeout_s = 60.0

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.plugins = root / "plugins"
        self.plugins.mkdir()
        self.serving: dict[str, subprocess.Popen[bytes]] = {}

    def _config(self) -> Path:
        path = self.root / "shoald.json"
        path.write_text(json.dumps({"plugin-folders": [str(self.plugins)], "plugin-timeout-s": self.timeout_s}))
        return path

    def plugin_socket(self, name: str) -> Path:
        return self.plugins / f"{name}.sock"

    def plug(self, name: str, *command: str) -> None:
        """Start a plugin; it serves at `plugin_socket(name)`."""
        self.plugin_socket(name).unlink(missing_ok=True)
        with (self.root / f"{name}.log").open("ab") as log:
            self.serving[name] = subprocess.Popen(
                [*entering(self.init_pid), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd="/")
        until(self.plugin_socket(name).exists, f"the plugin serves: {(self.root / f'{name}.log').read_text()}")

    def plugged(self, name: str) -> bool:
        return name in self.serving and self.serving[name].poll() is None

    def unplug(self, name: str) -> None:
        """SIGKILL to the plugin alone."""
        if (process := self.serving.pop(name, None)) is not None:
            end(process)

    def off(self) -> None:
        for name in list(self.serving):
            self.unplug(name)
        super().off()
