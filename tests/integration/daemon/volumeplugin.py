"""A volume plugin for tests, a process of its own: volumeplugin.py FOLDER SOCKET. The standard library alone.

A volume is a folder below FOLDER/volumes. FOLDER/calls has one line of JSON for each call.
FOLDER/faults says how to misbehave: {"Mount": "hang"}; also die (in the middle of the call),
refuse, garbage, flood.
"""

from __future__ import annotations

import json
import os
import shutil
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1] if __name__ == "__main__" else ".")
VOLUMES = FOLDER / "volumes"
CREATED = "2026-01-02T03:04:05.678901234Z"
lock = threading.Lock()


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *words: Any) -> None:
        pass

    def do_POST(self) -> None:
        method = self.path.rpartition(".")[2]
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        with lock, (FOLDER / "calls").open("a") as calls:
            calls.write(json.dumps({"call": method, **body}) + "\n")
        fault = json.loads((FOLDER / "faults").read_text() or "{}").get(method) if (FOLDER / "faults").exists() else ""
        if fault == "hang":
            threading.Event().wait()
        elif fault == "die":
            os._exit(1)
        elif fault == "garbage":
            self.answer(b"<html>", 200)
        elif fault == "flood":
            self.answer(b" " * (5 << 20), 200)
        elif fault == "refuse":
            self.answer(json.dumps({"Err": "out of cheese"}).encode(), 500)
        else:
            self.answer(json.dumps(answer(method, body)).encode(), 200)

    def answer(self, content: bytes, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def answer(method: str, body: dict[str, Any]) -> dict[str, Any]:
    name = body.get("Name", "")
    place = VOLUMES / name
    if method == "Activate":
        return {"Implements": ["VolumeDriver"]}
    if method == "Capabilities":
        return {"Capabilities": {"Scope": "global"}}
    if method == "List":
        return {"Volumes": [{"Name": each.name, "Mountpoint": ""} for each in sorted(VOLUMES.iterdir())], "Err": ""}
    if method == "Create":
        if "colour" in (body.get("Opts") or {}):
            return {"Err": "no colours here"}
        place.mkdir(exist_ok=True)
        return {"Err": ""}
    if not place.is_dir():
        return {"Err": f"there is no volume {name}"}
    if method == "Get":
        return {"Volume": {"Name": name, "Mountpoint": str(place), "CreatedAt": CREATED, "Status": {"kept": "here"}}}
    if method in ("Mount", "Path"):
        return {"Mountpoint": str(place)}
    if method == "Remove":
        shutil.rmtree(place)
    return {"Err": ""}


if __name__ == "__main__":
    VOLUMES.mkdir(parents=True, exist_ok=True)
    Path(sys.argv[2]).unlink(missing_ok=True)
    with Server(sys.argv[2], Handler) as server:
        server.serve_forever()
