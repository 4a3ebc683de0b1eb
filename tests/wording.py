"""Counts words that this project avoids, in names, errors, comments and docs.

    python tests/wording.py [PATH ...]

Each pattern stands for a term that readers had to look at twice; the message names the
usual one. `ALLOWED` holds what stays, with the reason.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".py", ".md", ".html", ".css", ".js", ".cfg", ".toml"}

# Pattern, and what to write instead. Words are matched inside snake_case names too.
AVOIDED = [
    (r"without numbers|no numbers\b", "non-finite"),
    (r"(?<!leave_one_)\b(left|leave|leaves|leaving)[ _-]out\b|\bleft_out", "skipped"),
    (r"\bst(?:and|ands|anding|ood)[ _]still\b|\bkeep_still\b", "frozen"),
    (r"\b(go|goes|gone|going|went)[ _]on\b", "resumes, continues"),
    (r"\bbegun\b", "started"),
    (r"\banew\b", "again"),
    (r"describ(?:e|es|ed|ing)\b|\bdescribers?\b", "embed, extract, document"),
    (r"(?<![a-z])(?:tell|tells|told|telling)(?![a-z])", "report, print, log"),
    (r"(?<![a-z])(?:say|says|said|saying)(?![a-z])", "report, print, log, document"),
    (r"(?<![a-z])(?:lie|lies|lying)(?![a-z])", "is in, is stored in"),
    (r"(?<![a-z])(?:ask|asks|asked|asking)(?![a-z])", "query; request"),
    (r"(?<![a-z])finds(?![a-z])", "retrieves, returns"),
    (r"passed over|(?<![a-z])put[ _]aside", "skipped; moved to"),
    (r"(?<![a-z])shares?(?![a-z])", "fraction"),
    (r"average of (?:the )?weights|averaged weights", "EMA"),
    (r"parts of (?:a|the) batch", "micro-batches"),
    (r"(?<![a-z])doctor(?![a-z])", "check"),
    (r"(?<![a-z])rooms?(?![a-z])|\bthe house\b", "modules, architecture"),
    (r"(?<![a-z])(?:spools?|studio)(?![a-z])", "unpacked archive, photo effects"),
    (r"among_labels", "leave_one_out"),
    (r"what is there\b", "existing"),
    (r"query_deviation", "query_init_std"),
    (r"trunk_rate\b", "trunk_lr_multiplier"),
    (r"updates\.(?:parts|average|skips)\b", "grad_accum_steps, ema_decay, ..."),
    (r"schedule\.(?:warmup|batch)\b(?!_)", "warmup_init_lr, reference_batch_size"),
    (r"model\.start\b", "model.initialiser"),
]
FILE_NAMES = {
    *("sides", "parts", "shown", "choices", "levels", "presenting", "spools"),
    *("studio", "chain", "among_labels", "norms", "products", "widening", "starts"),
    *("utils", "helpers", "common", "doctor", "describing"),
}
# Path, a regular expression of the line, and why it stays.
ALLOWED: list[tuple[str, str, str]] = [
    (r"tests/(test_)?wording\.py", ".*", "the list itself and its test"),
    (".*", r"\btell\(", "a method of Python's files"),
    (r"tests/test_findings\.py", "as described", "what the scripts print"),
    (".*", r"queued-resources describe|\} describe", "a command of gcloud"),
    (".*", r"leave[_-]out", "a parameter of searches and a field of the API"),
    (".*", r"np\.(may_share|shares)_memory", "functions of NumPy"),
]


def allowed(path: Path, line: str) -> bool:
    """Whether `ALLOWED` has a reason for this line."""
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
    return any(
        re.fullmatch(where, name) and re.search(what, line)
        for where, what, _ in ALLOWED
    )


def occurrences(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yields (line number, word, what to write instead) of a file."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if allowed(path, line):
            continue
        for pattern, instead in AVOIDED:
            for match in re.finditer(pattern, line, re.IGNORECASE):
                yield number, match[0], instead


def files(paths: list[Path]) -> Iterator[Path]:
    """Yields the text files below some paths."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            hidden = any(
                part in (".venv", ".git", "__pycache__") for part in file.parts
            )
            if file.suffix in SUFFIXES and file.is_file() and not hidden:
                yield file


def main() -> int:
    """Prints every occurrence; the exit status is 1 if there is one."""
    paths = [Path(a).resolve() for a in sys.argv[1:]] or [ROOT]
    count = 0
    for file in files(paths):
        if file.suffix == ".py" and file.stem.removeprefix("test_") in FILE_NAMES:
            count += 1
            print(f"{file}: the file's name")
        for number, word, instead in occurrences(file):
            count += 1
            print(f"{file}:{number}: {word!r}; write {instead}")
    print(f"{count} occurrences")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
