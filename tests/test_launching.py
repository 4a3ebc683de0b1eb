"""The guide to pods and examples/launch: every command is checked, none is run.

Those of tokret are read by its own command line. Of other programs OPTIONS lists what
their references have, as of the versions that docs/pods.md names.
"""

import importlib
import itertools
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping

import pytest
import yaml

from tokret.command_line import choose, parse
from tokret.config.files import load_config

PAGES = ("docs/pods.md", "docs/object-storage.md")
SCRIPTS = ("setup.sh", "service.sh", "tpu_vm.sh", "xpk.sh", "slurm.sh")
QUEUED = "compute tpus queued-resources"
OPTIONS = {
    "gcloud": {
        "config set project": "",
        "services enable": "",
        "auth application-default login": "",
        "auth configure-docker": "",
        "artifacts repositories create": "repository-format location",
        "iam service-accounts create": "",
        "iam service-accounts delete": "",
        "storage buckets create": (
            "location uniform-bucket-level-access soft-delete-duration"
        ),
        "storage buckets add-iam-policy-binding": "member role",
        "storage cat": "",
        "storage rm": "recursive",
        "storage rsync": "recursive",
        f"{QUEUED} create": (
            "node-id zone accelerator-type runtime-version service-account spot"
        ),
        f"{QUEUED} describe": "zone format",
        f"{QUEUED} delete": "zone force quiet",
        "compute tpus tpu-vm ssh": "zone worker command",
        "compute tpus tpu-vm scp": "zone worker",
    },
    "xpk": {
        "cluster create": "project zone cluster tpu-type num-slices spot",
        "cluster delete": "project zone cluster",
        "workload create": (
            "project zone cluster workload tpu-type num-slices docker-image command "
            "max-restarts restart-on-exit-codes termination-grace-period-seconds"
        ),
        "workload list": "project zone cluster wait-for-job-completion",
        "workload delete": "project zone cluster workload",
    },
    "sky": {"check": "", "jobs launch": "env", "jobs logs": ""},
    "docker": {"build": "tag file", "push": ""},
    "systemctl": {"stop": "", "show": "property value", "reset-failed": ""},
    "systemd-run": {"": "unit uid property"},
    "journalctl": {"": "unit follow lines no-pager"},
    "uv": {"venv": "clear python", "pip install": "python"},
    "squeue": {"": "noheader jobs format"},
    "scontrol": {"requeue": ""},
    "gcsfuse": {"": "implicit-dirs o file-cache-max-size-mb cache-dir"},
    "mount-s3": {"": "read-only cache"},
}
PROGRAMS = {*OPTIONS, "tokret"}
TASK = {"name", "resources", "envs", "workdir", "setup", "run"}
RESOURCES = {"infra", "accelerators", "accelerator_args", "use_spot", "job_recovery"}


@pytest.fixture(scope="module")
def root(request):
    return request.config.rootpath


@pytest.fixture(scope="module")
def texts(root):
    """Shell commands by file: of pages the blocks of code, of scripts all."""
    found = {}
    for page in PAGES:
        blocks = re.findall(
            r"^```\w*\n(.*?)^```", (root / page).read_text(), re.M | re.S
        )
        found[page] = "".join(blocks)
    launch = root / "examples" / "launch"
    found |= {name: (launch / name).read_text() for name in SCRIPTS}
    task = yaml.safe_load((launch / "skypilot.yaml").read_text())
    return found | {"skypilot.yaml": f"{task['setup']}\n{task['run']}"}


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Lists known programs with their arguments; also those in quoted commands."""
    text = re.sub(r"^# (?=xpk )", "", text.replace("\\\n", " "), flags=re.M)
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();|&<>")
        lexer.whitespace_split = True
        words = ["", *lexer]
        for place in range(1, len(words)):
            word = words[place].removeprefix("--command=")
            if " " in word:
                yield from commands(word)
            name = word.rpartition("/")[2]
            before = words[place - 1]
            begins = before in ("", "{", "sudo", "srun") or before[-1] in "();|&"
            if name in PROGRAMS and (begins or "/bin/" in word):
                yield name, [*itertools.takewhile(is_argument, words[place + 1 :])]


def is_argument(word: str) -> bool:
    return not re.fullmatch("[();|&<>]+", word)


def test_the_commands_of_tokret_are_read_by_its_command_line(texts, root, monkeypatch):
    monkeypatch.chdir(root)
    count = 0
    for text in texts.values():
        for name, arguments in commands(text):
            if name == "tokret":
                check(arguments)
                count += 1
    assert count >= 12


def check(arguments):
    """Reads a command line as tokret does, with its config and the fields of that."""
    name, *rest = arguments
    module = importlib.import_module(f"tokret.commands.{name}")
    command = getattr(module, "COMMANDS", None) or module.main
    while isinstance(command, Mapping):
        chosen, *rest = choose(command, rest, name)
        command = command[chosen]
    call = parse(command, [re.sub(r"\$\{?\w+\}?", "bucket", w) for w in rest], name)
    if name == "train":
        load_config(call.keywords["config"], call.keywords["fields"])


def test_the_options_of_other_programs_are_theirs(texts):
    seen = set()
    for text in texts.values():
        for name, arguments in commands(text):
            if name != "tokret":
                seen.add((name, known_command(name, arguments)))
    assert {name for name, _ in seen} >= {"gcloud", "xpk", "sky", "systemd-run", "uv"}
    assert ("gcloud", f"{QUEUED} create") in seen and ("xpk", "workload create") in seen


def known_command(name, arguments):
    line = " ".join(arguments)
    found = [key for key in OPTIONS[name] if line == key or line.startswith(f"{key} ")]
    found += [""] if "" in OPTIONS[name] else []
    assert found, f"{name} {line}"
    used = {w[2:].partition("=")[0] for w in arguments if w.startswith("--")}
    unknown = used - set(OPTIONS[name][found[0]].split())
    assert not unknown, f"{name} {line}: {unknown}"
    return found[0]


def test_the_scripts_are_valid_and_the_guide_names_all_files(root):
    launch = root / "examples" / "launch"
    guide = (root / "docs" / "pods.md").read_text()
    for file in launch.iterdir():
        assert f"(../examples/launch/{file.name})" in guide
        if file.suffix == ".sh":
            done = subprocess.run(["bash", "-n", file], capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, ""), file
    assert {*SCRIPTS, "skypilot.yaml", "Dockerfile"} == {
        p.name for p in launch.iterdir()
    }


def test_the_task_of_skypilot(root):
    path = root / "examples" / "launch" / "skypilot.yaml"
    task = yaml.safe_load(path.read_text())
    assert set(task) <= TASK and set(task["resources"]) <= RESOURCES
    resources = task["resources"]
    assert resources["accelerators"] == "tpu-v5litepod-16"
    assert set(resources["accelerator_args"]) == {"runtime_version"}
    assert resources["job_recovery"] == {"recover_on_exit_codes": [75]}
    assert all(type(task[name]) is str for name in ("setup", "run", "workdir"))


def test_the_job_of_slurm(root):
    text = (root / "examples" / "launch" / "slurm.sh").read_text()
    options = re.findall(r"^#SBATCH (.*)", text, re.M)
    known = (
        r"--(job-name|output)=\S+|--(nodes|ntasks-per-node|gpus-per-node|cpus-per-task)"
        r"=\d+|--time=\d+:\d\d:\d\d|--signal=TERM@\d+|--requeue|--open-mode=append"
    )
    assert options and all(re.fullmatch(known, option) for option in options)
    values = dict(option.strip("-").partition("=")[::2] for option in options)
    # JAX gives each task the GPU of its number.
    assert values["ntasks-per-node"] == values["gpus-per-node"]
    # Slurm reads no option after the first command.
    assert text.rindex("#SBATCH") < text.index("\nset ")


# The slice is pre-empted once: what gcloud prints, by the number of the round.
GCLOUD = """
round=$(cat round 2>/dev/null || echo 0)
echo "$*" >> calls
case "$*" in
  *"queued-resources describe"*)
    echo $((round + 1)) > round
    states=(- WAITING_FOR_RESOURCES ACTIVE ACTIVE SUSPENDED - ACTIVE ACTIVE ACTIVE)
    [[ ${states[$round]} != - ]] && echo "${states[$round]}" ;;
  *"systemctl show"*)
    states=(x x x dead running x x dead running exited)
    echo "${states[$round]}" ;;
esac
"""


def test_a_slice_that_was_preempted_is_requested_again(root, tmp_path):
    script = root / "examples" / "launch" / "tpu_vm.sh"
    done = run(script, tmp_path, gcloud=GCLOUD, sleep="")
    assert done.returncode == 0 and done.stdout.startswith("finished: gs://")
    calls = (tmp_path / "calls").read_text()
    verbs = re.findall(r"queued-resources (create|delete)|(service\.sh ~)", calls)
    assert ["".join(verb) for verb in verbs] == 2 * ["create", "service.sh ~", "delete"]


@pytest.mark.parametrize(
    ("status", "state", "requeued"),
    [(75, "RUNNING", True), (75, "COMPLETING", False), (2, "RUNNING", False)],
)
def test_a_job_that_was_stopped_is_queued_again(
    status, state, requeued, root, tmp_path
):
    (tmp_path / "tokret" / "bin").mkdir(parents=True)
    (tmp_path / "tokret" / "bin" / "activate").touch()
    programs = {"srun": f"exit {status}", "squeue": f"echo {state}"}
    script = root / "examples" / "launch" / "slurm.sh"
    done = run(script, tmp_path, scontrol="echo $* > requeued", **programs)
    assert (done.returncode, done.stderr) == (status, "")
    assert (tmp_path / "requeued").exists() == requeued


def run(script, folder, **programs):
    """Runs a script in a folder, with stand-ins for programs."""
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    return subprocess.run(
        ["bash", script],
        cwd=folder,
        env={
            "PATH": f"{folder}:/usr/bin:/bin",
            "HOME": f"{folder}",
            "SLURM_JOB_ID": "7",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_image_has_the_wheel(root):
    text = (root / "examples" / "launch" / "Dockerfile").read_text()
    names = re.findall(r"^([A-Z]+) ", text, re.M)
    assert names == ["FROM", "COPY", "RUN"]
