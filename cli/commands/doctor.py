"""`shoal doctor`: look at this host, and say what to do."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from shoal.cli.client import DEFAULT_HOST, Client

if TYPE_CHECKING:
    from shoal.cli.doctor.findings import Finding

CONFIG_FILE = Path("/etc/shoal/shoald.json")
DATA_ROOT = "/var/lib/shoal"
INDENT = 30
MAX_WIDTH = 120
COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), help="Data root of the daemon (default: as configured).")
@click.option("--json", "as_json", is_flag=True, help="Every finding, for programs.")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and problems.")
@click.pass_obj
def doctor(client: Client, data_root: Path | None, as_json: bool, quiet: bool) -> None:
    """Check what Shoal needs of this host, and say what to do.

    Exit code 1 where there is a problem. Run it as root: then links, rules, an
    overlay and the OCI runtimes are tried, in namespaces that end with the try.
    """
    from shoal.cli.doctor.checks import examine
    from shoal.cli.doctor.findings import Level, summary
    from shoal.cli.doctor.gather import gather, machine

    facts = gather(data_root or _configured_data_root(), _local(client))
    findings = list(examine(facts))
    shown = [finding for finding in findings if not quiet or finding.level is not Level.OK]
    if as_json:
        click.echo(json.dumps({"host": machine(), "findings": msgspec.to_builtins(shown)}, indent=2))
    else:
        width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
        for finding in shown:
            click.echo(_drawn(finding, width))
        click.echo(summary(findings))
    sys.exit(1 if any(finding.level is Level.PROBLEM for finding in findings) else 0)


def _drawn(finding: Finding, width: int) -> str:
    """A row of three columns: level, check, what was found; below it what that means and what to do."""
    level = click.style(f"{finding.level.value:9}", fg=COLOURS[finding.level.value])
    below = [f"→ {text}" for text in (finding.means, finding.remedy) if text]
    indent = " " * INDENT
    lines = [line for text in (finding.found, *below)
             for line in textwrap.wrap(text, max(width - INDENT, 20), break_on_hyphens=False)]
    return f"{level}{finding.check:{INDENT - 9}}" + f"\n{indent}".join(lines)


def _configured_data_root() -> Path:
    """As the daemon would take it. A file that cannot be read is the daemon's to complain of."""
    try:
        configured = json.loads(CONFIG_FILE.read_bytes())
    except (OSError, ValueError):
        configured = {}
    found = configured.get("data-root") if isinstance(configured, dict) else None
    return Path(found if isinstance(found, str) else DATA_ROOT)


def _local(client: Client) -> Client:
    """The daemon of this host: where the client was pointed at by $DOCKER_HOST, that may be another's."""
    return client if client.host.startswith("unix://") or os.environ.get("SHOAL_HOST") else Client(DEFAULT_HOST)
