"""A name for a service whose user gave none: an adjective and a sea creature. Pure but for the choice."""

from __future__ import annotations

import secrets
from collections.abc import Callable

_ADJECTIVES = (
    "amber ample azure bold brave breezy bright brisk calm candid clear clever cosmic crisp daring deft eager early "
    "fair fleet fond gentle glad golden grand happy hardy honest humble jolly keen kind lively lucid lucky mellow "
    "merry mighty mild modest neat noble placid plucky polite proud quick quiet rapid ready royal sage serene sharp "
    "shiny silent silver smooth snug solid spry steady stoic sunny swift tidal tidy tranquil trusty upbeat vivid "
    "warm wise witty young zesty"
)
_CREATURES = (
    "abalone albacore anchovy angelfish barb barnacle bass beluga blenny bonito bream carp catfish char cichlid clam "
    "cod conch coral crab crayfish cuttlefish dab dace dolphin dory eel flounder gar goby grayling grouper grunt "
    "gurnard haddock hake halibut herring jellyfish koi krill lamprey limpet ling lobster loach mackerel manatee "
    "manta marlin minnow mullet mussel narwhal nautilus octopus orca otter oyster perch pike plaice pollock porpoise "
    "prawn puffer ray roach salmon sardine scallop seahorse shrimp skate smelt snapper sole sprat squid starfish "
    "sturgeon tang tench tetra trout tuna turbot turtle urchin walleye whelk whiting wrasse"
)


def fresh_name(taken: Callable[[str], bool]) -> str:
    """A name that is not taken."""
    name = f"{secrets.choice(_ADJECTIVES.split())}_{secrets.choice(_CREATURES.split())}"
    while taken(name):
        name = f"{secrets.choice(_ADJECTIVES.split())}_{secrets.choice(_CREATURES.split())}{secrets.randbelow(10_000)}"
    return name
