"""The environment in which jax computes well: a persistent compilation cache, one thread per worker on CPU."""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from meta_icl.data.cache import user_cache
from meta_icl.errors import require
from meta_icl.runs.context import ONE_THREAD, SETTINGS, available_cores

ACCELERATORS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm60_plugin", "jax_rocm7_plugin", "libtpu")


def known(*flags: str) -> str:
    """Flags of XLA, if this jaxlib is a version they were tried with: at one that it does not know, XLA aborts."""
    return " ".join(flags) if version("jaxlib").startswith("0.10.") else ""


# One thread computes, and one compiles: split over threads that there are not, modules only cost (a tenth of the time).
ONE_MODULE = known("--xla_cpu_parallel_codegen_split_count=1")
SINGLE_THREADED = f"{ONE_THREAD} {ONE_MODULE}".strip()
# The way to the fastest programs is long. Loops written in LLVM's language, not by way of MLIR (a context and a
# pipeline for every loop), take two thirds of the time; at LLVM's lowest level, too, an eighth to a twelfth.
SOON = f"{known('--xla_cpu_use_fusion_emitters=false')} {ONE_MODULE}".strip()
AT_ONCE = f"{known('--xla_backend_optimization_level=0')} {SOON}".strip()


def cache_folder() -> Path:
    """Where compiled programs are kept between processes: JAX_COMPILATION_CACHE_DIR, else under the user's cache."""
    return Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or user_cache() / "jax")


def use_compilation_cache(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keep every compiled program, unless the user set it otherwise or it cannot be kept; before jax is imported."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # no home that can be written: compiled again by every process
        return
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
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


def worker_environment(function: Callable[..., Any]) -> dict[str, str]:
    """The environment of a worker that computes a function: this process's import path, numbers and one CPU thread.

    The current folder is left out of the path unless the function stands in it, and then comes last: no file in it is
    ever taken for a module of a library.
    """
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(import_path(function))
    use_compilation_cache(environment)
    jax = sys.modules.get("jax")
    if jax is not None and hasattr(jax, "config"):
        values = {variable: getattr(jax.config, name) for name, variable in SETTINGS.items()}
        environment |= {variable: str(value) for variable, value in values.items() if value is not None}
    if on_cpu():
        environment |= single_threaded(environment)
    return environment


def import_path(function: Callable[..., Any]) -> list[str]:
    """The folders from which a worker imports."""
    paths = [str(Path(path).resolve()) for path in sys.path]
    here = os.getcwd()
    roots = {_root_of(function.__module__), _root_of(__name__)}
    return [path for path in paths if path != here] + ([here] if here in paths and here in roots else [])


def compute_like_a_worker() -> bool:
    """Have jax compute with the threads of a worker in this process, on which bits depend; false if it is too late."""
    if not on_cpu() or set(SINGLE_THREADED.split()) <= set(os.environ.get("XLA_FLAGS", "").split()):
        return True
    if _jax_has_begun():
        return False
    os.environ.update(single_threaded(os.environ))
    return True


def compile_soon(flags: str = AT_ONCE) -> None:
    """Have jax make programs soon rather than fast, where small ones run for moments; unless it has begun.

    A probe of a small network takes 11 s of CPU time `AT_ONCE`, 30 otherwise; short trainings want `SOON`, long ones
    neither. Flags that the user set are kept, and win.
    """
    if on_cpu() and not _jax_has_begun():
        os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}".strip()


def _jax_has_begun() -> bool:
    """Whether jax has read its flags."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()


def worker_threads() -> AbstractContextManager[Any]:
    """While active, numpy too computes with the threads of a worker."""
    return threadpool_limits(1) if on_cpu() else nullcontext()


def single_threaded(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that have libraries compute with one thread on CPU."""
    given = environment.get("XLA_FLAGS", "").split()
    flags = [*given, *(flag for flag in SINGLE_THREADED.split() if flag not in given)]
    return {"XLA_FLAGS": " ".join(flags), **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}}


def backend_problem() -> str | None:
    """In one line that jax finds no device of the platform that was asked for, if that is so in this process."""
    asked, jax = os.environ.get("JAX_PLATFORMS"), sys.modules.get("jax")
    if not asked or jax is None or not hasattr(jax, "default_backend"):
        return None
    try:
        jax.default_backend()
    except Exception:  # whatever it raises, of which there are several kinds, an AssertionError among them
        return f"JAX_PLATFORMS is {asked!r}, and jax finds no such device here; unset it, or set it to 'cpu'"
    return None


def _root_of(module: str) -> str:
    """The folder from which a module's top-level package was imported."""
    top = sys.modules[module.partition(".")[0]]
    places = list(getattr(top, "__path__", [])) or [top.__file__ or ""]
    return str(Path(places[0]).resolve().parent)
