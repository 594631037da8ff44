"""Stdio: attach and exec, with every end closed by itself."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from shoal.api.errors import Conflict, InvalidArgument
from shoal.engine.containers.nouns import ExecConfig
from tests.integration.engine.conftest import drain

pytestmark = pytest.mark.root


async def _interactive(host, *command, **config):
    container_id = await host.create(*command, open_stdin=True, stdin_once=True, **config)
    attachment = await host.engine.attach(container_id, stdin=True)
    ended = host.engine.wait(container_id, "next-exit")
    await host.engine.start(container_id)
    return attachment, ended


async def test_end_of_input_ends_cat(host):
    attachment, ended = await _interactive(host, "cat")
    await attachment.write(b"hi\n")
    await attachment.close_stdin()
    assert (await drain(attachment))[1] == b"hi\n"
    assert (await ended).exit_code == 0


async def test_input_and_its_end_before_the_start(host):
    container_id = await host.create("cat", open_stdin=True, stdin_once=True)
    attachment = await host.engine.attach(container_id, stdin=True)

    async def give():
        await attachment.write(b"early\n")
        await attachment.close_stdin()

    giving = asyncio.create_task(give())
    await host.engine.start(container_id)
    await giving
    assert (await drain(attachment))[1] == b"early\n"


async def test_large_input_arrives_whole(host):
    data = bytes(range(256)) * 16384  # 4 MiB
    attachment, ended = await _interactive(host, "sh", "-c", "sleep 0.2; md5sum")
    await attachment.write(data)
    await attachment.close_stdin()
    assert (await drain(attachment))[1].split()[0].decode() == hashlib.md5(data).hexdigest()
    assert (await ended).exit_code == 0


async def test_output_goes_on_after_the_end_of_input(host):
    attachment, ended = await _interactive(host, "sh", "-c", "cat; echo still here; exit 7")
    await attachment.write(b"x\n")
    await attachment.close_stdin()
    assert (await drain(attachment))[1] == b"x\nstill here\n"
    assert (await ended).exit_code == 7


async def test_large_output_waits_for_a_slow_client(host):
    container_id = await host.create("sh", "-c", "dd if=/dev/zero bs=1024 count=4096 2>/dev/null; echo done >&2")
    attachment = await host.engine.attach(container_id)
    await host.engine.start(container_id)
    assert await attachment.read() is not None
    await asyncio.sleep(0)
    output = await drain(attachment)
    assert len(output[1]) + 1 > 4096 * 1024 - 8192
    assert output[2] == b"done\n"


async def test_input_stays_open_when_a_client_leaves(host):
    """docker run -di: stdin is not ended by the first client that goes."""
    container_id = await host.create("cat", open_stdin=True)
    await host.engine.start(container_id)
    first = await host.engine.attach(container_id, stdin=True)
    await first.write(b"one\n")
    assert await first.read() == (1, b"one\n")
    await first.close_stdin()
    await first.detach()
    second = await host.engine.attach(container_id, stdin=True)
    await second.write(b"two\n")
    assert await second.read() == (1, b"two\n")
    await second.detach()
    assert host.engine.get(container_id).state.running


async def test_a_client_that_only_looks_ends_no_input(host):
    attachment, _ = await _interactive(host, "cat")
    looker = await host.engine.attach(await _only(host), stdin=False)
    await looker.detach()
    await attachment.write(b"still\n")
    assert await attachment.read() == (1, b"still\n")
    await attachment.detach()  # it had the input: that ends now
    assert (await host.engine.wait(await _only(host))).exit_code == 0


async def _only(host):
    return host.engine.all()[0].id


async def test_terminal(host):
    container_id = await host.create("sh", "-c", "tty; stty size; echo $TERM", tty=True, open_stdin=True)
    attachment = await host.engine.attach(container_id, stdin=True)
    await host.engine.start(container_id)
    output = (await drain(attachment))[1]
    assert b"/dev/pts/0\r\n" in output
    assert b"xterm\r\n" in output


async def test_resize(host):
    container_id = await host.create(
        "sh", "-c", "trap 'stty size; exit' WINCH; echo ready; while true; do sleep 0.05; done", tty=True,
        open_stdin=True)
    attachment = await host.engine.attach(container_id)
    await host.engine.start(container_id)
    assert await attachment.read() == (1, b"ready\r\n")
    await host.engine.resize(container_id, 33, 101)
    assert (await drain(attachment))[1] == b"33 101\r\n"


async def test_attach_to_a_paused_container_is_refused(host):
    container_id = await host.create("sleep", "1000")
    await host.engine.start(container_id)
    await host.engine.pause(container_id)
    with pytest.raises(Conflict, match="is paused, unpause the container before attach"):
        await host.engine.attach(container_id)
    await host.engine.unpause(container_id)


# --- exec ---


@pytest.fixture
async def sleeper(host):
    container_id = await host.create("sleep", "1000", env=("WHO=container",))
    await host.engine.start(container_id)
    return container_id


async def _exec(host, container_id, *command, data=None, **config):
    record = await host.engine.exec_create(container_id, ExecConfig(
        command=command, attach_stdin=data is not None, attach_stdout=True, attach_stderr=True, **config))
    attachment = await host.engine.exec_start(record.id)
    if data is not None:
        await attachment.write(data)
        await attachment.close_stdin()
    output = await drain(attachment)
    ended = host.engine.exec_inspect(record.id)
    assert not ended.running
    return ended.exit_code, output[1], output[2]


async def test_exec(host, sleeper):
    assert await _exec(host, sleeper, "sh", "-c", "echo out; echo err >&2; exit 5") == (5, b"out\n", b"err\n")


async def test_exec_by_signal(host, sleeper):
    assert (await _exec(host, sleeper, "sh", "-c", "kill -9 $$"))[0] == 137


async def test_exec_has_the_container_s_environment(host, sleeper):
    _, output, _ = await _exec(host, sleeper, "sh", "-c", "echo $WHO $MORE; id -u; pwd", env=("MORE=exec",),
                               user="web", working_dir="/tmp")
    assert output == b"container exec\n1000\n/tmp\n"


async def test_exec_with_input(host, sleeper):
    data = b"0123456789abcdef" * 65536  # 1 MiB
    code, output, _ = await _exec(host, sleeper, "sh", "-c", "md5sum; echo end", data=data)
    assert code == 0
    assert output.decode().split() == [hashlib.md5(data).hexdigest(), "-", "end"]


async def test_exec_terminal(host, sleeper):
    record = await host.engine.exec_create(sleeper, ExecConfig(
        command=("sh", "-c", "tty; stty size"), tty=True, attach_stdin=True, attach_stdout=True))
    attachment = await host.engine.exec_start(record.id, console_size=(40, 90))
    assert (await drain(attachment))[1] == b"/dev/pts/0\r\n40 90\r\n"


async def test_exec_of_what_is_not_there(host, sleeper):
    record = await host.engine.exec_create(sleeper, ExecConfig(command=("nosuch",), attach_stdout=True))
    with pytest.raises(InvalidArgument, match=r"OCI runtime exec failed: .*executable file not found") as raised:
        await host.engine.exec_start(record.id)
    assert raised.value.status == 400
    assert host.engine.exec_inspect(record.id).exit_code == 127


async def test_exec_as_nobody_that_the_image_knows(host, sleeper):
    record = await host.engine.exec_create(sleeper, ExecConfig(command=("true",), user="nosuch"))
    with pytest.raises(InvalidArgument, match="unable to find user nosuch"):
        await host.engine.exec_start(record.id)
    assert host.engine.exec_inspect(record.id).exit_code == 126


async def test_exec_runs_once(host, sleeper):
    record = await host.engine.exec_create(sleeper, ExecConfig(command=("true",)))
    assert await host.engine.exec_start(record.id, detach=True) is None
    await host.until(lambda: host.engine.exec_inspect(record.id).exit_code == 0, "the exec has ended")
    with pytest.raises(Conflict, match="has already run"):
        await host.engine.exec_start(record.id)


async def test_exec_leaves_a_child_behind(host, sleeper):
    """It is over when the program is, not when the last that holds its output is."""
    assert await _exec(host, sleeper, "sh", "-c", "sleep 500 & echo hi") == (0, b"hi\n", b"")


async def test_exec_dies_with_its_container(host, sleeper):
    record = await host.engine.exec_create(sleeper, ExecConfig(command=("sleep", "1000"), attach_stdout=True))
    attachment = await host.engine.exec_start(record.id)
    await host.engine.kill(sleeper)
    await drain(attachment)
    assert host.engine.exec_inspect(record.id).exit_code == 137
