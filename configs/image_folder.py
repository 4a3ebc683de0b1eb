"""Token with the tiny trunk on a folder of class folders, from scratch, on a CPU.

tokret train --config=configs/image_folder.py --config.data.root=PHOTOS --workdir=DIR

PHOTOS/CLASS/**/PHOTO.jpg (also png, webp, gif, bmp, tiff, avif), or
--config.data.table=LIST.csv with the columns path,label. With
--config.data.benchmark_fraction=0.2 one class in five is not trained on: in
`tokret eval --workdir=DIR` its photos are queries among each other.
"""

from ml_collections import ConfigDict

from tokret.config.datasets import ImageFolderConfig
from tokret.configs import base, demo


def get_config(head: str = "token") -> ConfigDict:
    """Returns the config with a head of `heads.HEADS`."""
    config = demo.get_config(head)
    config.epochs = 40
    config.data = base.fields(ImageFolderConfig(name="image_folder"))
    return config
