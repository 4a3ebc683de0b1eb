"""The evaluation program, started as a user starts it."""

import json
import os
import pickle
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tokret.data.ground_truth import read_ground_truth
from tokret.errors import UserError
from tokret.evaluation.descriptor_inputs import read_descriptor_input
from tokret.io import restricted_pickle
from tokret.retrieval import metrics
from tokret.retrieval.store.record import Images, Record
from tokret.retrieval.store.writing import write_store

LEVELS = {"E": "easy", "M": "medium", "H": "hard"}
CUTOFFS = ("mP@1", "mP@5", "mP@10")


@pytest.fixture
def files(tmp_path):
    """Descriptors of 6 images and 2 queries, with their ground truth."""
    rng = np.random.default_rng(0)
    db, q = rng.standard_normal((6, 4)), rng.standard_normal((2, 4))
    gnd = {
        "imlist": [f"im{i}" for i in range(6)],
        "qimlist": ["q0", "q1"],
        "gnd": [
            {"bbx": [0, 0, 9, 9], "easy": [0], "hard": [1], "junk": [2]},
            {"bbx": [0, 0, 9, 9], "easy": [3], "hard": [], "junk": []},
        ],
    }
    paths = {
        "descriptors": tmp_path / "db.npy",
        "queries": tmp_path / "q.npy",
        "ground_truth": tmp_path / "gnd_small.json",
        "output": tmp_path / "out.json",
    }
    np.save(paths["descriptors"], db.astype(np.float32))
    np.save(paths["queries"], q.astype(np.float32))
    paths["ground_truth"].write_text(json.dumps(gnd))
    return paths


def evaluate(program, paths, *more):
    named = (f"--{name}={path}" for name, path in paths.items())
    return program("eval.py", *named, *more)


@pytest.mark.slow
def test_descriptors_are_scored_by_the_official_protocol(program, files, shared):
    truth = shared / "revisitop" / "gnd_roxford5k.pkl"
    gnd = restricted_pickle.load(truth.read_bytes())["gnd"]
    count, num_queries = 4993, len(gnd)
    scores = np.random.RandomState(1).rand(count, num_queries)  # noqa: NPY002 (the golden's)
    for q, lists in enumerate(gnd):
        scores[lists["easy"], q] += 1.0
        scores[lists["hard"], q] += 0.5
        scores[lists["junk"], q] += 0.7
    # Descriptors whose products have the order of these scores: the queries are the
    # identity and select a column of ranks, which are exact in float32.
    order = np.argsort(-scores, axis=0, kind="stable")
    database = np.zeros((count, num_queries), np.float32)
    np.put_along_axis(
        database, order, -np.arange(count, dtype=np.float32)[:, None], axis=0
    )
    np.save(files["descriptors"], database)
    np.save(files["queries"], np.eye(num_queries, dtype=np.float32))
    files["ground_truth"] = truth
    status, out, err = evaluate(program, files)
    assert status == 0, out + err
    found = json.loads(files["output"].read_text())
    golden = json.loads((shared / "revisitop" / "golden_map.json").read_text())
    golden = golden["roxford5k/noisy_oracle_seed1"]
    for level, numbers in golden["levels"].items():
        ours = found["benchmarks"]["roxford5k"][LEVELS[level]]
        assert ours["mAP"] == pytest.approx(numbers["mAP"], abs=1e-9)
        for name, value in zip(CUTOFFS, numbers["mP"], strict=True):
            assert ours[name] == pytest.approx(value, abs=1e-9)
    assert {"commit", "versions", "device", "precision"} <= set(found["environment"])
    assert "roxford5k" in out


def test_a_reranking_is_measured_before_and_after(program, files):
    for name in ("descriptors", "queries"):
        rows = np.load(files[name])
        np.save(files[name], rows / np.linalg.norm(rows, axis=1, keepdims=True))
    searched = np.load(files["queries"]), np.load(files["descriptors"])
    plain = metrics.evaluate(*searched, read_ground_truth(files["ground_truth"])).means
    files["rerank"] = "dba:n=1,aqe:n=2,superglobal:top=4"
    status, out, err = evaluate(program, files)
    assert status == 0, out + err
    found = json.loads(files["output"].read_text())["benchmarks"]["small"]
    after = found.pop("reranked")
    assert found == plain and set(after["numbers"]) == set(plain)
    assert after["numbers"] != plain
    assert [step["name"] for step in after["steps"]] == ["dba", "aqe", "superglobal"]
    last = after["steps"][-1]
    assert last["arguments"] == {"top": 4, "k": 9, "beta": 0.15}
    assert last["seconds"] > 0 and last["peak_bytes"] >= 0
    assert "db + dba + aqe + superglobal" in out
    assert "superglobal (top=4, k=9, beta=0.15): " in out


def no_such_reranking(files):
    files["rerank"] = "aqe,qe"


def lengths_that_differ(files):
    files["rerank"] = "aqe"


def hostile(files):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {files['output'].parent}/owned",)

    files["ground_truth"] = files["ground_truth"].with_suffix(".pkl")
    files["ground_truth"].write_bytes(pickle.dumps({"imlist": Payload()}))


def with_nan(files):
    array = np.load(files["queries"])
    array[1, 2] = np.nan
    np.save(files["queries"], array)


def short(files):
    np.save(files["descriptors"], np.load(files["descriptors"])[:5])


def narrow(files):
    np.save(files["queries"], np.load(files["queries"])[:, :3])


def nothing_to_find(files):
    gnd = json.loads(files["ground_truth"].read_text())
    for lists in gnd["gnd"]:
        lists.update(easy=[], hard=[])
    files["ground_truth"].write_text(json.dumps(gnd))


def not_there(files):
    files["descriptors"].unlink()


def enormous(files):
    np.save(files["queries"], np.full((2, 4), 1e300))


def over_an_input(files):
    files["output"] = files["ground_truth"]


def into_nowhere(files):
    files["output"] = files["output"].parent / "none" / "o.json"


def with_a_flag_of_the_other_form(files):
    files["step"] = 3


def unnamed(files):
    del files["output"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (hostile, "gnd_small.pkl"),
        (with_nan, "q.npy"),
        (short, "5 rows"),
        (narrow, "dimensions"),
        (nothing_to_find, "gnd_small.json"),
        (not_there, "db.npy"),
        (unnamed, "--output"),
        (enormous, "q.npy"),
        (over_an_input, "overwrite"),
        (into_nowhere, "make the folder"),
        (with_a_flag_of_the_other_form, "--step"),
        (no_such_reranking, "qe"),
        (lengths_that_differ, "row 0 of the queries has length"),
    ],
)
def test_bad_files_are_refused_and_nothing_is_written(
    program, refused, files, spoil, message
):
    output = files["output"]
    spoil(files)
    truth = files["ground_truth"].read_bytes()
    refused(evaluate(program, files), message)
    assert not output.exists()
    assert not (output.parent / "owned").exists()
    assert files["ground_truth"].read_bytes() == truth


def test_options_that_exclude_one_another_are_named(program, refused, tmp_path):
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    run = ("eval.py", f"--workdir={tmp_path}", "--output=ev")
    refused(program(*run), "--output: only ", f"written to {tmp_path / 'eval'}")
    other = program("eval.py", "--queries=q.npy", "--benchmark=roxford5k")
    refused(other, "--benchmark: only ", "not with --queries;")
    refused(program("eval.py"), "--workdir=DIR or --checkpoint=FOLDER is missing")


def make_store(folder, names, rows, bad=None, weights="0"):
    count, bad = len(names), bad or {}
    images = Images(tuple(names), ((32, 32),) * count, (None,) * count, ("0",) * count)
    descriptors = np.array(rows, np.float32)
    descriptors[list(bad)] = np.nan
    with write_store(folder, Record({"head": "gem"}, weights, {}, images)) as writer:
        writer.write(np.arange(count), descriptors, bad)
        writer.finish()
    return folder


def test_stores_are_read_as_files_are_and_bad_queries_are_skipped(
    program, refused, files, tmp_path
):
    db, q = np.load(files["descriptors"]), np.load(files["queries"])
    status, out, err = evaluate(program, files)
    assert status == 0, out + err
    plain = json.loads(files["output"].read_text())["benchmarks"]["small"]
    names = [f"im{i}.jpg" for i in range(6)]
    files["descriptors"] = make_store(tmp_path / "db", names, db)
    files["queries"] = make_store(tmp_path / "q", ["q0", "q1"], q)
    status, out, err = evaluate(program, files)
    assert status == 0, out + err
    assert json.loads(files["output"].read_text())["benchmarks"]["small"] == plain
    # The positive of the second query is image 3 alone.
    bad = {1: "q1 cannot be decoded"}
    files["queries"] = make_store(tmp_path / "bad", ["q0", "q1"], q, bad)
    refused(evaluate(program, files), "1 of 2 queries", "q1 cannot", "--skip_bad")
    status, out, err = evaluate(program, files, "--skip_bad")
    assert status == 0, out + err
    assert "q1: q1 cannot be decoded" in out
    found = json.loads(files["output"].read_text())["benchmarks"]["small"]
    assert found["bad"] == {"database": 0, "queries": 1}
    assert found["hard"] == plain["hard"]  # the second has no hard ones


def test_stores_of_other_images_or_weights_are_refused(tmp_path):
    store = make_store(tmp_path / "a", ["im0.jpg", "im1.png"], np.ones((2, 3)))
    other = make_store(tmp_path / "b", ["im0", "im1"], np.ones((2, 3)), weights="1")
    queries = read_descriptor_input(store, ["im0", "im1"], "imlist")
    assert queries.names == ("im0.jpg", "im1.png")
    database = read_descriptor_input(other, ["im0", "im1"], "imlist")
    with pytest.raises(UserError, match=r"weights: digest 0 and 1|digest 1 and 0"):
        database.check_model("descriptors", "queries", queries.record, None)
    with pytest.raises(UserError, match=r"row 1 is of 'im1\.png', but"):
        read_descriptor_input(store, ["im0", "im2"], "imlist")
    with pytest.raises(UserError, match="2 rows and imlist has 1"):
        read_descriptor_input(store, ["im0"], "imlist")


def test_descriptors_among_distractors_in_fewer_bytes_and_white(program, files):
    rng = np.random.default_rng(1)
    more = files["output"].parent / "more.npy"
    np.save(more, rng.standard_normal((300, 4)).astype(np.float32))
    extra = {"distractors": more, "compress": "int8,bf16", "whiten": more}
    status, out, err = evaluate(program, files | extra | {"whiten_dims": 3})
    assert status == 0, out + err
    found = json.loads(files["output"].read_text())
    numbers = found["benchmarks"]["small"]
    assert numbers["distractors"]["count"] == 300
    assert set(numbers["compressed"]) == {"int8", "bf16"}
    assert numbers["compressed"]["int8"]["image_bytes"] == 3
    assert found["environment"]["whitening"]["dims"] == 3
    assert (more.parent / "out.whitening.safetensors").is_file()
    for row in ("db + 300 ", "db + 300, int8 ", "db + 300, bf16 "):
        assert row in out


@pytest.mark.slow
def test_a_run_is_evaluated_beside_its_baselines(program, refused, trained, tmp_path):
    status, out, err = program("eval.py", f"--workdir={trained}", "--baselines")
    assert status == 0, out + err
    found = json.loads((trained / "eval" / "results.json").read_text())
    levels = found["benchmarks"]["synthetic_landmarks"]
    for level in LEVELS.values():
        assert 0 <= levels[level]["mAP"] <= 1
        assert set(levels[level]) == {"mAP", *CUTOFFS}
    assert set(found["baselines"]) == {"untrained", "colour histogram"}
    assert found["baselines"]["untrained"]["synthetic_landmarks"] != levels
    assert found["environment"]["checkpoint_step"] == 12
    with Image.open(trained / "eval" / "queries.png") as picture:
        assert picture.width > 1000
    for system in ("token", "untrained", "colour histogram"):
        assert system in out
    page = (trained / "eval" / "report.html").read_text(encoding="utf-8")
    assert page.count("<article") > 0 and "colour histogram" in page
    assert '"maps":["' in page
    with Image.open(trained / "eval" / "tokens.png") as picture:
        assert picture.height > 200
    # An older checkpoint is another model; the same one has the same numbers again.
    answers, outputs = [], []
    for step in (4, 12):
        options = (f"--workdir={trained}", f"--step={step}", "--no-report")
        status, out, err = program("eval.py", *options)
        assert status == 0, out + err
        text = (trained / "eval" / "results.json").read_text()
        answers.append(json.loads(text)["benchmarks"]["synthetic_landmarks"])
        outputs.append(out)
    assert answers[1] == levels and answers[0] != levels
    # One alone, without its run, has the config of its model.
    shutil.copytree(trained / "checkpoints" / "12", tmp_path / "alone")
    options = (f"--checkpoint={tmp_path / 'alone'}", "--no-report")
    status, out, err = program("eval.py", *options)
    assert status == 0, out + err
    text = (tmp_path / "eval" / "results.json").read_text()
    assert json.loads(text)["benchmarks"]["synthetic_landmarks"] == levels
    # Descriptors of step 12 exist since the first time.
    counts = [re.search(r"(\d+) of (\d+) exist", out).groups() for out in outputs]
    assert counts[0][0] == "0" and counts[1][0] == counts[1][1] != "0"
    assert "program" in outputs[0] and "padding" in outputs[0]
    assert "padding" not in outputs[1]
    # Its own database once more as distractors: those of another checkpoint are not.
    (store,) = (trained / "eval" / "descriptors").glob("*/step-12-*/database")
    flags = (f"--workdir={trained}", f"--distractors={store}", "--no-report")
    refused(program("eval.py", *flags, "--step=4"), "weights")
    status, out, err = program("eval.py", *flags, "--step=12", "--compress=bf16")
    assert status == 0, out + err
    text = (trained / "eval" / "results.json").read_text()
    among = json.loads(text)["benchmarks"]["synthetic_landmarks"]
    assert among["medium"] == levels["medium"]
    assert among["distractors"]["numbers"]["medium"]["mAP"] < levels["medium"]["mAP"]
    assert among["compressed"]["bf16"]["numbers"].keys() == levels.keys()
    assert (trained / "eval" / "report.html").read_text(encoding="utf-8") == page


@pytest.mark.slow
def test_what_a_run_does_not_hold(program, refused, trained, tmp_path):
    refused(program("eval.py", f"--workdir={trained}", "--step=5"), "4, 8, 12")
    refused(program("eval.py", f"--workdir={tmp_path}"), "no checkpoint")
    nowhere = ("eval.py", f"--workdir={trained}", "--image_folder=/nowhere")
    refused(program(*nowhere), "/nowhere")
    refused(program("eval.py"), "--workdir")
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "config.json").write_text("{")
    refused(program("eval.py", f"--workdir={tmp_path}"), "config.json")
