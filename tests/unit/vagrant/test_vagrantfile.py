"""What Vagrant makes of the environment: which machines, and a clear refusal of what is no number."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

LAB = Path(__file__).parents[3] / "vagrant"

pytestmark = [
    pytest.mark.vagrant,
    pytest.mark.skipif(not shutil.which("vagrant"), reason="vagrant is not installed (sh setup/vagrant.sh)"),
]


@pytest.fixture
def vagrant(tmp_path):
    """`vagrant` in the lab's folder, with homes of its own."""

    def run(*words, **environment):
        homes = {"VAGRANT_HOME": str(tmp_path / "home"), "VAGRANT_DOTFILE_PATH": str(tmp_path / "dot"),
                 "VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_DEFAULT_PROVIDER": "libvirt"}
        return subprocess.run(["vagrant", *words], cwd=LAB, capture_output=True, text=True, check=False, timeout=120,
                              env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **homes, **environment})

    return run


def machines(vagrant, **environment):
    done = vagrant("status", "--machine-readable", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(",") for line in done.stdout.splitlines()]
    return [row[1] for row in rows if row[2] == "state"]


@pytest.mark.parametrize(("environment", "names"), [
    pytest.param({}, ["m1", "w1", "w2"], id="one manager and two workers"),
    pytest.param({"MANAGERS": "3", "WORKERS": "1"}, ["m1", "m2", "m3", "w1"], id="three managers"),
    pytest.param({"WORKERS": "0"}, ["m1"], id="alone"),
    pytest.param({"MANAGERS": "", "WORKERS": ""}, ["m1", "w1", "w2"], id="empty is not given"),
])
def test_machines(vagrant, environment, names):
    assert machines(vagrant, **environment) == names


@pytest.mark.parametrize("environment", [{}, {"BOX": "debian/trixie64", "CPUS": "2", "MEMORY": "2048", "PORT": "80"},
                                         {"MANAGERS": "3", "SLOWNESS": "20", "EMULATE": "1"}],
                         ids=["defaults", "other machines", "emulated"])
def test_the_vagrantfile_is_valid(vagrant, environment):
    done = vagrant("validate", **environment)
    assert done.returncode == 0 and "validated successfully" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(("environment", "said"), [
    ({"MANAGERS": "0"}, "MANAGERS has to be a number from 1 to 9, not \"0\""),
    ({"WORKERS": "-1"}, "WORKERS has to be a number from 0 to 50, not \"-1\""),
    ({"MEMORY": "1G"}, "MEMORY has to be a number from 256 to 65536, not \"1G\""),
    ({"CPUS": "two"}, "CPUS has to be a number from 1 to 64, not \"two\""),
    ({"SUBNET": "10.0.0.0/24"}, "SUBNET has to be like 192.168.56, not \"10.0.0.0/24\""),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else "")
def test_what_is_no_number_is_refused(vagrant, environment, said):
    done = vagrant("validate", **environment)
    assert done.returncode != 0 and said in done.stderr
