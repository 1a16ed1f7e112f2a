"""The layout of token prompts: the tokens as they are, and the logits of every position."""

from typing import ClassVar

from jaxtyping import Array, Float, Int

from meta_icl.models.layouts.layout import Layout
from meta_icl.prompt import TokenPrompt


class TokenLayout(Layout):
    """Integer tokens as they stand in a `TokenPrompt`. Read-out: the logits "t vocabulary" of all positions."""

    reads_last_token: ClassVar[bool] = False

    def encode(self, prompt: TokenPrompt) -> Int[Array, " t"]:
        return prompt.tokens

    def read(self, output: Float[Array, "t v"], prompt: TokenPrompt) -> Float[Array, "t v"]:
        del prompt
        return output
