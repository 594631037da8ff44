"""Who answers to which name."""

from __future__ import annotations

from shoal.overlay.names import Linked, NamedEndpoint, NamedService, NetworkNames, lookup


def app() -> NetworkNames:
    names = NetworkNames()
    names.set_endpoint("1", NamedEndpoint("10.0.0.2", ("web.1", "c1"), "web", True))
    names.set_endpoint("2", NamedEndpoint("10.0.0.3", ("web.2",), "web", True))
    names.set_endpoint("3", NamedEndpoint("10.0.0.4", ("web.3",), "web", False))
    names.set_service("s", NamedService(("web", "www"), "10.0.0.9", ("10.0.0.2", "10.0.0.3")))
    return names


def test_a_service_answers_with_its_vip_and_tasks_with_the_healthy() -> None:
    names = app()
    assert names.addresses("WEB") == names.addresses("www") == ("10.0.0.9",)
    assert names.addresses("tasks.web") == names.addresses("tasks.WWW") == ("10.0.0.2", "10.0.0.3")
    assert names.addresses("c1") == ("10.0.0.2",)
    assert names.addresses("web.3") == ("10.0.0.4",)  # its own name, though not healthy
    assert names.addresses("nobody") is None and names.addresses("tasks.nobody") is None


def test_without_vip_the_backends_answer() -> None:
    names = app()
    names.set_service("s", NamedService(("web",), "", ("10.0.0.3", "10.0.0.2")))
    assert names.addresses("web") == ("10.0.0.3", "10.0.0.2")
    assert names.addresses("www") is None
    names.set_service("s", NamedService(("web",), "", ()))
    assert names.addresses("web") == ()


def test_what_is_dropped_is_forgotten() -> None:
    names = app()
    for key in ("1", "2", "3", "1"):
        names.drop_endpoint(key)
    names.drop_service("s")
    assert names.addresses("web") is None and names.addresses("tasks.web") is None
    assert names.name_of("10.0.0.2") is None
    assert not names._by_name and not names._by_service and not names._service_by_name and not names._by_address


def test_a_name_shared_by_two_prefers_the_healthy() -> None:
    names = NetworkNames()
    names.set_endpoint("old", NamedEndpoint("10.0.0.2", ("db",), healthy=False))
    names.set_endpoint("new", NamedEndpoint("10.0.0.3", ("db",)))
    assert names.addresses("db") == ("10.0.0.3",)


def test_reverse_and_several_networks() -> None:
    one, two = app(), NetworkNames()
    two.set_endpoint("1", NamedEndpoint("10.1.0.2", ("web", "db")))
    assert lookup([one, two], "web") == ("10.0.0.9",)
    assert lookup([one, two], "db") == ("10.1.0.2",)
    assert lookup([], "db") is None
    one.name, two.name = "app", "back"
    assert lookup([one, two], "web.back") == ("10.1.0.2",)
    assert lookup([one, two], "web.1.app") == ("10.0.0.2",)
    assert lookup([one, two], "web.other") is None
    assert one.name_of("10.0.0.2") == "web.1" and one.name_of("10.0.0.9") == "web"


def test_ipv6_is_answered_for_who_has_it() -> None:
    names = NetworkNames("app")
    names.set_endpoint("a", NamedEndpoint("10.0.0.2", ("db",), address6="fd00::2"))
    names.set_endpoint("b", NamedEndpoint("10.0.0.3", ("web",)))
    names.set_service("s", NamedService(("svc",), "10.0.0.9", ("10.0.0.3",)))
    found = [lookup([names], name, ipv6=True) for name in ("db", "web", "svc", "nobody")]
    assert found == [("fd00::2",), (), (), None]
    assert names.name_of("fd00::2") == "db"
    names.drop_endpoint("a")
    assert names.name_of("fd00::2") is None and names.name_of("10.0.0.2") is None


def test_a_link_is_a_word_of_one_sandbox_alone() -> None:
    names = NetworkNames("app")
    mine = Linked(names, {"Store": "db"})
    assert lookup([mine], "store") is None
    names.set_endpoint("a", NamedEndpoint("10.0.0.2", ("db",), address6="fd00::2"))
    assert lookup([mine], "STORE") == lookup([mine], "db") == ("10.0.0.2",)
    assert lookup([mine], "store", ipv6=True) == ("fd00::2",)
    assert lookup([names], "store") is None
