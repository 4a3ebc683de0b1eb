#!/bin/bash
# tensorflow-datasets 4.9.10, without TensorFlow.
# Expected: a ClassLabel that was written with a dataset is read back with the same names:
# the file has one name a line, and the writer keeps each as it is.
# What happens: the reader strips every line. A name that begins or ends with a space or a
# no-break space comes back as another one, so int2str and str2int of the prepared dataset
# disagree with the folders that it was made from; and where two names differ only there,
# the dataset that was just written without complaint cannot be read at all.
# Why it matters: labels of retrieval sets are place and product names from CSV files and
# folders, where trailing and no-break spaces are common. Whoever looks classes up by name,
# to compare with a ground truth or to merge two sets, misses them silently.
set -eu
D=$(mktemp -d); trap 'rm -rf "$D"' EXIT
"${PYTHON:-python3}" -m venv "$D/v"
"$D/v/bin/pip" install -q --disable-pip-version-check tensorflow-datasets==4.9.10 importlib-resources==7.1.0
cd "$D"
"$D/v/bin/python" - <<'P'
from importlib.metadata import version
from pathlib import Path

import tensorflow_datasets as tfds

print("tensorflow-datasets", version("tensorflow-datasets"))


def written_and_read(folder, names):
    Path(folder).mkdir()
    label = tfds.features.ClassLabel(names=names)
    label.save_metadata(folder, "label")
    lines = Path(folder, "label.labels.txt").read_text(encoding="utf-8")
    print("written:", repr(lines))
    assert lines == "".join(f"{name}\n" for name in names)
    found = tfds.features.ClassLabel()
    found.load_metadata(folder, "label")
    return found


found = written_and_read("one", ["Louvre ", "\u00a0Big Ben", "Tower"])
print("read:   ", found.names)
assert found.names == ["Louvre", "Big Ben", "Tower"]
try:
    written_and_read("two", ["Louvre", "Louvre\u00a0"])
    raise SystemExit("two names that differ in a space: read, this has changed")
except ValueError as error:
    print("two names that differ in a space:", error)
    assert "duplicated" in str(error)
P
echo "as described"
