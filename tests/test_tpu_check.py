"""What the compiled programs send between chips; with libtpu, as the TPU compiler says (`make tpu-check`)."""

from __future__ import annotations

import importlib.util

import pytest

import tpu_check
from compiled_text import Collective, CompiledText
from scaling import bert
from tpu_check import Case, largest_that_fits

needs_libtpu = pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu: run `make tpu-check`")

TEXT = """HloModule jit_step

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%take (stack: f32[3,4], at: s32[]) -> f32[1,4] {
  %stack = f32[3,4]{1,0} parameter(0)
  %at = s32[] parameter(1)
  ROOT %layer = f32[1,4]{1,0} dynamic-slice(%stack, %at)
}

%put (stack: f32[3,4], part: f32[1,4]) -> f32[3,4] {
  %stack.1 = f32[3,4]{1,0} parameter(0)
  %part = f32[1,4]{1,0} parameter(1)
  ROOT %all.1 = f32[3,4]{1,0} dynamic-update-slice(%stack.1, %part)
}

%body (all: (s32[], f32[3,4])) -> (s32[], f32[3,4]) {
  %all.2 = (s32[]{:S(2)}, f32[3,4]{1,0}) parameter(0)
  %place = s32[]{:S(2)} get-tuple-element(%all.2), index=0
  %held = f32[3,4]{1,0} get-tuple-element(%all.2), index=1
  %taken = f32[1,4]{1,0:T(8,128)S(1)} fusion(%held, %place), kind=kLoop, calls=%take
  %near = f32[1,4]{1,0:T(8,128)S(1)} add(%taken, %taken)
  %gathered = bf16[8,4]{1,0:T(8,128)S(1)} all-gather(%near), dimensions={0}
  %kernel = f32[1,4]{1,0:S(1)} custom-call(%near), custom_call_target="flash"
  ROOT %changed = f32[3,4]{1,0} fusion(%held, %kernel), kind=kLoop, calls=%put
}

%more (all: (s32[], f32[3,4])) -> pred[] {
  %all.3 = (s32[]{:S(2)}, f32[3,4]{1,0}) parameter(0)
  %count = s32[]{:S(2)} get-tuple-element(%all.3), index=0
  %turns = s32[]{:S(2)} constant(3)
  ROOT %goes_on = pred[]{:S(2)} compare(%count, %turns), direction=LT
}

%while_it_is_under_way (part: bf16[2,4]) -> bf16[8,4] {
  %part.1 = bf16[2,4]{1,0:S(1)} parameter(0)
  ROOT %gathered.1 = bf16[8,4]{1,0:S(1)} all-gather(%part.1), channel_id=7, dimensions={0}
}

%and_at_its_end (part: bf16[2,4]) -> bf16[8,4] {
  %part.2 = bf16[2,4]{1,0:S(1)} parameter(0)
  ROOT %gathered.2 = bf16[8,4]{1,0:S(1)} all-gather(%part.2), channel_id=7, dimensions={0}
}

%outer (a: (s32[], f32[3,4])) -> (s32[], f32[3,4]) {
  %a = (s32[]{:S(2)}, f32[3,4]{1,0}) parameter(0)
  %part.3 = bf16[2,4]{1,0:S(1)} constant(0)
  %first = bf16[8,4]{1,0:S(1)} fusion(%part.3), kind=kCustom, calls=%while_it_is_under_way
  %last = bf16[8,4]{1,0:S(1)} fusion(%part.3), kind=kCustom, calls=%and_at_its_end
  %loop.1 = (s32[], f32[3,4]) while(%a), condition=%more, body=%body
}

ENTRY %main (a: f32[3,4]) -> f32[3,4] {
  %b = f32[3,4]{1,0} parameter(0)
  %c = f32[4]{0:S(1)} constant({0, 0, 0, 0})
  %loop.2 = (s32[], f32[3,4]) while(%b), condition=%more, body=%outer, backend_config={"known_trip_count":{"n":"2"}}
  %starts = (f32[4]{0:S(1)}, f32[32]{0:S(1)}) all-gather-start(%c), dimensions={0}
  %here = (f32[3,4]{1,0:S(1)}, f32[3,4]{1,0}, u32[]{:S(2)}) copy-start(%b)
  ROOT %all = (f32[4]{0:S(1)}, pred[]{:S(1)}) all-reduce(%c, %c), to_apply=%add
}
"""


def test_what_a_loop_holds_counts_as_often_as_the_loop_turns() -> None:
    found = CompiledText(TEXT)
    assert found.collectives == [
        Collective("all-gather", 64, 6),
        Collective("all-gather", 64, 2),
        Collective("all-gather", 128, 1),
        Collective("all-reduce", 17, 1),
    ]
    assert found.custom_calls == {"flash": 6}


def test_only_what_goes_through_the_large_memory_is_moved_and_of_a_stack_only_a_part() -> None:
    one_layer, stack = 16, 48
    assert CompiledText(TEXT).moved_bytes == 6 * 2 * one_layer + stack


@pytest.mark.parametrize("most", [0, 1, 5, 64, 100, 1000])
def test_the_largest_number_is_found_to_an_eighth_of_the_guess(most: int) -> None:
    asked = []
    found = largest_that_fits(lambda number: asked.append(number) or number <= most, 64)
    assert found <= most < found + 8
    assert len(asked) == len(set(asked))


def _step(program: str, *, rows: int, heads: int = 2, mesh: str = "data", slice_: str = "v5e-8"):
    """The collectives of a small model's step."""
    config = bert(3, 64 * heads, heads)
    case = Case(slice_, "small", mesh, program, rows)
    found = tpu_check.compiled(tpu_check.lower(case, tpu_check.devices_of(slice_), config))
    return config, case, found


@needs_libtpu
@pytest.mark.parametrize("program", ["distil, packed", "distil, bucket of 64"])
def test_distilling_sends_the_exits_gradients_alone(program: str) -> None:
    sent = set()
    for rows in (8, 32):
        config, case, found = _step(program, rows=rows)
        assert tpu_check.unexpected(case, found, config) == []
        sent.add(sum(one["bytes"] * one["times"] for one in found["collectives"]))
    assert len(sent) == 1


@needs_libtpu
def test_other_collectives_are_named() -> None:
    config, case, found = _step("fine_tune", rows=8)
    assert "bytes sent" in str(tpu_check.unexpected(case._replace(program="distil, packed"), found, config))
    config, case, found = _step("distil, packed", rows=8, mesh="fsdp")
    assert "all-gather" in str(tpu_check.unexpected(case._replace(mesh="data"), found, config))
