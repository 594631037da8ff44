"""The swarm's part, put together for the daemon: the one place that joins engine, networks and swarm.

    attaching, swarm = join_parts(...)   # the engine gets `attaching` for its networks
    app = build_app(..., extra_routes=[lambda app: add_routes(app, swarm)])
    await swarm.start()                  # after the engine has found its containers
    attaching.reconcile()
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shoal.api.errors import ShoalError
from shoal.api.membership import SwarmEvent
from shoal.api.objects import NodeDescription
from shoal.daemon.http.hooks import Hooks
from shoal.daemon.swarm.host import SwarmHost
from shoal.daemon.swarm.images import SwarmImages
from shoal.daemon.swarm.info import SwarmInfo
from shoal.daemon.swarm.networks import SwarmNetworks
from shoal.engine.images.distribution.puller import Puller
from shoal.overlay.networks import Networks
from shoal.worker.attachments import Attaching
from shoal.worker.description import describe
from shoal.worker.engine_executor import ContainerEngine, EngineExecutor


def join_parts(
    *, data_root: Path, run_root: Path, networks: Networks, engine: Callable[[], ContainerEngine],
    labels: dict[str, str], volume_drivers: Callable[[], list[str]], hooks: Hooks,
    publish: Callable[[SwarmEvent], None], puller: Puller,
) -> tuple[Attaching, SwarmHost]:
    """What the engine uses for its networks, and the swarm's part. Fills `hooks` in.

    `engine` and `volume_drivers` are asked when an agent starts: the engine itself needs the first result.
    `publish` is told of changes in the swarm.
    """
    def description() -> NodeDescription:
        return describe(labels, volume_drivers())

    swarm = SwarmHost(
        data_root=data_root, run_root=run_root, networks=networks,
        executor=lambda node_id: EngineExecutor(engine(), node_id, description),
        describe=description, publish=publish, puller=puller)

    def is_local(reference: str) -> bool:
        try:
            networks.network(reference)
        except ShoalError:
            return False
        return True

    info = SwarmInfo(swarm)
    hooks.images = SwarmImages(swarm, puller.images)
    hooks.networks, hooks.swarm_info, hooks.ping_swarm = SwarmNetworks(swarm), info.info, info.ping
    return Attaching(networks, is_local, lambda: swarm.agent), swarm
