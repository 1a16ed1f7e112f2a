"""The image encoder against numpy float64, pixel by pixel."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.models import ImageEncoder


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
    network = eqx.filter_jit(config)(config.d_out, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    network = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape) if leaf.ndim == 2 else leaf, network)
    images = rng.normal(size=(2, config.side**2))
    found = eqx.filter_jit(network)(jnp.asarray(images))
    assert found.shape == (2, config.d_out)
    expected = [encoded(network, image.reshape(config.side, config.side)) for image in images]
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_bad_sizes_are_refused():
    with pytest.raises(BadInput, match=r"^channels must be multiples of 4"):
        ImageEncoder(8, (6,), bottleneck=True)
    with pytest.raises(BadInput, match=r"^channels must be such that the last is d_model = 5"):
        ImageEncoder(8, (6,))(5, key=jax.random.key(0))
