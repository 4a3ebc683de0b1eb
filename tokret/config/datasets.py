"""`config.data`: the fields of each dataset."""

import dataclasses
from typing import Any, Literal, get_args, get_type_hints

from tokret.config.annotations import fraction, integer, location, text
from tokret.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoogleLandmarksConfig:
    """Google Landmarks v2."""

    name: Literal["gldv2"]
    manual_dir: str = location(
        "", 'folder or URL of the downloads; "": already prepared'
    )
    subset: Literal["clean", "no_overlap", "full"] = text(
        "clean", "photos; no_overlap: clean without those in exclude_ids"
    )
    exclude_ids: str = location("", "file of ids to exclude, for no_overlap")
    split: str = location("", "CSV id,split, instead of one photo in five")
    labels: str = location("", "CSV label,landmark_id, instead of by id")
    resize: int = integer(0, "most pixels of a shorter side; 0: any number", 0, 2**15)
    quality: int = integer(90, "JPEG quality of the photos that shrink", 1, 95)
    skip_bad: bool = text(False, "skip missing and broken photos rather than stop")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFolderConfig:
    """A folder of class folders, or a table of photos."""

    name: Literal["image_folder"]
    root: str = location(
        "",
        "folder of class folders, or of a table's photos; "
        "without both: already prepared",
    )
    table: str = location("", "CSV path,label[,x0,y0,x1,y1], instead of class folders")
    validation_fraction: float = fraction(0.2, "of each class's photos for validation")
    train_list: str = location("", "file of paths; no other photo is trained on")
    validation_list: str = location("", "file of paths, instead of validation_fraction")
    benchmark_list: str = location("", "file of benchmark paths, each a query")
    benchmark_classes: str = location(
        "", "file of class names: the benchmark's classes"
    )
    benchmark_fraction: float = fraction(0.0, "of the classes for the benchmark")
    benchmark_root: str = location(
        "", "another folder of class folders: the benchmark's"
    )
    exif: bool = text(True, "turn photos by their EXIF orientation")
    max_pixels: int = integer(
        100_000_000, "of a photo; above 100 million it is stored at half its sides", 1
    )
    resize: int = integer(0, "most pixels of a shorter side; 0: any number", 0, 2**15)
    quality: int = integer(90, "JPEG quality of the photos that shrink", 1, 95)
    skip_bad: bool = text(False, "skip missing and broken photos rather than stop")

    def __post_init__(self) -> None:
        fields = ("list", "classes", "fraction", "root")
        names = (f"benchmark_{field}" for field in fields)
        given = [name for name in names if getattr(self, name)]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} exclude each other; choose one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticLandmarksConfig:
    """Rendered photos of landmarks that exist nowhere."""

    name: Literal["synthetic_landmarks"]
    landmarks: int = integer(64, "classes", 1)
    photos: int = integer(24, "training photos of each class", 1)
    validation_photos: int = integer(4, "of each class")
    benchmark_landmarks: int = integer(24, "other landmarks, of the queries", 1)
    queries_per_landmark: int = integer(2, "of the benchmark", 1)
    database_photos: int = integer(16, "of each of the benchmark's landmarks", 2)
    distractors: int = integer(400, "photos of a third set of landmarks")
    longest_side: int = integer(160, "of every photo, in pixels", 32, 4096)
    seed: int = integer(0, "decides every photo", 0, 2**32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RevisitedConfig:
    """Oxford and Paris, revisited and original: for evaluation."""

    name: Literal["roxford5k", "rparis6k", "oxford5k", "paris6k"]
    manual_dir: str = location(
        "", 'folder or URL of the downloads; "": already prepared'
    )
    release: str = text("", 'photos: original or blurred; "": either')
    skip_bad: bool = text(False, "skip missing and broken photos rather than stop")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistractorsConfig:
    """The million distractors of the revisited benchmarks."""

    name: Literal["revisitop1m"]
    manual_dir: str = text("", 'folder of the downloads; "": already prepared')
    skip_bad: bool = text(False, "skip missing and broken photos rather than stop")


DataConfig = (
    GoogleLandmarksConfig
    | ImageFolderConfig
    | RevisitedConfig
    | DistractorsConfig
    | SyntheticLandmarksConfig
)
# By `config.data.name`.
DATASETS: dict[str, type[Any]] = {
    name: kind
    for kind in get_args(DataConfig)
    for name in get_args(get_type_hints(kind)["name"])
}
