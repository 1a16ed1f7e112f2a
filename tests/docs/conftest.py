"""The site, built once for all that look at it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the site, built without a warning."""
    pytest.importorskip("myst_nb")
    pytest.importorskip("furo")
    built = tmp_path_factory.mktemp("site") / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(built.parent / "read"), "docs"]
    done = subprocess.run([*command, str(built)], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return built
