"""What a container sees and may do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shoal.api.errors import Conflict, InvalidArgument
from shoal.engine.containers.nouns import Device, HostConfig, MountRequest

pytestmark = pytest.mark.root


async def _output(host, script, asked=None, **config):
    code, output, errors = await host.run("sh", "-c", script, host=asked, **config)
    assert code == 0, errors
    return output.decode()


async def test_names_and_user(host):
    output = await _output(host, "hostname; id; echo $HOME; pwd; cat /etc/hosts /etc/resolv.conf; umask",
                           hostname="web1", user="web", working_dir="/srv/app")
    assert output.splitlines() == [
        "web1", "uid=1000(web) gid=1000(web) groups=1000(web),2000(extra)", "/home/web", "/srv/app",
        "127.0.0.1\tlocalhost", "nameserver 192.0.2.53", "0022"]


async def test_unknown_user(host):
    container_id = await host.create("true", user="nobody-here")
    with pytest.raises(InvalidArgument, match="unable to find user nobody-here: no matching entries in passwd file"):
        await host.engine.start(container_id)


async def test_default_confinement(host):
    output = await _output(host, "grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status; cat /proc/kcore | wc -c; "
                                 "echo x > /proc/sys/kernel/domainname || echo refused; ls /dev", asked=HostConfig())
    assert "Seccomp:\t2" in output and "CapEff:\t00000000a80425fb" in output and "NoNewPrivs:\t0" in output
    assert "\n0\nrefused\n" in output
    assert "sda" not in output and "kmsg" not in output


async def test_fewer_capabilities(host):
    asked = HostConfig(cap_drop=("ALL",), cap_add=("NET_ADMIN",), security_opt=("no-new-privileges",))
    output = await _output(host, "grep -E 'CapBnd|NoNewPrivs' /proc/self/status", asked=asked)
    assert output == "CapBnd:\t0000000000001000\nNoNewPrivs:\t1\n"


async def test_privileged(host):
    output = await _output(host, "grep Seccomp: /proc/self/status; echo x > /proc/sys/kernel/domainname && echo ok",
                           asked=HostConfig(privileged=True))
    assert output == "Seccomp:\t0\nok\n"


async def test_read_only_root(host):
    output = await _output(host, "touch /x || echo refused; touch /tmp/x && echo ok", asked=HostConfig(
        read_only=True, mounts=(MountRequest(type="tmpfs", target="/tmp"),)))
    assert output == "refused\nok\n"


async def test_init_reaps(host):
    output = await _output(host, "cat /proc/1/comm; readlink /proc/1/exe", asked=HostConfig(init=True))
    assert output == "docker-init\n/sbin/docker-init\n"


async def test_device(host):
    output = await _output(host, "head -c 3 /dev/zeros | wc -c", asked=HostConfig(
        devices=(Device(path_on_host="/dev/zero", path_in_container="/dev/zeros"),)))
    assert output == "3\n"


async def test_shared_namespaces(host):
    owner = await host.create("sleep", "1000", name="owner", host=HostConfig(ipc_mode="shareable"))
    await host.engine.start(owner)
    output = await _output(host, "ps | grep -c sleep; echo shared > /dev/shm/x", asked=HostConfig(
        pid_mode="container:owner", ipc_mode="container:owner"))
    assert int(output) >= 1
    pid = host.engine.get(owner).state.pid
    assert Path(f"/proc/{pid}/root/dev/shm/x").read_text() == "shared\n"
    await host.engine.stop(owner, 0)
    container_id = await host.create("true", host=HostConfig(pid_mode="container:owner"))
    with pytest.raises(Conflict, match="non running container"):
        await host.engine.start(container_id)


# --- mounts ---


async def test_bind(host, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "x").write_text("from the host")
    mounts = (MountRequest(source=str(source), target="/in/rw"),
              MountRequest(source=str(source), target="/in/ro", read_only=True))
    output = await _output(host, "cat /in/rw/x; touch /in/ro/y || echo refused; touch /in/rw/z",
                           asked=HostConfig(mounts=mounts))
    assert output == "from the hostrefused\n"
    assert (source / "z").exists()


async def test_bind_of_nothing(host, tmp_path):
    missing = str(tmp_path / "missing")
    with pytest.raises(InvalidArgument, match="bind source path does not exist"):
        await host.create("true", host=HostConfig(mounts=(MountRequest(source=missing, target="/x"),)))
    await host.create("true", host=HostConfig(mounts=(MountRequest(source=missing, target="/x", create_source=True),)))
    assert Path(missing).is_dir()


async def test_volume_is_filled_from_the_image_and_outlives(host):
    asked = HostConfig(mounts=(MountRequest(type="volume", source="vol", target="/data"),))
    assert await _output(host, "cat /data/seed; echo changed > /data/seed", asked=asked) == "from the image\n"
    assert await _output(host, "cat /data/seed", asked=asked) == "changed\n"
    with pytest.raises(Conflict, match="volume is in use"):
        await host.engine.volumes.remove("vol")
    for container in host.engine.all():
        await host.engine.remove(container.id, volumes=True)
    await host.engine.volumes.remove("vol")


async def test_anonymous_volume_goes_with_its_container(host):
    container_id = await host.create("true", volumes=("/scratch",))
    name = host.engine.get(container_id).mounts[0].name
    assert len(name) == 64
    await host.engine.remove(container_id, volumes=True)
    assert host.engine.volumes.all() == []


async def test_volume_that_is_a_file_system(host):
    """It is mounted while some container uses it, and gone with the last."""
    volume = await host.engine.volumes.create("fs", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m"})
    asked = HostConfig(mounts=(MountRequest(type="volume", source="fs", target="/fs"),))
    user = await host.create("sleep", "1000", host=asked)
    await host.engine.start(user)
    assert " tmpfs " in await _output(host, "touch /fs/x; grep ' /fs ' /proc/mounts", asked=asked)
    assert Path(volume.mountpoint, "x").exists()
    await host.engine.stop(user, 0)
    assert f" {volume.mountpoint} " not in Path("/proc/self/mountinfo").read_text()


async def test_tmpfs_options(host):
    output = await _output(host, "grep ' /t ' /proc/mounts", asked=HostConfig(
        mounts=(MountRequest(type="tmpfs", target="/t", tmpfs_size_bytes=1 << 20, options=("exec",)),)))
    options = output.split()[3].split(",")
    assert {"rw", "nosuid", "nodev", "size=1024k"} <= set(options) and "noexec" not in options


async def test_links_in_the_image_lead_nowhere_else(host, tmp_path):
    """A volume at a path whose parent is a link to the outside lands inside the root."""
    container_id = await host.create("sh", "-c", "ln -s / /escape")
    await host.engine.start(container_id)
    await host.engine.wait(container_id)
    outside = Path("/shoal-test-escape")
    asked = HostConfig(mounts=(MountRequest(type="tmpfs", target="/escape/shoal-test-escape"),))
    await _output(host, "true", asked=asked)
    assert not outside.exists()


async def test_top(host):
    container_id = await host.create("sleep", "1000")
    await host.engine.start(container_id)
    async with asyncio.timeout(60):
        while (shown := await host.engine.top(container_id))[1][0][-1] != "sleep 1000":  # the runtime's, a moment long
            await asyncio.sleep(0.02)
    titles, rows = shown
    assert [row[titles.index("CMD")] for row in rows] == ["sleep 1000"]
    with pytest.raises(InvalidArgument, match="Couldn't find PID"):
        await host.engine.top(container_id, "-o comm")
