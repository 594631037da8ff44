"""`--publish` as docker's command takes it, and as the API has it."""

import click
import pytest

from shoal.cli.commands.service import _port


@pytest.mark.parametrize(("word", "protocol", "target", "published", "mode"), [
    pytest.param("mode=host,target=80,published=8080", "tcp", 80, 8080, "host", id="long"),
    pytest.param("target=53,protocol=udp", "udp", 53, 0, "ingress", id="long, any free port"),
    pytest.param("8080:80", "tcp", 80, 8080, "ingress", id="short"),
    pytest.param("53/udp", "udp", 53, 0, "ingress", id="short, any free port"),
])
def test_a_port(word, protocol, target, published, mode):
    assert _port(word) == {
        "Protocol": protocol, "TargetPort": target, "PublishedPort": published, "PublishMode": mode,
    }


@pytest.mark.parametrize("word", ["", "http", "8080:", "target=x", "published=80", "target=80,published=-1",
                                  "target=80,name=web", "80:80:80"])
def test_no_port(word):
    with pytest.raises(click.BadParameter, match="is no port"):
        _port(word)
