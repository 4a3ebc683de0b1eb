"""What the programs import before they know what they need."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each is imported by the functions that use it, after the config was checked.
LATER = {
    *("tensorflow_datasets", "array_record", "grain"),  # datasets and streams
    *("cv2", "PIL"),  # decoding and augmentation
    *("orbax", "tensorstore"),  # checkpoints
    "tensorboardX",
}
MOST_MODULES = 100  # of tokret


def modules_after(statement):
    """The names of all modules that a new process has after a statement."""
    code = f"{statement}; import json, sys; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("statement", "later"),
    [
        ("import train", LATER | {"flax", "optax"}),
        # What `train.train` imports besides, before the chosen dataset's modules.
        ("import train, tokret.training.setup, tokret.training.initial_weights", LATER),
    ],
)
def test_training_starts_with_what_every_run_needs(statement, later):
    found = modules_after(statement)
    assert later & found == set()
    ours = {name for name in found if name.split(".")[0] == "tokret"}
    assert len(ours) <= MOST_MODULES, sorted(ours)
    datasets = ("synthetic_landmarks", "google_landmarks", "revisited", "image_folder")
    names = (*datasets, "preparing", "streams", "decoding")
    assert {f"tokret.data.{name}" for name in names} & ours == set()
    assert "tokret.training.tensorboard" not in ours


def test_a_query_that_a_service_answers_imports_no_jax():
    assert not {"jax", "flax"} & modules_after("import tokret.commands.query")


HIDE = """
import importlib.abc, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"{{name}} is hidden")
sys.meta_path.insert(0, Hidden())
"""


def test_model_step_and_search_need_no_data_stack():
    hidden = LATER | {"tqdm", "ml_collections", "tyro", "msgspec", "jinja2"}
    modules = (
        *("tokret.models.build", "tokret.models.heads.token.head"),
        *("tokret.models.trunks.resnet", "tokret.training.step"),
        *("tokret.retrieval.exact_search.top_k", "tokret.retrieval.exact_search.ranks"),
    )
    code = HIDE.format(hidden=hidden) + "\n".join(f"import {m}" for m in modules)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
