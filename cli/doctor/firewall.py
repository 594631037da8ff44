"""From nft's JSON to the chains that stand in the way of packets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shoal.cli.doctor.facts import Chain

OURS = ("inet", "shoal")
MAX_RANGE = 1024
"""Ranges of ports wider than this are taken for "everything"."""

EVERYTHING = "*"
_VERDICTS = ("accept", "drop", "reject")


def chains(ruleset: Mapping[str, Any]) -> tuple[Chain, ...]:
    """The base chains of others at `forward` and `input`. `ruleset`: the output of `nft -j list ruleset`."""
    entries = ruleset.get("nftables", [])
    rules: dict[tuple[str, str, str], list[list[Any]]] = {}
    for entry in entries:
        if rule := entry.get("rule"):
            rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule.get("expr", []))
    found = []
    for entry in entries:
        chain = entry.get("chain", {})
        key = chain.get("family", ""), chain.get("table", ""), chain.get("name", "")
        if chain.get("hook") in ("forward", "input") and chain.get("type") == "filter" and key[:2] != OURS:
            found.append(_chain(key, chain, rules.get(key, []), rules))
    return tuple(found)


def _chain(
    key: tuple[str, str, str], chain: Mapping[str, Any], own: list[list[Any]],
    rules: Mapping[tuple[str, str, str], list[list[Any]]],
) -> Chain:
    opens: set[str] = set()
    opaque = drops_all = False
    for expressions in _reached(key, own, rules):
        opened = _opened(expressions) if any("accept" in each for each in expressions) else set()
        opaque = opaque or opened is None or any("xt" in each for each in expressions)
        opens |= opened or set()
    for expressions in own:
        verdicts = [each for each in expressions if any(word in each for word in _VERDICTS)]
        conditions = [each for each in expressions if "match" in each or "xt" in each]
        if verdicts and not conditions and "accept" not in verdicts[0]:
            drops_all = True
        elif verdicts and not conditions:
            break  # everything is accepted before what follows
    return Chain(family=key[0], table=key[1], name=key[2], hook=chain["hook"], policy=chain.get("policy", "accept"),
                 drops_all=drops_all, opens=frozenset(opens), opaque=opaque)


def _reached(
    key: tuple[str, str, str], own: list[list[Any]], rules: Mapping[tuple[str, str, str], list[list[Any]]]
) -> Iterable[list[Any]]:
    """The rules of a chain and of those that it jumps to, each chain once."""
    seen, waiting = {key[2]}, list(own)
    while waiting:
        expressions = waiting.pop()
        yield expressions
        for each in expressions:
            target = (each.get("jump") or each.get("goto") or {}).get("target", "")
            if target and target not in seen:
                seen.add(target)
                waiting += rules.get((key[0], key[1], target), [])


def _opened(expressions: list[Any]) -> set[str] | None:
    """What a rule that accepts lets in; None where that depends on more than is looked at here.

    Which hosts it lets in is not asked: a rule for some is meant for the swarm's.
    """
    found: set[str] = set()
    doubt = False
    for match in (each["match"] for each in expressions if "match" in each):
        left, right = match.get("left"), match.get("right")
        payload = left.get("payload", {}) if isinstance(left, dict) else {}
        if payload.get("field") == "dport":
            doubt = doubt or isinstance(right, str)  # a set that stands elsewhere
            protocols = ("tcp", "udp") if payload["protocol"] == "th" else (payload["protocol"],)
            found |= {f"{protocol}/{port}" for protocol in protocols for port in _numbers(right)}
        elif _never_a_stranger(left, right):
            return set()
        elif payload.get("protocol") in ("ip", "ip6") and payload.get("field") == "saddr":
            doubt = doubt or not any("dport" in str(each) for each in expressions)
        elif payload:
            return set()  # ICMP, a flag of TCP
    if not any("match" in each or "xt" in each for each in expressions):
        return {EVERYTHING}
    return None if doubt else found


def _never_a_stranger(left: Any, right: Any) -> bool:
    """Whether a condition holds for no new connection of another host."""
    if not isinstance(left, dict):
        return False
    if left.get("ct", {}).get("key") == "state":
        return "new" not in (right if isinstance(right, list) else [right])
    return left.get("meta", {}).get("key") in ("iif", "iifname") and right == "lo"


def _numbers(right: Any) -> Iterable[int | str]:
    if isinstance(right, int):
        yield right
    elif isinstance(right, dict) and "set" in right:
        for each in right["set"]:
            yield from _numbers(each)
    elif isinstance(right, dict) and "range" in right:
        first, last = right["range"]
        if isinstance(first, int) and isinstance(last, int):
            yield from range(first, last + 1) if last - first <= MAX_RANGE else (EVERYTHING,)
