"""The heads that the paper compares; any recipe takes one after a colon.

tokret train --config=configs/gldv2_r101.py:solar --workdir=DIR

A recipe is written for Token; `set_head` gives its config another head's fields. Trunk,
photos, augmentation, schedule and optimiser stay as they are, as in the paper's table.
What the authors released beyond that: SOLAR's trunk has a second-order block too
(--config.model.trunk=resnet101_soa4), NetVLAD's trunk was kept frozen, which is not
offered here, and R-MAC is evaluated with --config.model.normalise_in_evaluation=False.
"""

import math
from typing import Any

from ml_collections import ConfigDict

from tokret.arguments import choose

# Every head has these, whatever it is.
COMMON = ("trunk", "head", "dtype", "dim", "remat", "frozen_stages")
# The fields of a head: those it shares with Token, which keep the recipe's values, and
# its own, with the released ones.
HEADS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "token": (
        (
            *("width", "tokens", "tokenizer", "query_init_std", "initialiser"),
            "num_heads",
            *("attention_layers", "refinement", "refinement_layers"),
            *("dropout", "drop_path"),
        ),
        {},
    ),
    "gem": (
        (),
        {
            "p": 3.0,  # power of the mean over positions; 1 is average pooling
            "whiten": True,  # whether a linear layer follows
        },
    ),
    "rmac": (
        (),
        {
            "levels": 3,  # sizes of regions
            "normalise_in_evaluation": True,  # before whitening; released: False
        },
    ),
    "solar": ((), {"p": 3.0}),
    "netvlad": (("num_heads", "dropout", "drop_path"), {"clusters": 4}),
    "delg": (
        (),
        {
            "p": 3.0,
            "local_loss": True,  # whether local features are classified too
        },
    ),
}


def set_head(config: ConfigDict, head: str) -> ConfigDict:
    """Gives a config, which has Token's fields, those of a head; returns it.

    The scale of ArcFace becomes the root of the descriptor's dimensions, as released.

    Args:
      config: a recipe's config; it is changed.
      head: a name in `HEADS`.

    Raises:
      UserError: if there is no such head.
    """
    shared, own = choose(HEADS, head, "the head after --config=FILE:")
    for field in set(config.model) - set(COMMON) - set(shared):
        del config.model[field]
    config.model.head = head
    config.model.update(own)
    config.arcface.scale = math.sqrt(config.model.dim)
    return config
