"""The rooms import only what the design allows, and `import meta_icl` costs next to nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

import meta_icl

ROOT = Path(__file__).parents[1]


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_meta_icl_is_light():
    heavy = {"torch", "dask", "panel", "wandb", "matplotlib", "plotly", "jax", "numpy"}
    assert not modules_after("import meta_icl") & heavy


@pytest.mark.parametrize("room", ["data", "runs", "sweeps", "plotting", "apps.report", "lm.exports", "lm.prompts"])
def test_rooms_without_science_load_no_jax(room):
    assert not modules_after(f"import meta_icl.{room}") & {"jax", "torch", "matplotlib", "panel", "wandb"}


def test_the_science_loads_no_optional_library():
    loaded = modules_after("import meta_icl\nfor name in meta_icl.__all__: getattr(meta_icl, name)")
    assert "jax" in loaded
    assert not loaded & {"torch", "transformers", "dask", "panel", "wandb", "matplotlib", "plotly"}


def test_every_public_name_is_there_and_listed():
    assert all(getattr(meta_icl, name) is not None for name in meta_icl.__all__)
    assert set(meta_icl.__all__) <= set(dir(meta_icl))
    with pytest.raises(AttributeError, match="no attribute 'LinearAtention'"):
        meta_icl.LinearAtention  # noqa: B018


def test_import_contracts():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
