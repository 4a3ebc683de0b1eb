from tokret.retrieval.tables import (
    WIDTH,
    TableRow,
    cost_lines,
    table_rows,
    text_table,
)

LEVEL = {"mAP": 0.8216, "mP@1": 1.0, "mP@5": 0.98, "mP@10": 0.9512}
LEVELS = {"easy": LEVEL, "medium": LEVEL, "hard": {**LEVEL, "mAP": float("nan")}}
LABELLED = {
    "mAP": 0.48508,
    **{"recall@1": 1.0, "recall@5": 1.0, "recall@10": 1.0},
    **{"mAP@1": 1.0, "mAP@5": 0.75, "mAP@10": 0.625},
}
COST = {
    **{"image_bytes": 16, "all_bytes": 5120, "build_seconds": 0.5},
    **{"by": "tokret", "one": [0.001, 0.002], "at_once": 0.0001},
}


def test_the_table_by_protocol():
    rows = [
        TableRow("R50-Token", "roxford5k", LEVELS),
        TableRow("R101-Token", "rparis6k", LEVELS),
    ]
    assert text_table(rows).splitlines() == [
        "                         ------- mAP -------    ------ mP@10 ------",
        "system      benchmark     Easy Medium   Hard     Easy Medium   Hard",
        "-------------------------------------------------------------------",
        "R50-Token   roxford5k    82.16  82.16      -    95.12  95.12  95.12",
        "R101-Token  rparis6k     82.16  82.16      -    95.12  95.12  95.12",
    ]


def test_the_table_of_leave_one_out():
    assert text_table([TableRow("colour histogram", "grocery", LABELLED)]) == "\n".join(
        [
            "system            benchmark      mAP    R@1    R@5   R@10 mAP@10",
            "----------------------------------------------------------------",
            "colour histogram  grocery      48.51 100.00 100.00 100.00  62.50",
        ]
    )


def test_long_names_are_cut_to_the_width_of_a_page():
    lines = text_table([TableRow("s" * 200, "b" * 200, LEVELS)]).splitlines()
    assert max(len(line) for line in lines) == WIDTH
    assert lines[3].endswith("82.16  82.16      -    95.12  95.12  95.12")
    assert "ss~  " in lines[3] and "bb~  " in lines[3]
    lines = text_table([TableRow("s" * 200, "short", LABELLED)]).splitlines()
    assert max(len(line) for line in lines) == WIDTH


def test_variants_follow_their_system():
    compressed = {form: COST | {"numbers": LABELLED} for form in ("int8", "bf16")}
    for count, name in ((320, "320"), (12_345, "12k"), (1_001_001, "1M")):
        found = {
            "all": LABELLED,
            "distractors": {"count": count, "numbers": LABELLED},
            "compressed": compressed,
        }
        rows = table_rows("small", {"token": found, "untrained": {"all": LABELLED}})
        assert [row.system for row in rows] == [
            *("token", f"token + {name}", f"token + {name}, int8"),
            *(f"token + {name}, bf16", "untrained"),
        ]
        assert {row.benchmark for row in rows} == {"small"}
        assert all(row.numbers == LABELLED for row in rows)
    rows = table_rows("small", {"token": {"all": LABELLED, "compressed": compressed}})
    assert [row.system for row in rows] == ["token", "token, int8", "token, bf16"]


def test_costs_are_a_line_each():
    found = {"all": LABELLED, "compressed": {"int8": COST | {"numbers": LABELLED}}}
    assert cost_lines({"token": found}) == [
        "token, int8: 16 bytes an image, 0.01 MB, built in 0.5 s; a query by tokret "
        "1.00 ms (p99 2.00), among all 0.10 ms"
    ]
