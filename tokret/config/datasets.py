"""`config.data`: the fields of each dataset."""

import dataclasses
from typing import Annotated, Any, Literal

from tokret.config.annotations import fraction, integer, text
from tokret.errors import UserError

ManualDir = Annotated[
    str, text('folder of the downloads; "": what was prepared before')
]
SkipBad = Annotated[bool, text("skip missing and broken photos rather than stop")]
Resize = Annotated[
    int, integer("longest shorter side in pixels; 0 keeps photos", 0, 2**15)
]
Quality = Annotated[int, integer("JPEG quality of the photos that shrink", 1, 95)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoogleLandmarksConfig:
    """Google Landmarks v2."""

    name: Literal["gldv2"]
    manual_dir: ManualDir = ""
    subset: Annotated[
        Literal["clean", "no_overlap", "full"],
        text("photos; no_overlap: clean without those in exclude_ids"),
    ] = "clean"
    exclude_ids: Annotated[str, text("file of ids to exclude, for no_overlap")] = ""
    split: Annotated[str, text("CSV id,split, instead of one photo in five")] = ""
    labels: Annotated[str, text("CSV label,landmark_id, instead of by id")] = ""
    resize: Resize = 0
    quality: Quality = 90
    skip_bad: SkipBad = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFolderConfig:
    """A folder of class folders, or a table of photos."""

    name: Literal["image_folder"]
    root: Annotated[str, text("folder of class folders, or of a table's photos")] = ""
    table: Annotated[
        str, text("CSV path,label[,x0,y0,x1,y1], instead of class folders")
    ] = ""
    validation_fraction: Annotated[
        float, fraction("fraction of each class's photos for validation")
    ] = 0.2
    train_list: Annotated[str, text("file of paths; no other photo is trained on")] = ""
    validation_list: Annotated[
        str, text("file of paths, instead of validation_fraction")
    ] = ""
    benchmark_list: Annotated[
        str, text("file of paths: the benchmark, each a query among the others")
    ] = ""
    benchmark_classes: Annotated[
        str, text("file of class names: the benchmark's classes")
    ] = ""
    benchmark_fraction: Annotated[
        float, fraction("fraction of the classes for the benchmark")
    ] = 0.0
    benchmark_root: Annotated[
        str, text("another folder of class folders: the benchmark's")
    ] = ""
    exif: Annotated[bool, text("turn photos by their EXIF orientation")] = True
    max_pixels: Annotated[int, integer("pixels of a photo; a larger one is bad", 1)] = (
        100_000_000
    )
    resize: Resize = 0
    quality: Quality = 90
    skip_bad: SkipBad = False

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
    landmarks: Annotated[int, integer("classes", 1)] = 64
    photos: Annotated[int, integer("training photos of each class", 1)] = 24
    validation_photos: Annotated[int, integer("of each class")] = 4
    benchmark_landmarks: Annotated[
        int, integer("further landmarks, which the queries show", 1)
    ] = 24
    queries_per_landmark: Annotated[int, integer("of the benchmark", 1)] = 2
    database_photos: Annotated[
        int, integer("of each of the benchmark's landmarks", 2)
    ] = 16
    distractors: Annotated[int, integer("photos of a third set of landmarks")] = 400
    longest_side: Annotated[int, integer("of every photo, in pixels", 32)] = 160
    seed: Annotated[int, integer("decides every photo")] = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RevisitedConfig:
    """Oxford and Paris, revisited and original: for evaluation."""

    name: Literal["roxford5k", "rparis6k", "oxford5k", "paris6k"]
    manual_dir: ManualDir = ""
    release: Annotated[
        str, text('of the photos, original or blurred; "": whichever there is')
    ] = ""
    skip_bad: SkipBad = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistractorsConfig:
    """The million distractors of the revisited benchmarks."""

    name: Literal["revisitop1m"]
    manual_dir: ManualDir = ""
    skip_bad: SkipBad = False


DataConfig = (
    GoogleLandmarksConfig
    | ImageFolderConfig
    | SyntheticLandmarksConfig
    | RevisitedConfig
    | DistractorsConfig
)
# By `config.data.name`.
DATASETS: dict[str, type[Any]] = {
    "gldv2": GoogleLandmarksConfig,
    "image_folder": ImageFolderConfig,
    "oxford5k": RevisitedConfig,
    "paris6k": RevisitedConfig,
    "revisitop1m": DistractorsConfig,
    "roxford5k": RevisitedConfig,
    "rparis6k": RevisitedConfig,
    "synthetic_landmarks": SyntheticLandmarksConfig,
}
