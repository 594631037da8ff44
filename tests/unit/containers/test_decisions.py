"""Restarts, health, log lines, merging of image and request: pure parts as tables."""

import msgspec
import pytest

from shoal.api.errors import InvalidArgument
from shoal.api.specs import HealthCheck
from shoal.engine.containers import health, launcher, merge, restart, top
from shoal.engine.containers.logs import logline, rotation
from shoal.engine.containers.logs.logline import Joiner, tail_offset, time_ns
from shoal.engine.containers.nouns import (
    ContainerConfig,
    Health,
    HealthResult,
    HostConfig,
    Limits,
    LogConfig,
    RestartPolicy,
)
from shoal.engine.images.config import ImageConfig

# --- restarts ---


@pytest.mark.parametrize(("policy", "code", "restarts", "stopped", "again", "at_boot"), [
    ("no", 1, 0, False, False, False),
    ("always", 0, 99, False, True, True),
    ("always", 0, 0, True, False, True),
    ("unless-stopped", 0, 0, False, True, True),
    ("unless-stopped", 0, 0, True, False, False),
    ("on-failure", 0, 0, False, False, False),
    ("on-failure", 1, 99, False, True, True),
])
def test_restart(policy, code, restarts, stopped, again, at_boot):
    asked = RestartPolicy(name=policy)
    assert restart.wants_restart(asked, exit_code=code, restarts=restarts, manually_stopped=stopped) is again
    assert restart.wants_start(asked, exit_code=code, restarts=restarts, manually_stopped=stopped) is at_boot


def test_on_failure_counts():
    asked = RestartPolicy(name="on-failure", max_retries=2)
    assert [restart.wants_restart(asked, exit_code=1, restarts=done, manually_stopped=False)
            for done in range(4)] == [True, True, False, False]


def test_back_off():
    delays, delay = [], 0.0
    for _ in range(12):
        delay = restart.next_delay(delay, ran_s=0.5)
        delays.append(delay)
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8] and delays[-1] == 60
    assert restart.next_delay(60, ran_s=10) == 0.1


@pytest.mark.parametrize("policy", [
    RestartPolicy(name="sometimes"), RestartPolicy(name="always", max_retries=1),
    RestartPolicy(name="on-failure", max_retries=-1),
])
def test_restart_policies_that_are_refused(policy):
    with pytest.raises(InvalidArgument, match="invalid restart policy"):
        restart.check(policy, auto_remove=False)


def test_no_policy_with_auto_remove():
    with pytest.raises(InvalidArgument, match="can't create 'AutoRemove' container with restart policy"):
        restart.check(RestartPolicy(name="always"), auto_remove=True)


# --- health ---

CHECK = HealthCheck(
    test=("CMD", "x"), interval_ns=30, timeout_ns=5, start_period_ns=100, start_interval_ns=7, retries=2)


def _result(code, start=1000):
    return HealthResult(start_ns=start, end_ns=start + 1, exit_code=code)


def _after(*results):
    state = Health()
    for result in results:
        state = health.after(state, CHECK, result, started_ns=0)
    return state.status, state.failing_streak


@pytest.mark.parametrize(("results", "expected"), [
    pytest.param([], ("starting", 0), id="nothing yet"),
    pytest.param([_result(0)], ("healthy", 0), id="well"),
    pytest.param([_result(1)], ("starting", 1), id="one failure"),
    pytest.param([_result(1), _result(1)], ("unhealthy", 2), id="enough failures"),
    pytest.param([_result(1, 50), _result(1, 99), _result(1, 99)], ("starting", 0), id="while it starts"),
    pytest.param([_result(0), _result(1, 50)], ("healthy", 1), id="well before, so it counts"),
    pytest.param([_result(1), _result(1), _result(0)], ("healthy", 0), id="recovered"),
    pytest.param([_result(1), _result(0), _result(1)], ("healthy", 1), id="the streak begins anew"),
])
def test_health(results, expected):
    assert _after(*results) == expected


def test_five_results_are_kept():
    state = Health()
    for number in range(9):
        state = health.after(state, CHECK, _result(0, number), 0)
    assert [one.start_ns for one in state.log] == [4, 5, 6, 7, 8]


def test_interval():
    assert health.next_delay_ns(Health(), CHECK, started_ns=0, now_ns=50) == 7
    assert health.next_delay_ns(Health(), CHECK, started_ns=0, now_ns=100) == 30
    assert health.next_delay_ns(Health(status="healthy"), CHECK, started_ns=0, now_ns=50) == 30


@pytest.mark.parametrize(("test", "expected"), [
    ((), None),
    (("NONE",), None),
    (("CMD", "a", "b"), ("a", "b")),
    (("CMD-SHELL", "a b"), ("/bin/sh", "-c", "a b")),
])
def test_health_command(test, expected):
    assert health.command(HealthCheck(test=test)) == expected


# --- log lines ---

T = b"2026-01-02T03:04:05.600000007+00:00"


def _line(stream, tag, text):
    return b" ".join((T, stream, tag, text)) + b"\n"


def _feed(*parts, end=True):
    joiner = Joiner()
    lines = [line for part in parts for line in joiner.feed(part)] + (list(joiner.end()) if end else [])
    return [(line.stream, line.content) for line in lines]


@pytest.mark.parametrize(("parts", "expected"), [
    pytest.param([_line(b"stdout", b"F", b"a b")], [(1, b"a b\n")], id="whole"),
    pytest.param([_line(b"stdout", b"F", b"")], [(1, b"\n")], id="empty"),
    pytest.param([_line(b"stdout", b"P", b"a"), _line(b"stderr", b"F", b"x"), _line(b"stdout", b"F", b"b")],
                 [(2, b"x\n"), (1, b"ab\n")], id="pieces, apart by stream"),
    pytest.param([_line(b"stderr", b"P", b"a")], [(2, b"a")], id="never ended"),
    pytest.param([_line(b"stdout", b"F", b"ab")[:50], _line(b"stdout", b"F", b"ab")[50:]], [(1, b"ab\n")], id="cut"),
    pytest.param([b"garbage\n", _line(b"stdin", b"F", b"x"), _line(b"stdout", b"F", b"y")], [(1, b"y\n")],
                 id="no line of a log"),
])
def test_joining(parts, expected):
    assert _feed(*parts) == expected


def test_pieces_are_joined_up_to_a_bound():
    piece = _line(b"stdout", b"P", b"x" * 8192)
    assert [len(content) for _, content in _feed(piece * 5)] == [16384, 16384, 8192]


def test_time():
    assert time_ns(T) == 1767323045_600000007
    assert time_ns(b"2026-01-02T05:04:05.6+02:00") == 1767323045_600000000
    assert time_ns(b"nonsense") == 0
    assert logline.Line(T, 1, b"").stamp == b"2026-01-02T03:04:05.600000007Z"


@pytest.mark.parametrize(("lines", "expected"), [(1, b"c"), (2, b"b"), (3, b"a"), (4, None)])
def test_tail(lines, expected):
    block = b"".join(_line(b"stdout", b"F", text) for text in (b"old", b"a", b"b", b"c"))
    offset = tail_offset(block, lines)
    assert (offset and _feed(block[offset:])[0]) == (expected and (1, expected + b"\n"))


def test_tail_counts_lines_and_not_pieces():
    block = (_line(b"stdout", b"F", b"a") + _line(b"stdout", b"P", b"b") + _line(b"stdout", b"F", b"c")
             + _line(b"stdout", b"F", b"d"))
    offset = tail_offset(block, 2)
    assert _feed(block[offset:]) == [(1, b"bc\n"), (1, b"d\n")]


@pytest.mark.parametrize(("options", "expected"), [
    ({}, (0, 1)),
    ({"max-size": "10m"}, (10 << 20, 1)),
    ({"max-size": "1.5k", "max-file": "3"}, (1536, 3)),
])
def test_rotation_limits(options, expected):
    assert rotation.limits(LogConfig(options=options)) == expected


@pytest.mark.parametrize("options", [
    {"max-size": "ten"}, {"max-size": "0"}, {"max-size": "1m", "max-file": "0"}, {"colour": "red"},
])
def test_rotation_limits_that_are_refused(options):
    with pytest.raises(InvalidArgument):
        rotation.limits(LogConfig(options=options))


# --- image and request ---

IMAGE = ImageConfig(entrypoint=("/entry",), cmd=("arg",), env=("A=image", "B=image"), labels={"l": "image"},
                    working_dir="/srv", user="web", volumes=("/v",), exposed_ports=("80/tcp",))


@pytest.mark.parametrize(("entrypoint", "command", "argv"), [
    pytest.param(None, None, ("/entry", "arg"), id="the image's"),
    pytest.param(None, ("mine",), ("/entry", "mine"), id="command"),
    pytest.param(("/mine",), None, ("/mine",), id="entrypoint: the image's command means nothing to it"),
    pytest.param(("",), ("sh",), ("sh",), id="entrypoint cleared"),
    pytest.param((), ("sh",), ("sh",), id="entrypoint empty"),
])
def test_what_is_run(entrypoint, command, argv):
    merged = merge.merge(ContainerConfig(entrypoint=entrypoint, command=command), IMAGE)
    assert (*(merged.entrypoint or ()), *(merged.command or ())) == argv


def test_nothing_to_run():
    with pytest.raises(InvalidArgument, match="no command specified"):
        merge.merge(ContainerConfig(), ImageConfig())


def test_what_was_asked_for_wins():
    merged = merge.merge(ContainerConfig(env=("A=mine", "C"), labels={"m": "1"}, exposed_ports=("81/tcp",)), IMAGE)
    assert merged.env == ("A=mine", "C", "B=image")
    assert merged.labels == {"l": "image", "m": "1"}
    assert (merged.user, merged.working_dir) == ("web", "/srv")
    assert (merged.volumes, merged.exposed_ports) == (("/v",), ("81/tcp", "80/tcp"))


@pytest.mark.parametrize(("text", "number"), [
    ("TERM", 15), ("SIGKILL", 9), ("hup", 1), ("10", 10), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX-1", 63),
])
def test_signals(text, number):
    assert merge.parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "NOSUCH", "SIG", "RTMIN+99", "_DFL", "-1"])
def test_signals_that_are_refused(text):
    with pytest.raises(InvalidArgument, match="invalid signal"):
        merge.parse_signal(text)


@pytest.mark.parametrize(("config", "host", "message"), [
    (ContainerConfig(stop_signal="x"), HostConfig(), "invalid signal"),
    (ContainerConfig(env=("=x",)), HostConfig(), "invalid environment variable"),
    (ContainerConfig(), HostConfig(cap_add=("fly",)), "invalid CapAdd"),
    (ContainerConfig(), HostConfig(limits=Limits(memory_bytes=1)), "Minimum memory limit allowed is 6MB"),
    (ContainerConfig(), HostConfig(limits=Limits(memory_bytes=8 << 20, memory_swap_bytes=7 << 20)), "memoryswap"),
    (ContainerConfig(), HostConfig(limits=Limits(nano_cpus=10**15)), "range of CPUs is from 0.01"),
    (ContainerConfig(), HostConfig(limits=Limits(nano_cpus=1, cpu_period_us=1000)), "Conflicting options"),
    (ContainerConfig(), HostConfig(limits=Limits(cpuset_cpus="a")), "Invalid value a for cpuset cpus"),
    (ContainerConfig(), HostConfig(oom_score_adj=2000), "range for oom score adj"),
    (ContainerConfig(), HostConfig(log=LogConfig(driver="morse")), "no log driver named 'morse'"),
    (ContainerConfig(), HostConfig(security_opt=("x",)), "invalid --security-opt"),
    (ContainerConfig(), HostConfig(extra_hosts=("x",)), "bad format for add-host"),
])
def test_requests_that_are_refused(config, host, message):
    with pytest.raises(InvalidArgument, match=message):
        merge.check(config, host, cpus=2)


def test_update_changes_what_it_names():
    before = HostConfig(limits=Limits(memory_bytes=1, pids=2))
    after = merge.updated(before, Limits(pids=3), RestartPolicy(name="always"))
    assert after == msgspec.structs.replace(
        before, limits=Limits(memory_bytes=1, pids=3), restart=RestartPolicy(name="always"))


@pytest.mark.parametrize(("text", "expected"), [
    ("80", [(80, "tcp")]), ("53/udp", [(53, "udp")]), ("8000-8001/tcp", [(8000, "tcp"), (8001, "tcp")]),
])
def test_exposed_ports(text, expected):
    assert [(port.container_port, port.protocol) for port in launcher.exposed_ports(text)] == expected


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "9-8", "1-x/tcp"])
def test_exposed_ports_that_are_refused(text):
    with pytest.raises(InvalidArgument, match="invalid port specification"):
        launcher.exposed_ports(text)


@pytest.mark.parametrize(("message", "status", "code"), [
    ('exec: "x": executable file not found in $PATH', 400, 127),
    ("exec /x: no such file or directory", 400, 127),
    ('exec: "/etc": permission denied', 400, 126),
    ('exec: "/etc": is a directory', 400, 126),
    ("mount /a:/b: not a directory", 400, 127),
    ("something else", 500, 128),
])
def test_why_a_start_failed(message, status, code):
    error, exit_code = launcher.classify(message)
    assert (error.status, exit_code) == (status, code)
    assert error.message.startswith(message)


def test_processes_of_ps():
    output = "UID   PID CMD\nroot    1 /sbin/init splash\nweb    77 nginx: worker process\n"
    assert top.parse(output, {77}) == (["UID", "PID", "CMD"], [["web", "77", "nginx: worker process"]])
