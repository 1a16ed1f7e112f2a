"""The environment in which jax computes well: a persistent compilation cache, one thread per worker on CPU."""

import importlib.util
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

from meta_icl.errors import require

SINGLE_THREADED = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
ACCELERATORS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm60_plugin", "jax_rocm7_plugin", "libtpu")


def cache_folder() -> Path:
    """Where compiled programs are kept between processes: JAX_COMPILATION_CACHE_DIR, else under the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or Path(home) / "meta_icl" / "jax")


def use_compilation_cache(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keep every compiled program, unless the user set it otherwise; call it before jax is imported."""
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder()))
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def on_cpu() -> bool:
    """Whether jax will compute on the CPU, judged without importing it."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    return not any(importlib.util.find_spec(plugin) for plugin in ACCELERATORS)


def default_workers() -> int:
    """Worker processes to use: META_ICL_WORKERS if set, else one per core, or on an accelerator none (one fills it)."""
    wanted = os.environ.get("META_ICL_WORKERS")
    if wanted is not None:
        require(wanted.isdecimal(), "META_ICL_WORKERS", wanted, "zero or a positive integer")
        return int(wanted)
    return available_cores() if on_cpu() else 0


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_environment() -> dict[str, str]:
    """The environment of a worker: this process's import path and precision, single-threaded on CPU."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(path).resolve()) for path in sys.path)
    use_compilation_cache(environment)
    jax = sys.modules.get("jax")
    if jax is not None and hasattr(jax, "config") and jax.config.jax_enable_x64:
        environment["JAX_ENABLE_X64"] = "1"
    if on_cpu():
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {SINGLE_THREADED}".strip()
        for library in ("OMP", "OPENBLAS", "MKL"):
            environment[f"{library}_NUM_THREADS"] = "1"
    return environment
