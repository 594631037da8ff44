"""Which lines of an htpasswd file are taken."""

import bcrypt
import pytest

from shoal.api.errors import InvalidArgument
from shoal.registry.auth.htpasswd import parse

HASHED = bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode()


def test_users():
    apache = HASHED.replace("$2b$", "$2y$")
    assert parse(f"# some\n\nann:{HASHED}\nbob:{apache}\n") == {"ann": HASHED.encode(), "bob": apache.encode()}
    assert bcrypt.checkpw(b"x", apache.encode())


@pytest.mark.parametrize("line", ["ann", f":{HASHED}", "ann:secret", "ann:$apr1$x$y",
                                  f"ann:{HASHED[:-1]}", "ann:$2y$99$" + "a" * 53])
def test_what_is_none(line):
    with pytest.raises(InvalidArgument, match="line 2"):
        parse(f"# first\n{line}\n")
