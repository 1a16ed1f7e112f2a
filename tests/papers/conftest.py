"""What tests of several papers need: verdicts by id, and a run in which parts are planted."""

import pytest

from meta_icl.runs import Run


@pytest.fixture
def verdicts():
    """claims -> {id without the paper's name: verdict}."""
    return lambda claims: {claim.id.split("/")[1]: claim.verdict for claim in claims}


@pytest.fixture
def run(tmp_path):
    """An empty run, in the place of one whose parts are planted."""
    with Run.open(tmp_path / "run", {}) as opened:
        yield opened
