"""Rows of the paper's ablation and others like them, each as a config.

tokret train --config=configs/ablation.py:ROW --workdir=DIR
tokret train --config=configs/ablation.py:demo/ROW --workdir=DIR

ROW is a name in ROWS: what is changed in the released recipe of gldv2_r101.py, or in
another's, named before the slash. Nothing else changes, so each row costs what its
recipe does, and the demo's rows take minutes.
"""

from typing import Any

from ml_collections import ConfigDict

from tokret.arguments import choose
from tokret.configs import demo, gldv2_r50, gldv2_r101, image_folder

RECIPES = {
    "gldv2_r50": gldv2_r50.get_config,
    "gldv2_r101": gldv2_r101.get_config,
    "demo": demo.get_config,
    "image_folder": image_folder.get_config,
}
# Changed fields of config.model; `head` comes with all the fields of that head.
ROWS: dict[str, dict[str, Any]] = {
    "released": {},
    # The paper's own equations where the released code has others.
    "paper_tokenizer": {"tokenizer": "paper"},
    "paper_refinement": {"refinement": "paper"},
    "paper": {"tokenizer": "paper", "refinement": "paper"},
    # How many tokens; released: 4.
    "tokens_1": {"tokens": 1},
    "tokens_2": {"tokens": 2},
    "tokens_3": {"tokens": 3},
    "tokens_6": {"tokens": 6},
    "tokens_8": {"tokens": 8},
    # Layers of local feature self-attention; released: 1.
    "no_lfsa": {"attention_layers": 0},
    "lfsa_2": {"attention_layers": 2},
    # Layers of refinement; released: 2.
    "refinement_0": {"refinement_layers": 0},
    "refinement_1": {"refinement_layers": 1},
    "refinement_3": {"refinement_layers": 3},
    # The tokenizer alone, with neither.
    "tokenizer_alone": {"attention_layers": 0, "refinement_layers": 0},
    # Other ways to aggregate.
    "gem": {"head": "gem"},
    "rmac": {"head": "rmac"},
    "solar": {"head": "solar"},
    "netvlad": {"head": "netvlad"},
    "delg": {"head": "delg"},
}


def get_config(row: str = "") -> ConfigDict:
    """Returns the config of a row: "ROW" or "RECIPE/ROW".

    Raises:
      UserError: if there is no such row or recipe.
    """
    recipe, _, name = row.rpartition("/")
    where = "the {} in --config=configs/ablation.py:{}"
    make = choose(RECIPES, recipe or "gldv2_r101", where.format("recipe", "RECIPE/ROW"))
    changes = dict(choose(ROWS, name, where.format("row", "ROW")))
    config: ConfigDict = make(changes.pop("head", "token"))
    config.model.update(changes)
    return config
