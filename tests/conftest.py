"""Shapes are checked while the tests run; eight CPU devices stand in for a host's."""

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: XLA's optimiser takes longer than it saves, and
# so do its fusion emitters and split code generation (a third of compiling without).
COMPILE_FAST = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)
os.environ["XLA_FLAGS"] = (
    f"--xla_force_host_platform_device_count=8 {COMPILE_FAST} "
    + os.environ.get("XLA_FLAGS", "")
)

# Jobs in the background ignore it, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

import jaxtyping  # noqa: E402 (the flags above come first)
import numpy as np  # noqa: E402 (the flags above come first)
import pytest  # noqa: E402 (the flags above come first)
from PIL import Image  # noqa: E402 (the flags above come first)

# Before any of these modules is imported: every annotated function and dataclass then
# checks its arguments' shapes and dtypes.
jaxtyping.install_import_hook(["tokret", "benchmarks"], "beartype.beartype")

from tests.browser import chromium, tabs  # noqa: E402, F401 (fixtures, after the hook)
from tests.storage.servers import (  # noqa: E402, F401 (fixtures, after the hook)
    gcs,
    gcs_server,
    memory,
    other_host,
    s3,
    s3_server,
    storage,
)

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(os.environ.get("TOKRET_GOLDEN", ROOT.parent / "shared" / "golden"))

# The demo, cut short: every field not named here is the demo's own.
SHORT = (
    "--config.epochs=3",
    "--config.batch_size=8",
    "--config.schedule.warmup_epochs=1.0",
    "--config.augmentation.size=32",
    "--config.evaluation.longest_side=48",
    "--config.evaluation.scales=(1.0,)",
    "--config.evaluation.canvases=1",
    "--config.run.log_every=2",
    "--config.run.checkpoint_every=4",
)
SMALL_LANDMARKS = (
    "--config.data.landmarks=4",
    "--config.data.photos=8",
    "--config.data.validation_photos=1",
    "--config.data.benchmark_landmarks=2",
    "--config.data.queries_per_landmark=1",
    "--config.data.database_photos=8",
    "--config.data.distractors=4",
    "--config.data.longest_side=48",
)


# Whole programs, the longest first.
LONGEST = (
    "tests/test_object_storage.py",
    "tests/test_faults.py",
    "tests/test_train.py",
    "tests/test_eval.py",
    "tests/test_processes.py",
    "tests/test_first_steps.py",
    "tests/test_wheel.py",
)


def pytest_collection_modifyitems(items):
    """Files that take long come first: of several workers none has one at the end."""

    def order(item):
        file = item.nodeid.partition("::")[0]
        rank = LONGEST.index(file) if file in LONGEST else len(LONGEST)
        return rank, file not in slow

    marked = (item.nodeid for item in items if item.get_closest_marker("slow"))
    slow = {name.partition("::")[0] for name in marked}
    items.sort(key=order)


@pytest.fixture(autouse=True)
def kept_programs_end_with_their_test():
    """Commands that run in this process keep compiled programs from then on."""
    yield
    jax = sys.modules.get("jax")
    if jax is not None and jax.config.jax_compilation_cache_dir:
        from jax.experimental.compilation_cache import compilation_cache

        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def long():
    """Whether tests that have a short form run their long one: TOKRET_LONG=1."""
    return os.environ.get("TOKRET_LONG", "0") != "0"


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The environment of programs, with one compilation cache for all."""
    # Workers of pytest-xdist have folders of their own in one that is the run's.
    own = tmp_path_factory.getbasetemp()
    cache = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "compiled"
    return {
        **os.environ,
        "XLA_FLAGS": COMPILE_FAST,
        # Programs that many tests start are compiled once.
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(scope="session")
def start(environment):
    """Returns a function that starts a script, or a command of tokret, as a user.

    `signalled` has the first arguments of tests/signalled.py, which then starts it.
    """

    def popen(program, *arguments, devices=1, signalled=(), **more):
        script = str(ROOT / program)
        named = [script] if program.endswith(".py") else ["-m", "tokret", program]
        if signalled:
            command = program.removesuffix(".py")
            named = ["-m", "tests.signalled", *map(str, signalled), command]
        return subprocess.Popen(
            [sys.executable, *named, *map(str, arguments)],
            cwd=ROOT,
            env=environment | {"JAX_NUM_CPU_DEVICES": str(devices)} | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return popen


@pytest.fixture(scope="session")
def program(start):
    """Returns a function that runs a program: (status, output, error output)."""

    def run(name, *arguments):
        process = start(name, *arguments)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err

    return run


@pytest.fixture
def tokret(monkeypatch, capsys):
    """Returns a function that runs a command in this process, as `program`."""
    from tokret.__main__ import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tokret", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def refused():
    """Returns a check that a program refused: one line with these words, status 2."""

    def check(result, *messages):
        status, out, err = result
        assert status == 2, out + err
        *before, last = err.strip().splitlines()
        assert all(line.startswith(("preparing ", "note: ")) for line in before), err
        assert last.startswith("error: ")
        for word in messages:
            assert word in last

    return check


@pytest.fixture(scope="session")
def shared():
    """The folder of ground truths and photos beside the project, where there is one."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing")
    return folder


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """The folder of datasets that the tests prepare."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def demo_arguments(data_dir):
    """The demo's command line, cut short, without its --workdir."""
    return (
        "--config=configs/demo.py",
        *SHORT,
        *SMALL_LANDMARKS,
        f"--config.run.data_dir={data_dir}",
    )


@pytest.fixture(scope="session")
def trained(program, demo_arguments, tmp_path_factory):
    """The folder of a run of the short demo that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("run") / "demo"
    status, out, err = program("train.py", *demo_arguments, f"--workdir={workdir}")
    assert status == 0, out + err
    return workdir


@pytest.fixture(scope="session")
def everything():
    """Returns a function that loads a run's newest checkpoint, all of it."""
    from orbax.checkpoint import v1 as ocp

    from tokret.training.weights import find_checkpoint

    def load(workdir):
        path = find_checkpoint(workdir).resolve()
        with warnings.catch_warnings():
            # Without shardings Orbax takes those that were saved.
            warnings.filterwarnings("ignore", "Sharding info not provided")
            return ocp.load_checkpointables(path)["state"]

    return load


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory):
    """A folder of three classes of six photos: stripes of the class's colour."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("ash", "birch", "café au lait")):
        (root / name).mkdir()
        for i in range(6):
            pixels = rng.integers(0, 120, (40 + 8 * (i % 2), 56, 3), np.uint8)
            pixels[:, :, label] += 100
            Image.fromarray(pixels).save(root / name / f"photo {i}.jpg", quality=90)
    return root


@pytest.fixture(scope="session")
def jpeg():
    """Returns a function that makes a JPEG's bytes, another for each seed."""

    def make(seed=0, size=(40, 30), kind="JPEG", **options):
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), np.uint8)
        buffer = io.BytesIO()
        photo = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
        photo.save(buffer, kind, **options)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def write_tar():
    """Returns a function that writes a tar of {name: bytes}, as GNU tar would."""

    def write(path, files, mode="w", **options):
        options = {"format": tarfile.GNU_FORMAT} | options
        with tarfile.open(path, mode, **options) as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return path

    return write


@pytest.fixture(scope="session")
def gldv2_folder(tmp_path_factory, jpeg, write_tar):
    """Google Landmarks v2 as downloaded, clean: 12 photos of 3 landmarks in 2 tars."""
    root = tmp_path_factory.mktemp("hosts") / "gldv2"
    root.mkdir()
    rng = np.random.default_rng(0)
    ids = [f"{n:016x}" for n in rng.integers(0, 2**64, 12, np.uint64).tolist()]
    lines = [f"{9 - i},{' '.join(ids[i::3])}\n" for i in range(3)]
    (root / "train_clean.csv").write_text("landmark_id,images\n" + "".join(lines))
    for number in range(2):
        mine = {p: jpeg(i, (64, 48)) for i, p in enumerate(ids) if i % 2 == number}
        files = {f"{p[0]}/{p[1]}/{p[2]}/{p}.jpg": data for p, data in mine.items()}
        write_tar(root / f"images_{number:03d}.tar", files)
    return root


@pytest.fixture(scope="session")
def oxford_folder(tmp_path_factory, jpeg, write_tar):
    """Revisited Oxford as downloaded, of three photos."""
    root = tmp_path_factory.mktemp("hosts") / "oxford"
    root.mkdir()
    names = [f"all_souls_{i:06d}" for i in range(3)]
    gnd = [{"bbx": [0, 0, 9, 9], "easy": [0], "hard": [], "junk": [1]}]
    truth = {"imlist": names[1:], "qimlist": names[:1], "gnd": gnd}
    (root / "gnd_roxford5k.json").write_text(json.dumps(truth))
    files = {f"{name}.jpg": jpeg(i) for i, name in enumerate(names)}
    write_tar(root / "oxbuild_images.tgz", files, "w:gz")
    return root


@pytest.fixture(scope="session")
def golden():
    """Returns a function from a file's name to its path in the golden folder."""
    if not (GOLDEN / "recipe.py").exists():
        pytest.skip(f"no golden cases in {GOLDEN}; set TOKRET_GOLDEN")
    return lambda name: GOLDEN / name


@pytest.fixture(scope="session")
def draw(golden):
    """Returns the recipe: (names and shapes, prefix) -> released state dict."""
    spec = importlib.util.spec_from_file_location("recipe", golden("recipe.py"))
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    seed = json.loads(golden("photos.json").read_text())["seed"]

    def tensors(names, prefix=""):
        return {
            prefix + name: np.asarray(recipe.draw(name, tuple(shape), seed))
            for name, shape in names
            if not name.endswith("num_batches_tracked")
        }

    return tensors
