"""Which photos of an index are searched."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Filters:
    """Photos in any of some folders and with any of some labels.

    Without folders, or without labels, all photos.
    """

    folders: tuple[str, ...] = ()  # paths from the root, with everything below
    labels: tuple[str, ...] = ()  # names of folders; "" is that of the root

    def __bool__(self) -> bool:
        """Whether there is a folder or a label."""
        return bool(self.folders or self.labels)

    def accepts(self, folder: str) -> bool:
        """Whether photos directly in a folder are searched."""
        below = any(
            wanted == "" or folder == wanted or folder.startswith(f"{wanted}/")
            for wanted in self.folders
        )
        label = folder.rpartition("/")[2]
        return (below or not self.folders) and (label in self.labels or not self.labels)


def folder_of(path: str) -> str:
    """The folder of a photo's path; "" for those directly in the root."""
    return path.rpartition("/")[0]


def label_of(folder: str) -> str:
    """The label of the photos directly in a folder: its name."""
    return folder.rpartition("/")[2]
