"""Token's head: local features, tokens, one descriptor (paper, figure 2).

The released code fixes 4 tokens, 8 heads, one layer of self-attention, two of
refinement, 1,024 channels inside and 1,024 dimensions outside; the defaults are those.
Where the paper's equations differ from the code, a field chooses; the default is the
code, for which there are weights.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from tokret.arguments import choose, within
from tokret.errors import UserError
from tokret.models.attention import LocalFeatureSelfAttention
from tokret.models.heads.token.initialisers import STARTS
from tokret.models.heads.token.refinement import REFINEMENTS
from tokret.models.heads.token.tokenizer import TOKENIZERS
from tokret.models.kernels.batch_norm import BatchNorm
from tokret.models.kernels.pointwise import local_features
from tokret.models.layers import Intermediates, linear
from tokret.models.masking import inside
from tokret.shapes import Array, Float, Int


class TokenHead(nn.Module):
    """The trunk's feature map -> the embedding, before L2 normalisation.

    Attributes:
      dim: dimensions of the embedding.
      width: channels of local features and tokens (mid_dim in the released code).
      tokens: number of tokens, L.
      tokenizer: whose form of the tokenizer, a name in `TOKENIZERS`.
      query_init_std: deviation of the tokenizer's queries at the start.
      initialiser: how linear layers are initialised, a name in `STARTS`.
      num_heads: heads of every attention.
      attention_layers: layers of local feature self-attention.
      refinement: whose form of the refinement, a name in `REFINEMENTS`.
      refinement_layers: layers of refinement.
      dropout: rate in attentions and MLPs.
      drop_path: rate at which an example skips a residual branch.
      dtype: dtype of the computation.
    """

    dim: int = 1024
    width: int = 1024
    tokens: int = 4
    tokenizer: str = "released"
    query_init_std: float = 1.0
    initialiser: str = "released"
    num_heads: int = 8
    attention_layers: int = 1
    refinement: str = "released"
    refinement_layers: int = 2
    dropout: float = 0.1
    drop_path: float = 0.1
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        for field in ("dim", "width", "tokens", "num_heads"):
            within(f"model.{field}", getattr(self, field), 1)
        for field in ("attention_layers", "refinement_layers", "query_init_std"):
            within(f"model.{field}", getattr(self, field), 0, 1000)
        for field in ("dropout", "drop_path"):
            within(f"model.{field}", getattr(self, field), 0, 0.99)
        choose(TOKENIZERS, self.tokenizer, "config.model.tokenizer")
        choose(REFINEMENTS, self.refinement, "config.model.refinement")
        choose(STARTS, self.initialiser, "config.model.initialiser")
        if self.width % self.num_heads:
            raise UserError(
                f"config.model.width {self.width} does not divide among "
                f"config.model.num_heads {self.num_heads}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "b h w c"],
        sizes: Int[Array, "b 2"] | None = None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "b d"], Intermediates]:
        """Aggregates a feature map.

        Args:
          features: the trunk's output.
          sizes: true sizes of the feature maps, or None if all fill the canvas.
          train: whether dropout and batch statistics are on.

        Returns:
          The embedding and, by the names of the golden cases: local [b, h*w, width],
          lfsa (the same after self-attention), attention [b, tokens, h, w], tokens
          [b, tokens, width], and refined0, refined1, ... of each refinement layer.
        """
        batch, height, width = features.shape[:3]
        mask = None
        if sizes is not None:
            mask = inside(sizes, height, width).reshape(batch, -1)  # [b, n]
        start = STARTS[self.initialiser]
        layer = (self.num_heads, self.dropout, self.drop_path, self.dtype, start)
        reduction = (self.width, self.dtype, start.through, start.bias)
        x = local_features(features, *reduction, train=train)
        x = x.reshape(batch, height * width, self.width)
        taps: Intermediates = {"local": x}
        for i in range(self.attention_layers):
            x = LocalFeatureSelfAttention(*layer, name=f"encoder{i}")(
                x, mask, train=train
            )
        taps["lfsa"] = x
        tokenizer = TOKENIZERS[self.tokenizer](
            *(self.tokens, self.query_init_std, self.dtype, start), name="tokenizer"
        )
        tokens, maps = tokenizer(x, mask)
        taps["attention"] = maps.reshape(batch, self.tokens, height, width)
        taps["tokens"] = tokens
        for i in range(self.refinement_layers):
            refine = REFINEMENTS[self.refinement](*layer, name=f"decoder{i}")
            tokens = refine(tokens, x, mask, train=train)
            taps[f"refined{i}"] = tokens
        joined = tokens.reshape(batch, -1)  # [b, tokens * width]
        draws = (start.join(self.tokens), start.bias)
        join = linear(self.dim, joined.shape[-1], self.dtype, "proj", *draws)
        embedding = join(joined)
        return BatchNorm(name="proj_bn")(embedding, train=train), taps
