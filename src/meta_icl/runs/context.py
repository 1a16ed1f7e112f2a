"""What the bits of a training depend on beside its configuration; a checkpoint carries it."""

import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import meta_icl
from meta_icl.errors import BadInput
from meta_icl.runs.provenance import versions

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"  # a flag of XLA
PACKAGES = ("jax", "jaxlib", "numpy")
# What is read from jax, and the environment variable that sets it.
SETTINGS = {
    "jax_default_prng_impl": "JAX_DEFAULT_PRNG_IMPL",
    "jax_threefry_partitionable": "JAX_THREEFRY_PARTITIONABLE",
    "jax_enable_x64": "JAX_ENABLE_X64",
    "jax_default_matmul_precision": "JAX_DEFAULT_MATMUL_PRECISION",
}


def context() -> dict[str, Any]:
    """Generator, precision, device, threads, flags of XLA and versions; what is of jax only where it is imported."""
    found: dict[str, Any] = dict(_versions())
    jax = sys.modules.get("jax")
    if jax is not None and hasattr(jax, "config"):
        found |= {name: getattr(jax.config, name) for name in SETTINGS}
        flags = {flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith("--xla_dump")}
        device = jax.devices()[0]
        found |= {"XLA_FLAGS": " ".join(sorted(flags)), "platform": device.platform, "device": device.device_kind}
        if device.platform == "cpu":
            found["CPU threads"] = 1 if ONE_THREAD in flags else available_cores()
    return found


@functools.cache
def _versions() -> dict[str, str]:
    """The versions on which bits may depend, looked up once: half a dozen files of metadata are read for them."""
    found = {f"version of {name}": version for name, version in versions(PACKAGES).items() if name != "python"}
    return {**found, "version of meta_icl": meta_icl.__version__}


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_same_context(stated: Mapping[str, Any], checkpoint: Path) -> None:
    """`BadInput` that names the first thing in which this process differs from that of a checkpoint, and what to do.

    What one of the two does not state is not compared: a process that has not imported jax computes nothing with it.
    """
    here = context()
    for name in stated.keys() & here.keys():
        if stated[name] != here[name]:
            again = f"or remove {checkpoint.parent} to start again"
            raise BadInput(
                f"{checkpoint} was made with {name} = {stated[name]!r}, here it is {here[name]!r}, which would change "
                f"the result: {_remedy(name, stated[name])}, {again}"
            )


def _remedy(name: str, value: Any) -> str:
    if name.startswith("version of "):
        return f"install {name.removeprefix('version of ')} {value}"
    if name in ("device", "CPU threads"):
        return f"use {value} {'threads' if name == 'CPU threads' else ''}".rstrip()
    variable = {"platform": "JAX_PLATFORMS"}.get(name, SETTINGS.get(name, name))
    return f"set {variable}={value!r}" if value is not None else f"unset {variable}"
