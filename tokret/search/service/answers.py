"""The fields of the API's forms and answers: what is parsed, sent and documented."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tokret.search.hits import shown_score

Id = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{16}$",
        description="A photo's id: the digest of its file's content, 16 hex digits.",
    ),
]
Ids = Annotated[list[Id], Meta(max_length=100)]
Name = Annotated[str, Meta(max_length=4096)]
Names = Annotated[list[Name], Meta(max_length=100)]
Pixels = Annotated[int, Meta(ge=0)]
Folders = Annotated[
    Names,
    Meta(
        description="Only photos below one of these folders. Folders that no photo "
        "is in are no error: there are no results."
    ),
]
Labels = Annotated[
    Names,
    Meta(
        description="Only photos whose own folder has one of these names. Labels "
        "that no photo has are no error: there are no results."
    ),
]


class SearchForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What to search for. Lists are fields that occur several times."""

    like: Annotated[
        Ids, Meta(description="Photos to resemble: of the index, or uploaded before.")
    ] = []
    unlike: Annotated[Ids, Meta(description="Photos not to resemble, as `like`.")] = []
    box: Annotated[
        str | None,
        Meta(
            description="x0,y0,x1,y1: the part of the first photo to resemble, in "
            "pixels of the upright photo. The first is the first uploaded one, or the "
            "first of `like`."
        ),
    ] = None
    top: Annotated[int, Meta(ge=1, le=200, description="How many photos.")] = 24
    offset: Annotated[
        int, Meta(ge=0, le=10_000, description="How many better ones to skip.")
    ] = 0
    folder: Folders = []
    label: Labels = []
    near_duplicates: Annotated[
        Literal["show", "hide"],
        Meta(description="Whether photos nearly the same as a better one are results."),
    ] = "show"
    leave_out_query: Annotated[
        Literal["yes", "no"],
        Meta(description="Whether the positive photos themselves are skipped."),
    ] = "no"


class Query(msgspec.Struct, kw_only=True):
    """What was searched for; these ids restore it while the service runs."""

    positive: Annotated[list[Id], Meta(description="Uploaded photos, then `like`.")]
    negative: Annotated[list[Id], Meta(description="Uploaded photos, then `unlike`.")]
    box: Annotated[
        tuple[float, float, float, float] | None,
        Meta(description="The part of the first photo, in pixels."),
    ]
    width: Annotated[
        Pixels | None,
        Meta(description="Of the first photo, upright, in pixels; null if it is gone."),
    ]
    height: Annotated[Pixels | None, Meta(description="As `width`.")]


class Photo(msgspec.Struct, kw_only=True):
    """A photo of the index. Of a file with copies it is the first of them."""

    id: Id
    name: Annotated[str, Meta(description="Its path from the index's root.")]
    label: Annotated[str, Meta(description="Its folder's name; empty in the root.")]
    folder: Annotated[str, Meta(description="Its folder from the index's root.")]
    missing: Annotated[
        bool, Meta(description="Whether the file is not below the root any more.")
    ] = False
    width: Annotated[
        Pixels | None,
        Meta(description="Upright, in pixels; null if it is not known yet."),
    ] = None
    height: Annotated[Pixels | None, Meta(description="As `width`.")] = None


class Result(Photo, kw_only=True):
    """A retrieved photo."""

    score: Annotated[
        float, Meta(description="The cosine of the descriptors, from -1 to 1.")
    ]
    near_duplicates: Annotated[
        int,
        Meta(ge=0, description="How many results nearly the same are hidden."),
    ] = 0

    def __post_init__(self) -> None:
        """Clamps the score to [-1, 1]."""
        self.score = shown_score(self.score)


class Seconds(msgspec.Struct, kw_only=True):
    """How long the parts of a search took."""

    decode: Annotated[float, Meta(description="Decoding the photos.")]
    extract: Annotated[float, Meta(description="Their descriptors, waiting included.")]
    search: Annotated[float, Meta(description="The search, waiting included.")]


class SearchAnswer(msgspec.Struct, kw_only=True):
    """The results of a search, the best first."""

    query: Annotated[Query, Meta(description="What was searched for.")]
    results: Annotated[list[Result], Meta(description="The best first.")]
    total: Annotated[int, Meta(description="How many photos were searched.")]
    more: Annotated[bool, Meta(description="Whether there are results after these.")]
    seconds: Annotated[Seconds, Meta(description="How long it took.")]


class BrowseForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which photos to list."""

    folder: Folders = []
    label: Labels = []
    top: Annotated[int, Meta(ge=1, le=200, description="How many photos.")] = 24
    offset: Annotated[
        int, Meta(ge=0, le=1_000_000_000, description="How many to skip.")
    ] = 0


class BrowseAnswer(msgspec.Struct, kw_only=True):
    """Photos of the index by name."""

    photos: Annotated[list[Photo], Meta(description="Sorted by name.")]
    total: Annotated[int, Meta(description="How many there are with these filters.")]
    more: Annotated[bool, Meta(description="Whether there are photos after these.")]


class PhotoAnswer(msgspec.Struct, kw_only=True):
    """A photo of the index, or one that was uploaded to search with."""

    id: Id
    names: Annotated[
        list[str],
        Meta(
            description="Paths from the index's root, of all copies; none if it was "
            "only uploaded."
        ),
    ]
    label: Annotated[str, Meta(description="Of the first; empty in the root.")]
    width: Annotated[
        Pixels | None,
        Meta(description="Upright, in pixels; null if the file is gone."),
    ]
    height: Annotated[Pixels | None, Meta(description="As `width`.")]
    missing: Annotated[
        bool, Meta(description="Whether the file is not below the root any more.")
    ]


class AttentionAnswer(msgspec.Struct, kw_only=True):
    """Where each token of the model looks."""

    tokens: Annotated[int, Meta(description="How many tokens there are.")]
    height: Annotated[int, Meta(description="Of a map.")]
    width: Annotated[int, Meta(description="Of a map.")]
    maps: Annotated[
        list[list[float]],
        Meta(
            description="Of each token height x width numbers, row by row. At each "
            "position they sum to 1 over the tokens."
        ),
    ]


class AttentionForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Of which part of a photo."""

    box: Annotated[
        str | None,
        Meta(description="x0,y0,x1,y1 as of a search; by default the whole photo."),
    ] = None


class ImageForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which size of a picture."""

    side: Annotated[
        Annotated[int, Meta(ge=1, le=16_384)] | None,
        Meta(
            description="The longest side in pixels; the next larger of a few sizes is "
            "sent. By default the photo's own."
        ),
    ] = None


class AddForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Where photos are added."""

    folder: Annotated[
        Name, Meta(description="From the index's root; it is made if it is missing.")
    ] = ""


class AddAnswer(msgspec.Struct, kw_only=True):
    """The photos that were added."""

    photos: Annotated[list[Photo], Meta(description="In the order of the upload.")]


class LoginForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The page's form."""

    token: Annotated[str, Meta(description="TOKRET_TOKEN of the service.")]


class RemoveAnswer(msgspec.Struct, kw_only=True):
    """The photo that is not in the index any more; its files are kept."""

    id: Id
    names: Annotated[list[str], Meta(description="Paths from the index's root.")]


class FiltersAnswer(msgspec.Struct, kw_only=True):
    """The folders and labels of the index."""

    folders: Annotated[
        dict[str, int], Meta(description="By folder, the photos in it and below.")
    ]
    labels: Annotated[dict[str, int], Meta(description="By label, its photos.")]


class Health(msgspec.Struct, kw_only=True):
    """Whether the service answers."""

    status: Annotated[
        Literal["ready", "loading", "stopping"],
        Meta(description="503 unless it is ready."),
    ]
    service: Annotated[
        str, Meta(description="A random name of this run, as in INDEX/.service.json.")
    ]


class Error(msgspec.Struct, kw_only=True):
    """Why a request was refused."""

    error: Annotated[str, Meta(description="One clear line.")]
    field: Annotated[str, Meta(description="The field of the form, if it was one.")] = (
        ""
    )
