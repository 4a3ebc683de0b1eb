"""Token with the tiny trunk on a folder of class folders, from scratch, on a CPU.

python train.py --config=configs/image_folder.py --config.data.root=PHOTOS --workdir=DIR

PHOTOS/CLASS/**/PHOTO.jpg (also png, webp).
"""

from ml_collections import ConfigDict

from configs import demo


def get_config(head: str = "token") -> ConfigDict:
    """Returns the config with a head of `heads.HEADS`."""
    config = demo.get_config(head)
    config.epochs = 40
    config.data = ConfigDict()
    config.data.name = "image_folder"
    config.data.root = ""  # the folder of class folders
    config.data.validation_fraction = 0.2  # of each class's photos
    return config
