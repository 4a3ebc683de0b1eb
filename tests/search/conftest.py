import jax
import jax.numpy as jnp
import pytest

from tokret.config import stored
from tokret.config.parsing import parse_saved
from tokret.models.build import build_model
from tokret.search.extractor import load_extractor
from tokret.training.weights import save_weights

MODEL = {"trunk": "tiny", "head": "gem", "dtype": "float32", "dim": 8}
EVALUATION = {"longest_side": 48, "scales": [1.0], "batch_size": 4, "canvases": 1}


def save_model(folder, seed, model=MODEL):
    """The folder of a conversion: a small model whose weights the seed drew."""
    net = build_model(**model)
    variables = jax.jit(
        lambda key: net.init(key, jnp.zeros((1, 32, 32, 3)), train=False)
    )(jax.random.key(seed))
    config = parse_saved({"model": model, "evaluation": EVALUATION, "seed": seed})
    folder.mkdir()
    stored.save(config, folder / "config.json")
    save_weights(
        folder, {"model": variables["params"]}, variables["batch_stats"], config
    )
    return folder


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    """The API and the commands keep no compiled programs in this process."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "of another process")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("weights") / "model", 0)


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("weights") / "model", 1)


@pytest.fixture(scope="session")
def token_checkpoint(tmp_path_factory):
    head = {"head": "token", "width": 16, "tokens": 2, "num_heads": 2}
    return save_model(tmp_path_factory.mktemp("weights") / "model", 0, MODEL | head)


@pytest.fixture(scope="session")
def loaded(checkpoint):
    """An extractor that is restored once."""
    return load_extractor(checkpoint)


@pytest.fixture
def load(loaded):
    """Gives the same extractor to every index."""
    return lambda copy: loaded


@pytest.fixture
def photos(tmp_path, jpeg):
    """Nine photos in two folders, one of them with an odd name."""
    root = tmp_path / "my photos"
    for i in range(9):
        name = f"{'sea' if i % 2 else 'mountains'}/{i}{' <b>é' if i == 3 else ''}.jpg"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg(seed=i, size=(48, 40)))
    return root
