"""The heads that the paper compares; any recipe takes one after a colon.

tokret train --config=configs/gldv2_r101.py:solar --workdir=DIR

A recipe is written for Token; `set_head` gives its config another head's fields. Trunk,
photos, augmentation, schedule and optimiser do not change, as in the paper's table.
What the authors released beyond that: SOLAR's trunk has a second-order block too
(--config.model.trunk=resnet101_soa4), NetVLAD's trunk was frozen (all its stages:
--config.model.frozen_stages), and R-MAC is evaluated with
--config.model.normalise_in_evaluation=False.
"""

import dataclasses
import math

from ml_collections import ConfigDict

from tokret.arguments import choose
from tokret.config.models import HEADS


def set_head(config: ConfigDict, head: str) -> ConfigDict:
    """Gives a config, which has Token's fields, those of a head; returns it.

    Fields of both heads keep the recipe's values; others have the released ones. The
    scale of ArcFace becomes the root of the descriptor's dimensions, as released.

    Args:
      config: a recipe's config; it is changed.
      head: a name in `HEADS`.

    Raises:
      UserError: if there is no such head.
    """
    kind = choose(HEADS, head, "the head after --config=FILE:")
    released = {field.name: field.default for field in dataclasses.fields(kind)}
    model = {name: config.model.get(name, released[name]) for name in released}
    config.model = ConfigDict({**model, "head": head})
    config.arcface.scale = math.sqrt(config.model.dim)
    return config
