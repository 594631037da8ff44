"""The registry as a service: its specification, and what its image is made of."""

from pathlib import Path

from shoal.registry import contents, deployment

SAID = """/usr/lib/a.so:
\tlinux-vdso.so.1 (0x00007f2485c2d000)
\tlibcrypto.so.3 => /lib/x86_64-linux-gnu/libcrypto.so.3 (0x00007f2485600000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f2485c2f000)
/usr/lib/b.so:
\tstatically linked
"""


def test_libraries_are_found_by_the_names_they_are_loaded_by():
    assert contents.libraries(SAID) == {
        "usr/lib/shoal/libraries/libcrypto.so.3": Path("/lib/x86_64-linux-gnu/libcrypto.so.3"),
        "lib64/ld-linux-x86-64.so.2": Path("/lib64/ld-linux-x86-64.so.2"),
    }


def test_the_specification():
    spec = deployment.specification("r", "i:1", "n1", 5001, "data", "/etc/mine", ["--delete"])
    assert spec["TaskTemplate"]["Placement"]["Constraints"] == ["node.id==n1"]
    assert spec["EndpointSpec"]["Ports"] == [
        {"Protocol": "tcp", "TargetPort": 5000, "PublishedPort": 5001, "PublishMode": "host"}]
    container = spec["TaskTemplate"]["ContainerSpec"]
    assert container["Args"] == ["serve", "--root", "/var/lib/registry", "--listen", ":5000", "--delete"]
    assert [(each["Type"], each["Source"], each["Target"], each.get("ReadOnly", False)) for each in container["Mounts"]
            ] == [("volume", "data", "/var/lib/registry", False), ("bind", "/etc/mine", "/etc/registry", True)]
    assert len(deployment.specification("r", "i:1", "n1", 5001, "data")["TaskTemplate"]["ContainerSpec"]["Mounts"]) == 1
