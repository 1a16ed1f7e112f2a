"""What workers and commands set in the environment is what jax reads."""

import re
from pathlib import Path

import jax
import pytest

from meta_icl.sweeps import use_compilation_cache

MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text()


@pytest.mark.parametrize("source", ["commands", "make test"])
def test_every_variable_of_the_compilation_cache_is_an_option_of_jax(source):
    """jax ignores a misspelt one, and with it keeps no program that compiled in less than a second."""
    commands: dict[str, str] = {}
    use_compilation_cache(commands)
    made = dict(re.findall(r"\b(JAX_\w*CACHE\w*)=(\S+)", MAKEFILE))
    assert set(made) == set(commands) and made
    for name in {"commands": commands, "make test": made}[source]:
        assert hasattr(jax.config, name.lower()), name


def test_what_the_user_set_is_kept():
    environment = {"JAX_COMPILATION_CACHE_DIR": "/here"}
    use_compilation_cache(environment)
    assert environment["JAX_COMPILATION_CACHE_DIR"] == "/here"
    assert {value for name, value in environment.items() if "MIN_" in name} == {"-1", "0"}
