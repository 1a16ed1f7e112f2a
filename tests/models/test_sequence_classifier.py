"""The image encoder against numpy float64; the classifier of items and labels: lean, causal, blind to targets."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meta_icl.models.decoder_names import to_names

from meta_icl.errors import BadInput
from meta_icl.models import (
    AffineEncoder,
    Decoder,
    ImageEncoder,
    LabelLayout,
    Learner,
    Lstm,
    SequenceClassifier,
)
from meta_icl.prompt import Prompt

N, LABELS, D = 3, 6, 8


def convolved(image, convolution):
    """One pixel after the other; then the normalisation of the whole image."""
    weight, (scale, bias) = np.asarray(convolution.weight), np.asarray(convolution.norm)
    size, stride = weight.shape[0], convolution.stride
    h = -(-image.shape[0] // stride)
    before = max((h - 1) * stride + size - image.shape[0], 0) // 2
    padded = np.pad(image, ((before, 2 * size), (before, 2 * size), (0, 0)))
    out = np.zeros((h, h, weight.shape[-1]))
    for i in range(h):
        for j in range(h):
            window = padded[i * stride : i * stride + size, j * stride : j * stride + size]
            out[i, j] = np.tensordot(window, weight, 3)
    return (out - out.mean()) / np.sqrt(out.var() + 1e-5) * scale + bias


def encoded(network, image):
    """One image through the whole network."""
    h = np.maximum(convolved(image[..., None], network.stem), 0)
    if network.config.large_stem:
        padded = np.pad(h, ((0, 3), (0, 3), (0, 0)), constant_values=-np.inf)
        if h.shape[0] % 2:  # an odd side has a row of padding on each side, an even one has it behind
            padded = np.pad(padded, ((1, 0), (1, 0), (0, 0)), constant_values=-np.inf)
        half = -(-h.shape[0] // 2)
        h = np.array([[padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1)) for j in range(half)]
                      for i in range(half)])  # fmt: skip
    for block in network.blocks:
        out = h
        for i, convolution in enumerate(block.branch):
            out = convolved(out if i == 0 else np.maximum(out, 0), convolution)
        h = np.maximum(out + (h if block.shortcut is None else convolved(h, block.shortcut)), 0)
    return h.mean((0, 1))


@pytest.mark.parametrize(
    "config",
    [
        ImageEncoder(6, (4, 6), blocks=1),
        pytest.param(ImageEncoder(13, (8, 4), 2, large_stem=True, bottleneck=True), marks=pytest.mark.slow),
    ],
)
def test_encoder_against_numpy(config, x64):
    network = eqx.filter_jit(config)(key=jax.random.key(0))
    rng = np.random.default_rng(0)
    network = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape) if leaf.ndim == 2 else leaf, network)
    images = rng.normal(size=(2, config.side**2))
    found = eqx.filter_jit(network)(jnp.asarray(images))
    assert found.shape == (2, config.d_out)
    expected = [encoded(network, image.reshape(config.side, config.side)) for image in images]
    np.testing.assert_allclose(found, expected, atol=1e-10)


BODIES = {
    "decoder": Decoder(D, 2, 2, 2 * N + 1, d_out=LABELS, init_std=0.4, embedded=True),
    "lstm": Lstm(D, 5, 2, d_out=LABELS),
}


def prompts(dx, n=4):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(n, N + 1, dx)), jnp.result_type(float))
    return Prompt(x, jnp.asarray(rng.integers(0, LABELS, (n, N + 1))))


ALWAYS = [pytest.param(body, marks=[] if body == "decoder" else pytest.mark.slow) for body in BODIES]


@pytest.mark.parametrize("body", ALWAYS)
def test_lean_is_full_and_rows_stand_in_turn(body, x64):
    """Every row that the body reads, by hand; then the query's answer by both forms."""
    model = SequenceClassifier(AffineEncoder(3, D), BODIES[body], label_std=0.5)
    learner = Learner(model, LabelLayout())(key=jax.random.key(0))
    batch, network = prompts(3), learner.network
    places = np.arange(2 * N + 1)[:, None] / 30 ** (np.arange(0, D, 2) / D)
    rows = np.zeros((2 * N + 1, D))
    rows[::2] = np.asarray(batch.x[0] @ network.encoder.weight)
    rows[1::2] = np.asarray(network.labels)[np.asarray(batch.y[0, :-1])]
    rows += np.concatenate([np.sin(places), np.cos(places)], -1)
    one = jax.tree.map(lambda leaf: leaf[0], batch)
    np.testing.assert_allclose(network.embedded(learner.layout.encode(one)), rows, atol=1e-12)

    lean, full = eqx.filter_jit(lambda learner: (learner.batched(batch), jax.vmap(learner)(batch)))(learner)
    assert lean.shape == (4, LABELS) and np.ptp(lean) > 0.01
    np.testing.assert_allclose(lean, full, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("body", BODIES)
def test_lean_and_full_have_equal_gradients(body, x64):
    learner = Learner(SequenceClassifier(AffineEncoder(3, D), BODIES[body], label_std=0.5), LabelLayout())(
        key=jax.random.key(0)
    )
    batch = prompts(3)

    @eqx.filter_jit
    @eqx.filter_grad
    def difference(learner):
        return jnp.sum(jnp.sin(learner.batched(batch)) - jnp.sin(jax.vmap(learner)(batch)))

    gradient = difference(learner)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) < 1e-10


@pytest.mark.parametrize("body", ALWAYS)
def test_the_querys_label_is_not_read_and_the_past_does_not_see_the_future(body):
    encoder = AffineEncoder(16, D) if body == "decoder" else ImageEncoder(4, (4, D), 1)
    learner = Learner(SequenceClassifier(encoder, BODIES[body], label_std=0.5), LabelLayout())(key=jax.random.key(0))
    batched = eqx.filter_jit(learner.batched)
    batch = prompts(16)
    other = eqx.tree_at(lambda p: p.y, batch, batch.y.at[:, -1].set((batch.y[:, -1] + 1) % LABELS))
    answers = batched(batch)
    np.testing.assert_array_equal(batched(other), answers)  # although nothing was hidden
    context = eqx.tree_at(lambda p: p.y, batch, batch.y.at[:, -2].set((batch.y[:, -2] + 1) % LABELS))
    assert np.abs(np.asarray(batched(context) - answers)).max(1).min() > 1e-4
    logits = eqx.filter_jit(jax.vmap(lambda prompt: learner.network(learner.layout.encode(prompt))[0]))
    before, after = logits(batch), logits(context)
    np.testing.assert_array_equal(before[:, : 2 * N - 1], after[:, : 2 * N - 1])
    assert before.shape == (4, 2 * N + 1, LABELS)


def test_bad_descriptions_are_refused():
    decoder, encoder = BODIES["decoder"], AffineEncoder(3, D)
    with pytest.raises(BadInput, match="encoder"):
        SequenceClassifier(AffineEncoder(3, D + 2), decoder)
    with pytest.raises(BadInput, match="body"):
        SequenceClassifier(encoder, Decoder(D, 1, 1, 9, d_in=3, d_out=LABELS))
    with pytest.raises(BadInput, match="body"):
        SequenceClassifier(encoder, Lstm(D, 5, 1, bidirectional=True, d_out=LABELS))
    with pytest.raises(BadInput, match="d_in"):
        Decoder(D, 1, 1, 9, d_in=3, embedded=True)
    with pytest.raises(BadInput, match="channels"):
        ImageEncoder(8, (6,), bottleneck=True)
    with pytest.raises(BadInput, match="embedded"):
        to_names(eqx.filter_eval_shape(decoder, key=jax.random.key(0)))
