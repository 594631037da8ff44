"""One host of a test: a `Networks` in a process of its own, told what to do in JSON lines on stdin.

Run in the host's network namespace: host.py DATA RUN UNDERLAY_ADDRESS
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from shoal.api.errors import ShoalError
from shoal.api.messages import NetworkEndpoint, NetworkInfo, NetworkService
from shoal.api.sandbox import EndpointRequest, SandboxRequest
from shoal.overlay.networks import Networks
from shoal.overlay.records import LocalNetworkSpec

TYPES = {
    "networks": tuple[NetworkInfo, ...], "endpoints": tuple[NetworkEndpoint, ...],
    "services": tuple[NetworkService, ...], "request": SandboxRequest, "endpoint": EndpointRequest,
    "spec": LocalNetworkSpec,
}


async def main(data: str, run: str, address: str) -> None:
    resolv = Path(run).parent / "resolv.conf"
    networks = Networks(Path(data), Path(run), resolv_conf=resolv)
    networks.set_underlay(address)
    await networks.start()
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print('"ready"', flush=True)
    async def run(command: dict[str, Any]) -> Any:
        arguments = {key: msgspec.convert(value, TYPES[key]) if key in TYPES else value
                     for key, value in command.get("args", {}).items()}
        answer = getattr(networks, command["do"])(**arguments)
        return await answer if asyncio.iscoroutine(answer) else answer

    while line := await reader.readline():
        command = msgspec.json.decode(line)
        try:
            if command["do"] == "together":
                answer = await asyncio.gather(*(run(one) for one in command["args"]["commands"]))
            else:
                answer = await run(command)
            print(msgspec.json.encode({"ok": answer}).decode(), flush=True)
        except ShoalError as error:
            print(msgspec.json.encode({"error": str(error), "status": error.status}).decode(), flush=True)
    await networks.stop()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
