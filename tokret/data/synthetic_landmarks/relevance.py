"""Easy, hard or junk: the labels of Revisited Oxford and Paris, from known geometry.

After Radenovic et al. (CVPR 2018), where people judged each photo: easy shows the
landmark clearly and from the query's side; hard shows that side under conditions that
are difficult to match (oblique, small, partly hidden, at night); junk may show the
landmark, but too little of it, or another side; a negative does not show it.
"""

from dataclasses import dataclass

EASY_TURN = 45.0  # degrees between the viewpoints of query and photo, at most
HARD_TURN = 100.0  # beyond that, the photo shows another side
EASY_VISIBLE = 0.75  # fraction of the landmark that is in the photo and not hidden
HARD_VISIBLE = 0.3
EASY_EXTENT = 0.45  # the larger of box width / photo width, box height / photo height
HARD_EXTENT = 0.25


@dataclass(frozen=True)
class Appearance:
    """How a photo shows its landmark."""

    azimuth: float  # of the camera around the landmark, degrees, 0 in front of it
    # fraction of the landmark's pixels that are in the photo and not hidden
    visible: float
    # larger fraction of the photo's width or height that it covers, 0 to 1
    extent: float
    adverse: bool  # whether night or thick fog changed its appearance


def angle_between(a: float, b: float) -> float:
    """Angle between two azimuths, 0 to 180 degrees."""
    return abs((a - b + 180) % 360 - 180)


def judge(query: Appearance, photo: Appearance) -> str:
    """Labels a photo of the query's landmark: "easy", "hard" or "junk"."""
    angle = angle_between(query.azimuth, photo.azimuth)
    if angle > HARD_TURN or photo.visible < HARD_VISIBLE or photo.extent < HARD_EXTENT:
        return "junk"
    if (
        angle > EASY_TURN
        or photo.visible < EASY_VISIBLE
        or photo.extent < EASY_EXTENT
        or photo.adverse
    ):
        return "hard"
    return "easy"


def label_photos(
    query: Appearance, photos: list[tuple[int, Appearance]]
) -> dict[str, list[int]]:
    """Sorts the photos of a query's landmark (index into the database, appearance).

    Returns "easy", "hard" and "junk": indices in rising order, each in one of them.
    """
    lists: dict[str, list[int]] = {"easy": [], "hard": [], "junk": []}
    for index, appearance in sorted(photos, key=lambda photo: photo[0]):
        lists[judge(query, appearance)].append(index)
    return lists
