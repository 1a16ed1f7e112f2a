"""Classification where labels can be learned in the weights or read in the context: Reddy (2023), Chan et al. (2022).

Burstiness: classes come several times in a context, and the query is one of them.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from meta_icl import draws
from meta_icl.conversions import number
from meta_icl.errors import choose, require
from meta_icl.prompt import BatchTask, PlacedPrompt, Prompt
from meta_icl.tasks.meta_classification import rank_law

EVALUATIONS = ("test", "ic", "ic2", "iw")


class BurstyGaussian(BatchTask):
    """Reddy's task: Gaussian items around class means, with labels k mod L fixed for every class k.

    With probability `p_bursty` the context holds N / repeats classes of distinct labels (a random set of labels, then
    any class of each), every one `repeats` times in random order, and the query is a uniformly chosen one of them; else
    all N + 1 classes are independent with probabilities ~ (k + 1)^-alpha. With probability `p_novel` the context is
    bursty and made of classes drawn anew, with labels 0, 1, .. of a random set. Items are
    (mu + eps eta) / sqrt(1 + eps^2), eta ~ N(0, I/d). `shift` adds to all labels of a prompt, the query's too.
    """

    means: Float[Array, "k d"]
    eps: Float[Array, ""] = eqx.field(converter=number, default=0.1)
    alpha: Float[Array, ""] = eqx.field(converter=number, default=0.0)
    p_bursty: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    p_novel: Float[Array, ""] = eqx.field(converter=number, default=0.0)
    n_labels: int = eqx.field(static=True, default=32)
    n_context: int = eqx.field(static=True, default=8)
    repeats: int = eqx.field(static=True, default=1)
    n_positions: int = eqx.field(static=True, default=65)
    shift: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        n, b, t = self.n_context, self.repeats, 2 * self.n_context + 1
        require(n >= 1, "n_context", n, "a positive integer")
        require(b >= 1 and n % b == 0, "repeats", b, f"a divisor of n_context = {n}")
        k = self.means.shape[-2]
        require(k % self.n_labels == 0, "n_labels", self.n_labels, f"a divisor of the number of classes {k}")
        require(n // b <= self.n_labels, "n_context", n, f"at most repeats times n_labels = {b * self.n_labels}")
        require(self.n_positions >= t, "n_positions", self.n_positions, f"at least 2 n_context + 1 = {t}")

    @eqx.filter_jit
    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> PlacedPrompt:
        k, d = self.means.shape
        labels, context, distinct = self.n_labels, self.n_context, self.n_context // self.repeats
        u_key, class_key, mean_key, noise_key = jax.random.split(key, 4)
        u = draws.uniform(u_key, (n, labels + 2 * context + 6))
        # The bursty part: distinct labels, a class of each, copies, shuffled; the query is one of the places.
        chosen = jax.lax.top_k(u[:, :labels], distinct)[1]
        member = jnp.minimum((u[:, labels : labels + distinct] * (k // labels)).astype(int), k // labels - 1)
        slots = jnp.repeat(jnp.arange(distinct)[None], self.repeats, axis=1)
        order = jnp.argsort(u[:, labels + context : labels + 2 * context], axis=1)
        slots = jnp.take_along_axis(jnp.broadcast_to(slots, (n, context)), order, axis=1)
        rest = u[:, labels + 2 * context :]
        asked = jnp.minimum((rest[:, :1] * context).astype(int), context - 1)
        slots = jnp.concatenate([slots, jnp.take_along_axis(slots, asked, axis=1)], axis=1)
        bursty_labels = jnp.take_along_axis(chosen, slots, axis=1)
        bursty = bursty_labels + labels * jnp.take_along_axis(member, slots, axis=1)
        # The other part: all classes independent.
        v = draws.uniform(class_key, (n, context + 1))
        law = jnp.cumsum(rank_law(k, self.alpha))
        single = jnp.minimum(jnp.searchsorted(law, v.reshape(-1), side="right").reshape(n, -1), k - 1)
        novel = rest[:, 1:2] < self.p_novel
        classes = jnp.where((rest[:, 2:3] < self.p_bursty) | novel, bursty, single)
        fresh = draws.normal(mean_key, (n, distinct, d), self.means.dtype) / jnp.sqrt(float(d))
        centres = jnp.where(novel[..., None], jnp.take_along_axis(fresh, slots[..., None], axis=1), self.means[classes])
        noise = draws.normal(noise_key, (n, context + 1, d), self.means.dtype) / jnp.sqrt(float(d))
        x = (centres + self.eps * noise) / jnp.sqrt(1 + jnp.square(self.eps))
        y = (classes + self.shift) % labels
        places = self.n_positions - 2 * context
        offset = jnp.minimum((rest[:, 3] * places).astype(int), places - 1)
        return PlacedPrompt(x, y, offset)

    def evaluation(self, name: str) -> "BurstyGaussian":
        """The law of an evaluation set.

        "test": as trained. "ic": novel classes, so that only the context helps. "ic2": known classes with every label
        shifted by one, the target too. "iw": no burstiness, so that only the weights help.
        """
        choose("evaluation", name, EVALUATIONS)
        one, zero = jnp.ones_like(self.p_bursty), jnp.zeros_like(self.p_bursty)
        p_bursty, p_novel = {
            "test": (self.p_bursty, self.p_novel), "ic": (one, one), "ic2": (one, zero), "iw": (zero, zero)
        }[name]  # fmt: skip
        return BurstyGaussian(
            self.means, self.eps, self.alpha, p_bursty, p_novel, self.n_labels, self.n_context, self.repeats,
            self.n_positions, 1 if name == "ic2" else self.shift,
        )  # fmt: skip


def bursty_gaussian(n_classes: int = 256, d: int = 63, *, key: Key[Array, ""], **fields: Any) -> BurstyGaussian:
    """Draw a world of class means with entries N(0, 1/d); `fields` are those of `BurstyGaussian`."""
    return BurstyGaussian(draws.normal(key, (n_classes, d)) / jnp.sqrt(float(d)), **fields)


class BurstyImages(BatchTask):
    """Chan's sequences over any set of images: 8 pairs and a query, labels fixed per class.

    With probability `p_bursty` two classes come 3 times each, two more items are independent, all in random order, and
    the query is one of the two; else all 9 are independent, by the law (rank + 1)^-zipf. `images` is
    "classes drawings dx" (flat); each use draws a drawing, to which `noise` times a standard normal is added. Every
    class owns `polysemy` labels, one of which holds within a prompt.
    """

    images: Float[Array, "classes drawings dx"]
    p_bursty: Float[Array, ""] = eqx.field(converter=number, default=0.9)
    zipf: Float[Array, ""] = eqx.field(converter=number, default=0.0)
    noise: Float[Array, ""] | None = None
    polysemy: int = eqx.field(static=True, default=1)

    @eqx.filter_jit
    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> Prompt:
        u_key, image_key = jax.random.split(key)
        k = self.images.shape[0]
        u = draws.uniform(u_key, (n, 9 + 8 + 3))
        law = jnp.cumsum(rank_law(k, self.zipf))
        single = jnp.minimum(jnp.searchsorted(law, u[:, :9].reshape(-1), side="right").reshape(n, 9), k - 1)
        first, second, fillers = single[:, 0], single[:, 1], single[:, 2:4]
        second = jnp.where(second == first, (first + 1) % k, second)
        shown = jnp.concatenate([jnp.repeat(first[:, None], 3, 1), jnp.repeat(second[:, None], 3, 1), fillers], axis=1)
        shown = jnp.take_along_axis(shown, jnp.argsort(u[:, 9:17], axis=1), axis=1)
        query = jnp.where(u[:, 17] < 0.5, first, second)[:, None]
        bursty = u[:, 18:19] < self.p_bursty
        classes = jnp.where(bursty, jnp.concatenate([shown, query], axis=1), single)
        which = jnp.minimum((u[:, 19:] * self.polysemy).astype(int), self.polysemy - 1)
        return Prompt(draw_images(self.images, classes, self.noise, image_key), classes * self.polysemy + which)


class FewShot(BatchTask):
    """Chan's in-context test: two held-out classes with the labels 0 and 1 at random, 4 times each, then one of them.

    The public code draws the two classes with replacement, which bounds the accuracy (.95 for 10 classes);
    `replacement=False` is the repaired form.
    """

    images: Float[Array, "classes drawings dx"]
    noise: Float[Array, ""] | None = None
    replacement: bool = eqx.field(static=True, default=False)

    @eqx.filter_jit
    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> Prompt:
        u_key, image_key = jax.random.split(key)
        k = self.images.shape[0]
        u = draws.uniform(u_key, (n, 8 + 3))
        first = jnp.minimum((u[:, 8] * k).astype(int), k - 1)
        others = k if self.replacement else k - 1
        step = jnp.minimum((u[:, 9] * others).astype(int), others - 1) + (0 if self.replacement else 1)
        both = jnp.stack([first, (first + step) % k], axis=1)
        labels = jnp.take_along_axis(
            jnp.broadcast_to(jnp.repeat(jnp.arange(2), 4)[None], (n, 8)), jnp.argsort(u[:, :8], axis=1), axis=1
        )
        labels = jnp.concatenate([labels, (u[:, 10:] < 0.5).astype(labels.dtype)], axis=1)
        classes = jnp.take_along_axis(both, labels, axis=1)
        return Prompt(draw_images(self.images, classes, self.noise, image_key), labels)


class NoSupport(BatchTask):
    """Chan's test of what is in the weights: the query's class does not stand in the context, all labels are true.

    The query comes from the law (rank + 1)^-zipf or, with `n_common`, uniformly from that many first classes; the 8
    items of the context come from the law without the query's class, with replacement. Labels as in `BurstyImages`.
    """

    images: Float[Array, "classes drawings dx"]
    zipf: Float[Array, ""] = eqx.field(converter=number, default=0.0)
    noise: Float[Array, ""] | None = None
    polysemy: int = eqx.field(static=True, default=1)
    n_common: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        k, common = self.images.shape[-3], self.n_common
        require(k >= 2, "classes", k, "at least 2")
        require(common is None or 1 <= common <= k, "n_common", common, f"from 1 to the {k} classes, or nothing")

    @eqx.filter_jit
    def sample_batch(self, n: int, *, key: Key[Array, ""]) -> Prompt:
        u_key, image_key = jax.random.split(key)
        k = self.images.shape[0]
        u = draws.uniform(u_key, (n, 8 + 2))
        law = rank_law(k, self.zipf)
        upper = jnp.cumsum(law)
        if self.n_common is None:
            query = jnp.minimum(jnp.searchsorted(upper, u[:, 8], side="right"), k - 1)
        else:
            query = jnp.minimum((u[:, 8] * self.n_common).astype(int), self.n_common - 1)
        # By inversion of the law with the query's interval cut out: numbers behind the gap are moved past it.
        gap, start = law[query][:, None], (upper - law)[query][:, None]
        v = u[:, :8] * (1 - gap)
        v = jnp.where(v < start, v, v + gap)
        context = jnp.minimum(jnp.searchsorted(upper, v.reshape(-1), side="right").reshape(n, 8), k - 1)
        # Rounding at the ends of the gap may still hit the query.
        context = jnp.where(context == query[:, None], (context + 1) % k, context)
        classes = jnp.concatenate([context, query[:, None]], axis=1)
        which = jnp.minimum((u[:, 9:] * self.polysemy).astype(int), self.polysemy - 1)
        return Prompt(draw_images(self.images, classes, self.noise, image_key), classes * self.polysemy + which)


def draw_images(
    images: Float[Array, "classes drawings dx"],
    classes: Int[Array, "b n"],
    noise: Float[Array, ""] | None,
    key: Key[Array, ""],
) -> Float[Array, "b n dx"]:
    """A random drawing of every class, with noise of deviation `noise` per pixel, if any."""
    pick_key, noise_key = jax.random.split(key)
    which = draws.randint(pick_key, classes.shape, 0, images.shape[1])
    drawn = images[classes, which]
    return drawn if noise is None else drawn + noise * draws.normal(noise_key, drawn.shape, images.dtype)
