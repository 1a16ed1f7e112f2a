"""The claims of Chan et al. on planted accuracies: what they confirm, what they refute, and what they leave open."""

import numpy as np
import pytest

from meta_icl.papers.chan2022_data_properties import PRESETS
from meta_icl.papers.chan2022_data_properties.claims import LONG, judged
from meta_icl.papers.chan2022_data_properties.config import SETTINGS
from meta_icl.papers.chan2022_data_properties.experiments import describe, turned, world


def planted(ic, iw, train=0.9, common=None, past=None):
    """One seed whose accuracies stand still, but for the IC accuracy of the `past`."""
    course = np.full(9, float(ic)) if past is None else np.r_[np.full(5, past), np.full(4, ic)]
    return [{"step": np.arange(9.0), "train": np.full(9, train), "ic": course, "ic_published": course,
             "iw": np.full(9, iw), "iw_common": np.full(9, iw if common is None else common)}]  # fmt: skip


def as_published():
    out = {
        "glyphs": planted(0.9, 0.1), "glyphs p_bursty=0.0": planted(0.51, 0.9),
        "glyphs p_bursty=0.5": planted(0.7, 0.5), "glyphs p_bursty=1.0": planted(0.95, 0.05),
        "glyphs n_classes=100": planted(0.6, 0.95), "glyphs n_classes=12800": planted(0.99, 0.02),
        "glyphs polysemy=10": planted(0.98, 0.0), "glyphs drawings=one": planted(0.55, 0.9),
        "glyphs drawings=noise": planted(0.7, 0.5), "glyphs zipf=1.0": planted(0.85, 0.5, common=0.9),
        "glyphs zipf=2.0": planted(0.55, 0.9, common=0.98), "glyphs lstm": planted(0.5, 0.8),
    }  # fmt: skip
    return out | {name.replace("glyphs", "gaussian"): seeds for name, seeds in out.items() if "lstm" not in name}


def verdicts(found, **changes):
    sizes = {"steps": 1_000, "n_eval": 1_024} | changes
    return {claim.id.removeprefix("chan2022/C"): claim.verdict for claim in judged(found, **sizes)}


def test_published_accuracies_confirm_and_reversed_ones_refute():
    found = as_published()
    assert verdicts(found) == {str(i): "holds" for i in range(1, 10)} | {"8": "not decided"}
    assert verdicts(found, steps=LONG)["8"] == "fails"
    assert verdicts(found | {"glyphs zipf=1.5": planted(0.6, 0.9, past=0.9)})["8"] == "holds"
    swapped = {name: [seed | {"ic": 1.5 - seed["ic"]}] for name, (seed,) in found.items()}
    swapped["glyphs zipf=2.0"] = planted(0.95, 0.9)
    assert set(verdicts(swapped, steps=LONG).values()) == {"fails"}


def test_a_sweep_is_judged_around_the_base_where_more_of_it_is_trained():
    found = {"glyphs": planted(0.5, 0.9), "glyphs n_classes=12800": planted(0.9, 0.1)}
    found |= {f"glyphs n_classes=12800 drawings={d}": planted(ic, 0.5) for d, ic in (("one", 0.5), ("noise", 0.7))}
    assert verdicts(found)["5"] == "holds"
    assert verdicts(found | {"glyphs n_classes=12800": planted(0.6, 0.1)})["5"] == "fails"
    assert verdicts(found)["3"] == "holds" and verdicts(found)["6"] == "not decided"


def test_the_recurrent_network_that_has_learned_decides():
    few = {"glyphs n_classes=400 lstm": planted(0.5, 0.8)}
    assert verdicts(few)["7"] == verdicts(few | {"glyphs lstm": planted(0.9, 0.1)})["7"] == "holds"
    assert verdicts({"glyphs lstm": planted(0.5, 0.1)})["7"] == "not decided"


@pytest.mark.parametrize("train", [0.0, 0.5, np.nan])
def test_networks_that_have_learned_nothing_decide_nothing(train):
    found = {name: planted(0.5, 0.0, train) for name in SETTINGS}
    assert set(verdicts(found).values()) == {"not decided"}
    assert set(verdicts({}).values()) == {"not decided"}


def test_every_preset_describes_its_settings():
    for config in PRESETS.values():
        for name in config.settings:
            setting = SETTINGS[name]
            network = describe(setting, config).network
            assert network.embedding.n_labels == network.readout.d_out == setting.n_classes * setting.polysemy


def test_worlds():
    task, held_out = world(SETTINGS["gaussian drawings=noise"], 8, 3)
    assert task.images.shape == (1_600, 1, 64) and held_out.shape == (10, 1, 64)
    assert abs(float(task.noise) - 0.3) < 1e-6
    everyone = world(SETTINGS["gaussian"], 8, 3)[0].images
    np.testing.assert_array_equal(everyone[:, :1], task.images)
    shared = np.asarray(everyone).mean(1).var()  # of a class's mean: .7 + .3 / 20
    assert abs(shared - 0.715) < 0.02 and abs(np.asarray(everyone).var() - 1) < 0.02
    drawings = np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    every = turned(drawings)
    assert every.shape == (16, 3, 4, 4) and len({image.tobytes() for image in every[:, 0]}) == 16
    for image in every[:8]:  # the eight of one class stand next to each other
        assert set(image.ravel()) == set(drawings[0].ravel())
