"""Token with the tiny trunk on a folder of class folders, from scratch, on a CPU.

tokret train --config=configs/image_folder.py --config.data.root=PHOTOS --workdir=DIR

PHOTOS/CLASS/**/PHOTO.jpg (also png, webp), or --config.data.table=LIST.csv with the
columns path,label. With --config.data.benchmark_fraction=0.2 one class in five is not
trained on, and eval.py --workdir=DIR looks for its photos among each other.
"""

from ml_collections import ConfigDict

from tokret.configs import demo


def get_config(head: str = "token") -> ConfigDict:
    """Returns the config with a head of `heads.HEADS`."""
    config = demo.get_config(head)
    config.epochs = 40
    config.data = photos()
    return config


def photos() -> ConfigDict:
    """Returns `config.data` for photos of one's own."""
    data = ConfigDict()
    data.name = "image_folder"
    data.root = ""  # the folder of class folders, or of a table's photos
    data.table = ""  # a CSV path,label[,x0,y0,x1,y1] instead of class folders
    data.validation_fraction = 0.2  # of each class's photos
    data.train_list = ""  # paths, one a line; others are not trained on
    data.validation_list = ""  # paths, one a line, instead of the fraction
    data.benchmark_list = ""  # paths, one a line, to find among each other
    data.benchmark_classes = ""  # names, one a line, instead of that list
    data.benchmark_fraction = 0.0  # share of the classes, instead of both
    data.benchmark_root = ""  # another folder of class folders, instead of all three
    data.exif = True  # turn photos as their EXIF orientation says
    data.max_pixels = 100_000_000  # of a photo; a larger one is bad
    data.resize = 0  # longest shorter side in pixels; 0 keeps photos
    data.quality = 90  # of the JPEGs that shrunk photos become
    data.skip_bad = False  # leave out bad photos
    return data
