"""Names for containers that were given none: an adjective and a person of the sea's sciences."""

from __future__ import annotations

import secrets
from collections.abc import Container

_ADJECTIVES = (
    "able agile amber ample ardent balmy bold bonny brave breezy bright brisk calm candid careful cheery civil clean "
    "clear clever cosy crisp curious daring deft direct eager early earnest easy even fabled fair faithful famed fine "
    "firm fleet fluent fond frank free fresh gallant gentle genuine gifted glad golden good grand happy hardy hearty "
    "helpful honest hopeful humble ideal jolly jovial just keen kind lasting level lively loyal lucid lucky mellow "
    "merry mighty mild modest neat nimble noble novel open patient placid plain polite prime proper proud prudent "
    "quick quiet radiant ready regal robust serene sharp silent simple sincere sleek smart smooth solid sound spry "
    "stable steady sterling stout sturdy sunny sure swift tactful tender tidy tranquil true trusty upbeat valiant "
    "vast vivid warm willing wise witty worthy zesty"
)
_SURNAMES = (
    "agassiz anning audubon baret bascom beaufort beebe bering bjerknes bowditch buchanan carson challenger clark "
    "cook cousteau cunningham darwin dana dittmar earle ekman ewing fitzroy forbes forchhammer franklin galathea "
    "gould haeckel halley harrison hensen heezen hjort hooke humboldt huxley knudsen lamont linnaeus marsili maury "
    "mendel merian montgomery murray nansen nares nordenskjold piccard revelle richardson ritter ross sars scoresby "
    "steller stommel sverdrup tharp thomson vancouver vine wallace walsh wegener wilkes wust yonge zhenghe"
)
_ATTEMPTS = 6


def generate(taken: Container[str]) -> str:
    """A name that is not taken."""
    name = _pair()
    for _ in range(_ATTEMPTS):
        if name not in taken:
            return name
        name = f"{_pair()}{secrets.randbelow(10)}"
    while name in taken:
        name = f"{_pair()}_{secrets.token_hex(4)}"
    return name


def _pair() -> str:
    return f"{secrets.choice(_ADJECTIVES.split())}_{secrets.choice(_SURNAMES.split())}"
