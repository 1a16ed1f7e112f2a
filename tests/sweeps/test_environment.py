"""What workers and commands set in the environment is what jax reads."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from meta_icl.sweeps import cache_folder, compile_soon, compute_like_a_worker, use_compilation_cache
from meta_icl.sweeps.environment import AT_ONCE, SINGLE_THREADED, backend_problem, single_threaded

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


def test_this_process_computes_like_a_worker_unless_jax_has_begun(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    jax.numpy.zeros(1).block_until_ready()
    assert not compute_like_a_worker()
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "jax._src.xla_bridge")  # as before the first import of jax
        assert compute_like_a_worker()
    flags = os.environ["XLA_FLAGS"].split()
    assert set(flags) == {"--xla_cpu_enable_fast_math=false", *SINGLE_THREADED.split()} and len(flags) == 3
    assert compute_like_a_worker()  # now they are set, and are not set twice
    assert single_threaded(os.environ)["XLA_FLAGS"].split() == flags


def test_programs_are_made_at_once_unless_jax_has_begun_or_the_user_wants_others(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2")
    jax.numpy.zeros(1).block_until_ready()
    compile_soon()
    assert os.environ["XLA_FLAGS"] == "--xla_backend_optimization_level=2"
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "jax._src.xla_bridge")
        compile_soon()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags == [*AT_ONCE.split(), "--xla_backend_optimization_level=2"]  # of several the last one holds
    assert "--xla_cpu_use_fusion_emitters=false" in flags


def test_xla_reads_every_flag():
    """It reads up to the first word that is none, and ends the process at a flag that it does not know."""
    for unheard in "", "--xla_unheard_of=1":
        environment = os.environ | {"XLA_FLAGS": f"{SINGLE_THREADED} {AT_ONCE} {unheard}"}
        command = [sys.executable, "-c", "import jax; jax.devices()"]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (ended.returncode == 0) == (unheard == ""), ended.stderr
        assert unheard in ended.stderr


def test_without_a_home_programs_are_compiled_anew(tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)

    def nobody(name):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", lambda: nobody("home"))
    assert "meta_icl" in str(cache_folder())  # among temporary files
    environment: dict[str, str] = {}
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")  # cannot be made
    use_compilation_cache(environment)
    assert environment == {}


def test_a_platform_that_is_not_here_is_one_line(monkeypatch):
    assert backend_problem() is None
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")

    def missing():
        raise AssertionError

    monkeypatch.setattr(jax, "default_backend", missing)
    assert "JAX_PLATFORMS is 'cuda', and jax finds no such device" in backend_problem()
