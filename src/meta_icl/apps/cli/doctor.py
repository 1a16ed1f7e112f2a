"""`meta-icl doctor`: what this installation computes on, and what it could have besides."""

import importlib.metadata
import importlib.util
import os
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meta_icl.apps.cli import tables
from meta_icl.apps.cli.options import parse, print_json
from meta_icl.apps.report.facts import devices
from meta_icl.runs import default_root, provenance
from meta_icl.runs.provenance import code, versions
from meta_icl.sweeps import cache_folder, default_workers, use_compilation_cache

EXAMPLES = ("", "--json")
PACKAGES = ("jax", "jaxlib", "equinox", "optax", "diffrax", "numpy", "scipy", "scikit-learn", "duckdb", "safetensors")
EXTRAS = {  # extra -> what it adds, and the module that shows whether it is there
    "lm": ("texts as prompts of language models, and .gguf files", ("tokenizers", "gguf")),
    "torch": (
        "models of PyTorch as predictors, and other architectures of the Hugging Face library",
        ("torch", "transformers", "datasets"),
    ),
    "cluster": ("sweeps on Dask and on batch systems", ("dask", "distributed", "dask_jobqueue")),
    "dashboard": ("`meta-icl dashboard`, in the browser", ("panel", "panel_material_ui")),
    "trackers": ("rows of runs in TensorBoard, W&B, MLflow", ("tensorboardX", "wandb", "mlflow")),
    "docs": ("build the documentation", ("sphinx", "myst_nb", "furo")),
    "notebooks": ("execute and render the notebooks", ("jupytext", "nbclient", "nbconvert")),
    "dev": ("tests, linters and the type checker", ("pytest", "hypothesis", "beartype", "importlinter")),
}


@dataclass(frozen=True)
class Options:
    """Check the installation: versions, devices, a first compiled program, caches, optional extras."""

    json: bool = False
    """Print JSON for machines."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Options, arguments, command="doctor", examples=EXAMPLES)
    told = examine()
    if options.json:
        print_json(told)
        return 0
    rows = [("code", _words(told["code"])), ("versions", _words(told["versions"]))]
    rows += [("devices", devices(told["devices"])), ("workers", told["workers"])]
    rows += [("first program", f"{told['first_program_seconds']:.2f} s"), ("precision", told["precision"])]
    rows += [("compilation cache", f"{told['cache']['folder']}, {told['cache']['megabytes']:.1f} MB")]
    rows += [("runs", told["runs"])]
    for name, extra in told["extras"].items():
        state = "installed" if extra["installed"] else f"missing: {extra['install']}"
        rows.append((f"extra {name}", f"{extra['adds']} ({state})"))
    tables.show(tables.plain_table(("", ""), rows, title="meta-icl doctor"))
    return 0


def examine() -> dict:
    """Everything the command tells."""
    use_compilation_cache()
    import jax

    began = time.perf_counter()
    jax.jit(lambda x: x @ x)(jax.numpy.ones((8, 8))).block_until_ready()
    single = jax.numpy.result_type(float) == "float32"
    cache = cache_folder()
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) if cache.exists() else 0
    return {
        "code": code(),
        "versions": versions(PACKAGES),
        "devices": provenance.devices(),
        "workers": default_workers(),
        "first_program_seconds": time.perf_counter() - began,
        "precision": "float32 (JAX_ENABLE_X64=1 for float64)" if single else "float64",
        "cache": {"folder": str(cache), "megabytes": size / 1e6},
        "runs": str(Path(os.path.abspath(default_root()))),
        "extras": {
            name: {
                "adds": adds,
                "installed": all(importlib.util.find_spec(module) for module in modules),
                "install": how_to_install(name),
            }
            for name, (adds, modules) in EXTRAS.items()
        },
    }


def how_to_install(extra: str) -> str:
    """The command that adds an extra to this installation, from where this installation came.

    In a checkout that is the folder itself; elsewhere the requirements are named, since the package may stand in no
    index.
    """
    checkout = Path(__file__).resolve().parents[4]
    if (checkout / "pyproject.toml").is_file() and (checkout / "src" / "meta_icl").is_dir():
        return f"pip install -e {shlex.quote(f'{checkout}[{extra}]')}"
    try:
        needed = importlib.metadata.requires("meta-icl") or []
    except importlib.metadata.PackageNotFoundError:
        needed = []
    split = [text.partition(";") for text in needed]
    of_extra = [name.strip() for name, _, marker in split if re.search(rf"extra == ['\"]{extra}['\"]", marker)]
    return f"pip install {shlex.join(of_extra)}" if of_extra else f"the extra {extra}, from where this came"


def _words(values: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
