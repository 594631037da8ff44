"""The lab's shell scripts, as far as they go without a machine."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = sorted([*(ROOT / "vagrant").glob("*.sh"), *(ROOT / "setup").glob("*.sh")])
PACKAGES = ("api", "cli", "daemon", "engine", "lab", "manager", "overlay", "worker")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_script_is_sound(script):
    done = subprocess.run(["sh", "-n", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed (sh setup/vagrant.sh)")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shellcheck_finds_nothing(script):
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def shoal(tmp_path):
    """A `shoal` that notes its words and answers from files; see `run`."""
    program = tmp_path / "bin/shoal"
    program.parent.mkdir()
    program.write_text(f"""#!/bin/sh
echo "$*" >> {tmp_path}/calls
case "$*" in
    "node ls") cat {tmp_path}/nodes ;;
    "network inspect "* | "service inspect "*) grep -qx "$3" {tmp_path}/there ;;
esac
""")
    program.chmod(0o755)
    (tmp_path / "there").write_text("")
    (tmp_path / "nodes").write_text("ID  HOSTNAME  STATUS  AVAILABILITY\n"
                                    "a   m1        ready   active\nb   w1        ready   active\n")

    def run(script, *words):
        done = subprocess.run(["sh", ROOT / "vagrant" / script, *words], capture_output=True, text=True, check=False,
                              env={"PATH": f"{program.parent}:/usr/bin:/bin"}, timeout=60)
        calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        return done, [call for call in calls if " inspect " not in call]

    run.there = (tmp_path / "there").write_text
    return run


def test_the_example_is_deployed(shoal):
    done, calls = shoal("example.sh", "2", "4", "8080")
    assert done.returncode == 0, done.stderr
    assert calls[:2] == ["node ls", "network create --driver overlay lab"]
    text = "\n".join(calls)
    assert "--name hello --replicas 4 " in text
    assert "--name front --mode global " in text and "mode=host,target=80,published=8080" in text


def test_the_example_is_deployed_once(shoal):
    shoal.there("lab\nhello\nfront\n")
    done, calls = shoal("example.sh", "2", "4", "8080")
    assert done.returncode == 0 and calls == ["node ls"]


@pytest.mark.parametrize(("words", "calls"), [
    pytest.param(["token", "worker"], ["swarm join-token --quiet worker"], id="a worker's token"),
    pytest.param(["token", "manager"], ["swarm join-token --quiet manager"], id="a manager's token"),
])
def test_who_has_the_key_is_told_a_token(shoal, words, calls):
    done, made = shoal("handout.sh", *words)
    assert done.returncode == 0 and made == calls


@pytest.mark.parametrize("words", [[], ["token"], ["token", "root"], ["sh"], ["token", "worker", "more"],
                                   ["node", "rm", "m1"]])
def test_who_has_the_key_may_do_nothing_else(shoal, words):
    done, made = shoal("handout.sh", *words)
    assert done.returncode == 2 and made == []
    assert "may ask for a token" in done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The same checkout's wheel, built twice."""
    built = []
    for name in ("one", "two"):
        folder = tmp_path_factory.mktemp(name)
        subprocess.run(["sh", ROOT / "setup/wheel.sh", folder], check=True, capture_output=True)
        built.append(folder)
    return built


def test_the_wheel_has_all_the_code(wheels):
    wheel, = wheels[0].glob("shoal-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert f"shoal/{path.relative_to(ROOT)}" in names
    assert "shoal/daemon/shoald.service" in names
    assert not [name for name in names if name.startswith("tests/")]


def test_equal_code_gives_an_equal_wheel(wheels):
    one, two = (next(folder.glob("shoal-*.whl")).read_bytes() for folder in wheels)
    assert one == two


def test_the_wheel_s_dependencies_are_pinned(wheels):
    pins = (wheels[0] / "constraints.txt").read_text().splitlines()
    assert any(pin.startswith("pysyncobj==0.3.17") for pin in pins) and all("==" in pin for pin in pins)
