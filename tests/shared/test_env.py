"""Reading the environment: every problem at once, each naming its variable."""

from datetime import timedelta

import pytest

from edgefarm.env import Environment
from edgefarm.errors import SettingsError


def test_values_are_read_with_their_types_and_defaults() -> None:
    env = Environment({"A": "x", "PORT": "8443", "ON": "TRUE", "EVERY": "1h", "EMPTY": ""})
    assert env.text("A") == "x"
    assert env.text("EMPTY", "default") == "default"
    assert env.optional("EMPTY") is None
    assert env.port("PORT", 1) == 8443
    assert env.boolean("ON", False) is True
    assert env.duration("EVERY", "1s") == timedelta(hours=1)
    assert env.duration("UNSET", "90s") == timedelta(seconds=90)
    env.check()


def test_all_problems_are_reported_together() -> None:
    env = Environment({"PORT": "70000", "COUNT": "many", "ON": "maybe", "EVERY": "often", "MODE": "z"})
    env.text("MISSING")
    env.port("PORT", 1)
    env.integer("COUNT", 3)
    env.boolean("ON", False)
    env.duration("EVERY", "1s")
    env.text("MODE", choices=("a", "b"))
    with pytest.raises(SettingsError) as caught:
        env.check()
    named = [problem.split()[0] for problem in caught.value.problems]
    assert named == ["MISSING", "PORT", "COUNT", "ON", "EVERY", "MODE"]
