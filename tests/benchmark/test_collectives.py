import pytest

from tokret.benchmark.collectives import Collective, read_collectives, traffic

# From texts by libtpu and XLA, with shorter names.
MODULE = """\
HloModule jit_step, is_scheduled=true, num_partitions=4

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

%all-reduce-scatter.3 (input: f32[8,4]) -> f32[4,4] {
  %input = f32[8,4]{1,0:T(8,128)} parameter(0)
  %all-reduce.9 = f32[8,4]{1,0:T(8,128)} all-reduce(%input), channel_id=9, \
replica_groups=[2,2]<=[4], use_global_device_ids=true, to_apply=%add
  ROOT %slice = f32[4,4]{1,0:T(8,128)} dynamic-slice(%all-reduce.9, %x)
}

%inner (x: bf16[2,8]) -> bf16[4,8] {
  ROOT %all-gather.1 = bf16[4,8]{1,0:T(8,128)(2,1)} all-gather(%x), channel_id=3, \
replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}
}

%body.1 (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %g = f32[8]{0} get-tuple-element(%state), index=1
  %r = f32[8]{0} all-reduce(%g), replica_groups={{0,1,2,3}}, to_apply=%add
  %called = bf16[4,8]{1,0} call(%x), to_apply=%inner
  ROOT %t = (s32[], f32[8]) tuple(%i, %r)
}

%condition.1 (state: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %loop = (s32[]{:T(128)}, f32[8]{0}) while(%t0), condition=%condition.1, body=%body.1
  %both = (f32[32]{0:T(128)S(1)}, /*index=1*/bf16[16,2]{1,0:T(8,128)(2,1)}) \
all-reduce(%a, %b), replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_1'}, to_apply=%add
  %turned = f32[]{:T(128)} all-reduce(%a), replica_groups=mesh['axis_0'=2,'axis_1'=1,\
'axis_2'=2], device_ids=([2,2]T(1,0)) {'axis_0'}, use_global_device_ids=true
  %fused = f32[4,4]{1,0} fusion(%w), kind=kCustom, calls=%all-reduce-scatter.3
  %start = (bf16[2,4]{1,0}, bf16[8,4]{1,0}) all-gather-start(%q), replica_groups={}, \
dimensions={0}
  %done = bf16[8,4]{1,0} all-gather-done(%start)
  %sent = (f32[6]{0}, f32[6]{0}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%e), source_target_pairs={{0,1},{1,0}}
  %arrived = f32[6]{0} collective-permute-done(%sent)
  ROOT %out = f32[8]{0} get-tuple-element(%loop), metadata={op_name="all-gather"}
}
"""


def groups(*rows):
    return frozenset(map(frozenset, rows))


def test_every_collective_is_read_once():
    found = {(each.kind, each.shapes): each for each in read_collectives(MODULE)}
    along_data, along_model = groups((0, 2), (1, 3)), groups((0, 1), (2, 3))
    expected = [
        # A fusion that keeps a slice of the sum.
        Collective("reduce-scatter", (("f32", (8, 4)),), along_model, False),
        # Called by the loop's body.
        Collective("all-gather", (("bf16", (4, 8)),), along_data, True),
        Collective("all-reduce", (("f32", (8,)),), groups((0, 1, 2, 3)), True),
        Collective(
            "all-reduce", (("f32", (32,)), ("bf16", (16, 2))), along_model, False
        ),
        Collective("all-reduce", (("f32", ()),), along_model, False),
        # The result alone, not the operand beside it, nor the end of it.
        Collective("all-gather", (("bf16", (8, 4)),), frozenset(), False),
        Collective("collective-permute", (("f32", (6,)),), frozenset(), False),
    ]
    assert found == {(each.kind, each.shapes): each for each in expected}
    assert len(read_collectives(MODULE)) == len(expected)


def total(kind, group_size, **sums):
    return {"kind": kind, "group_size": group_size, **sums}


def test_they_are_summed_by_kind_and_group():
    found = traffic(read_collectives(MODULE), iterations=3)
    assert found == [
        total("all-reduce", 2, number=2, bytes=32 * 4 + 32 * 2 + 4, largest=192),
        total("all-gather", 2, number=3, bytes=3 * 64, largest=64),
        total("reduce-scatter", 2, number=1, bytes=128, largest=128),
        total("all-reduce", 4, number=3, bytes=3 * 32, largest=32),
        total("all-gather", 0, number=1, bytes=64, largest=64),
        total("collective-permute", 0, number=1, bytes=24, largest=24),
    ]


@pytest.mark.parametrize(
    ("dtype", "size"), [("f32", 40), ("bf16", 20), ("f8e4m3fn", 10), ("pred", 10)]
)
def test_bytes_of_a_dtype(dtype, size):
    line = (
        f"  %x = {dtype}[5,2]{{1,0}} all-to-all(%y), replica_groups={{{{0,1}},{{2,3}}}}"
    )
    (one,) = read_collectives(f"ENTRY %main () -> f32[] {{\n{line}\n}}\n")
    assert (one.bytes, one.group_size) == (size, 2)
    assert one.groups == groups((0, 1), (2, 3))


def test_a_program_of_one_device_has_none():
    assert read_collectives("") == []
    assert traffic([]) == []
