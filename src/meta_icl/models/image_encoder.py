"""A small residual network that turns every image into a vector (He et al., 2016; sizes of Chan et al., 2022).

Images are normalised one by one (over pixels and channels, with a scale and a bias per channel), where the original has
batch statistics: a prompt must be answered alike whatever stands beside it in a batch.
"""

import math
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from meta_icl import draws
from meta_icl.errors import require


@dataclass(frozen=True)
class ImageEncoder:
    """Describes a residual network for flat square images; called with a key it draws the weights.

    A first convolution, 3 x 3 or, with `large_stem`, 7 x 7 at stride 2 to 64 channels and max-pooling 3 x 3 at stride
    2, is followed by one group of `blocks` residual blocks per entry of `channels`, every group but the first at stride
    2. A block is relu(shortcut + branch); the branch has two 3 x 3 convolutions or, with `bottleneck`, 1 x 1, 3 x 3,
    1 x 1 of which the first two have a quarter of the channels. The first shortcut of a group is a 1 x 1 convolution.
    The mean over pixels is the answer, `channels[-1]` numbers. Convolutions have no bias and variance 2 / fan-in.
    Sizes of the paper: side 105, channels (16, 32, 32, 64), 2 blocks, `large_stem` and `bottleneck`.
    """

    side: int
    channels: tuple[int, ...] = (16, 32, 32, 64)
    blocks: int = 2
    large_stem: bool = False
    bottleneck: bool = False

    def __post_init__(self):
        require(self.side >= 1, "side", self.side, "a positive integer")
        require(self.blocks >= 1, "blocks", self.blocks, "a positive integer")
        wide = len(self.channels) > 0 and all(width >= 1 for width in self.channels)
        require(wide, "channels", self.channels, "one positive integer per group")
        quartered = not self.bottleneck or all(width % 4 == 0 for width in self.channels)
        require(quartered, "channels", self.channels, "multiples of 4, for bottlenecks")

    @property
    def d_in(self) -> int:
        """Pixels of an image."""
        return self.side**2

    @property
    def d_out(self) -> int:
        """Numbers that stand for an image."""
        return self.channels[-1]

    def __call__(self, d_model: int, *, key: Key[Array, ""]) -> "ImageEncoderNetwork":
        require(self.d_out == d_model, "channels", self.channels, f"such that the last is d_model = {d_model}")
        return ImageEncoderNetwork(self, key=key)


class Convolution(eqx.Module):
    """A convolution without bias, padded so that n pixels give ceil(n / stride); then the normalisation of an image."""

    weight: Float[Array, "kh kw c_in c_out"]
    norm: Float[Array, "2 c_out"]  # scale, bias
    stride: int = eqx.field(static=True)

    def __init__(self, size: int, c_in: int, c_out: int, stride: int, *, key: Key[Array, ""]):
        self.weight = math.sqrt(2 / (size * size * c_in)) * draws.normal(key, (size, size, c_in, c_out))
        self.norm = jnp.stack([jnp.ones(c_out), jnp.zeros(c_out)])
        self.stride = stride

    def __call__(self, images: Float[Array, "n h w c_in"]) -> Float[Array, "n h2 w2 c_out"]:
        size, c_out = self.weight.shape[0], self.weight.shape[-1]
        n, h, w, _ = images.shape
        (high, h2), (wide, w2) = (_padding(length, size, self.stride) for length in (h, w))
        padded = jnp.pad(images, ((0, 0), high, wide, (0, 0)))
        # All pixels under the kernel side by side, then one product: a step of training takes 70 ms on a CPU core (288
        # images of 12 x 12, channels 8, 16, 32), and 450 with XLA's convolution and its gradient.
        shifted = [
            padded[
                :, i : i + self.stride * (h2 - 1) + 1 : self.stride, j : j + self.stride * (w2 - 1) + 1 : self.stride
            ]
            for i in range(size)
            for j in range(size)
        ]
        patches = jnp.concatenate(shifted, axis=-1).reshape(n * h2 * w2, -1)
        out = (patches @ self.weight.reshape(-1, c_out)).reshape(n, h2, w2, c_out)
        centred = out - out.mean((1, 2, 3), keepdims=True)
        scaled = centred * lax.rsqrt(jnp.square(centred).mean((1, 2, 3), keepdims=True) + 1e-5)
        return scaled * self.norm[:1, None, None] + self.norm[1:, None, None]


class ResidualBlock(eqx.Module):
    """relu(shortcut(x) + branch(x)), with a ReLU between the convolutions of the branch."""

    branch: tuple[Convolution, ...]
    shortcut: Convolution | None

    def __init__(self, c_in: int, c_out: int, stride: int, bottleneck: bool, first: bool, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 4)
        if bottleneck:
            inner = c_out // 4
            sizes = ((1, c_in, inner, 1), (3, inner, inner, stride), (1, inner, c_out, 1))
        else:
            sizes = ((3, c_in, c_out, stride), (3, c_out, c_out, 1))
        self.branch = tuple(Convolution(*size, key=k) for size, k in zip(sizes, keys, strict=False))
        self.shortcut = Convolution(1, c_in, c_out, stride, key=keys[3]) if first else None

    def __call__(self, x: Float[Array, "n h w c_in"]) -> Float[Array, "n h2 w2 c_out"]:
        out = x
        for convolution in self.branch[:-1]:
            out = jax.nn.relu(convolution(out))
        out = self.branch[-1](out)
        return jax.nn.relu(out + (x if self.shortcut is None else self.shortcut(x)))


class ImageEncoderNetwork(eqx.Module):
    """The weights of an `ImageEncoder`: a map from flat images "n side*side" to vectors "n d_out"."""

    stem: Convolution
    blocks: tuple[ResidualBlock, ...]
    config: ImageEncoder = eqx.field(static=True)

    def __init__(self, config: ImageEncoder, *, key: Key[Array, ""]):
        c = config
        width = 64 if c.large_stem else c.channels[0]
        stem_key, *keys = jax.random.split(key, 1 + c.blocks * len(c.channels))
        self.stem = Convolution(7 if c.large_stem else 3, 1, width, 2 if c.large_stem else 1, key=stem_key)
        blocks = []
        for group, channels in enumerate(c.channels):
            for index in range(c.blocks):
                stride = 2 if group > 0 and index == 0 else 1
                block_key = keys[len(blocks)]
                blocks.append(ResidualBlock(width, channels, stride, c.bottleneck, index == 0, key=block_key))
                width = channels
        self.blocks = tuple(blocks)
        self.config = c

    def __call__(self, images: Float[Array, "n pixels"]) -> Float[Array, "n d_out"]:
        side = self.config.side
        out = jax.nn.relu(self.stem(images.reshape(-1, side, side, 1)))
        if self.config.large_stem:
            out = lax.reduce_window(out, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
        for block in self.blocks:
            out = block(out)
        return out.mean((1, 2))


def _padding(length: int, size: int, stride: int) -> tuple[tuple[int, int], int]:
    """Zeros before and behind an axis so that ceil(length / stride) pixels come out, and that number."""
    out = -(-length // stride)
    missing = max((out - 1) * stride + size - length, 0)
    return (missing // 2, missing - missing // 2), out
