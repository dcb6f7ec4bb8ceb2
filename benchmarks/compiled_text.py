"""What a compiled program sends between devices, moves through memory and calls, from its text after XLA's passes.

`cost_analysis` counts the body of a loop once, and on a TPU counts fast on-chip memory as it counts the large one. Here
each computation counts as often as it runs, a branch as taken, and only arrays in the large memory count as moved: a
TPU's arrays elsewhere have `S(n)` in their layout.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")
INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\(([^)]*)\)(.*)$")
CALLED = re.compile(r"\b(body|condition|calls|to_apply|branch_computations|\w+_computation)=(\{[^}]*\}|%?[\w.-]+)")
KNOWN_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')
CHANNEL = re.compile(r"\bchannel_id=\d+")
CUSTOM_CALL = re.compile(r'custom_call_target="([^"]*)"')
ARRAY = re.compile(r"\b(pred|bf16|[fsu]\d+)\[([\d,]*)\]({[^}]*})?")

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
MOVES_NOTHING = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call"}
ALLOCATES = 'custom_call_target="AllocateBuffer"'
READS_A_PART = {"dynamic-slice", "slice", "gather"}
WRITES_A_PART = {"dynamic-update-slice": 1, "scatter": 2}
"""By opcode, which operand is the part that is written over the first one."""


class Array(NamedTuple):
    """An array of a program."""

    bytes: int
    in_memory: bool
    """In the large memory, not on the chip."""


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    is_root: bool
    arrays: list[Array]
    """Of its result."""
    opcode: str
    operands: list[str]
    rest: str
    """What stands behind the operands."""


class Collective(NamedTuple):
    """One collective of a program."""

    kind: str
    bytes: int
    """Of its result on each device, each time."""
    times: int
    """How often a run of the program has it."""


class CompiledText:
    """The computations of a program, and how often each runs."""

    def __init__(self, text: str) -> None:
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.times: Counter[str] = Counter()
        """By computation; 0 for those inside a fusion or a reduction, which are no steps of their own."""
        self.runs: Counter[str] = Counter()
        """The same, with those inside others."""
        for line in text.splitlines():
            if match := COMPUTATION.match(line):
                current = self.computations[match[2]] = {}
                self.times[match[2]] = self.runs[match[2]] = 1 if match[1] else 0
            elif match := INSTRUCTION.match(line):
                root, name, result, opcode, operands, rest = match.groups()
                names = re.findall(r"%([\w.-]+)", operands) or re.findall(r"[\w.-]+", operands)
                current[name] = Instruction(name, bool(root), _arrays(result), opcode, names, rest)
        # A computation stands above those that call it.
        for name in reversed(self.computations):
            for instruction in self.computations[name].values():
                called = _called(instruction)
                trips = self._trips(instruction, *called.get("condition", [""]))
                for one in itertools.chain(*called.values()):
                    self.runs[one] += self.runs[name] * trips
                    if instruction.opcode in ("while", "conditional", "call"):
                        self.times[one] += self.times[name] * trips

    def _trips(self, loop: Instruction, condition: str) -> int:
        """Turns of a loop: those that XLA knows, or the bound that its count from 0 is compared with; else 1."""
        if known := KNOWN_TRIPS.search(loop.rest):
            return int(known[1])
        body = self.computations.get(condition, {})
        root = next((one for one in body.values() if one.is_root), None)
        if root is None or root.opcode != "compare":
            return 1
        bounds = [body[name] for name in root.operands if name in body and body[name].opcode == "constant"]
        return int(bounds[0].operands[0]) if bounds else 1

    @property
    def collectives(self) -> list[Collective]:
        """In the text's order; one that several fusions share, as they compute while it is under way, is there once."""
        found: dict[str, Collective] = {}
        for name, body in self.computations.items():
            for one in body.values():
                kind = one.opcode.removesuffix("-start")
                if kind in COLLECTIVES:
                    sizes = [array.bytes for array in one.arrays]
                    # The start of such a transfer gives its operands, its results and flags: the larger side counts.
                    is_pair = one.opcode.endswith("-start") and kind != "all-reduce"
                    channel = CHANNEL.search(one.rest)
                    counted = Collective(kind, max(sizes) if is_pair else sum(sizes), self.runs[name])
                    found.setdefault(channel[0] if channel else f"{name} {one.name}", counted)
        return list(found.values())

    @property
    def custom_calls(self) -> dict[str, int]:
        """How often a run calls each custom kernel."""
        calls: Counter[str] = Counter()
        for _, one, times in self._steps():
            for name in CUSTOM_CALL.findall(one.rest):
                calls[name] += times
        return dict(calls)

    @property
    def moved_bytes(self) -> int:
        """Bytes that a run reads from and writes to the large memory of a device, padding of layouts left out."""
        return sum(times * self._moved(one, self.computations[name]) for name, one, times in self._steps())

    def _steps(self) -> Iterator[tuple[str, Instruction, int]]:
        """Each instruction that is a step of its own: its computation, itself, and how often it runs."""
        for name, times in self.times.items():
            for one in self.computations[name].values() if times else ():
                yield name, one, times

    def _moved(self, one: Instruction, computation: dict[str, Instruction]) -> int:
        if one.opcode in MOVES_NOTHING or one.opcode.endswith(("-done", "-update")) or ALLOCATES in one.rest:
            return 0
        if one.opcode.endswith("-start"):  # gives both sides; of a part of an array, the smaller one moves
            sides = [array for array in one.arrays if array.bytes > 8]
            return min((array.bytes for array in sides), default=0) * sum(array.in_memory for array in sides)
        read = sum(
            self._read(one, place, array.bytes)
            for place, name in enumerate(one.operands)
            for array in computation[name].arrays
            if array.in_memory
        )
        written = zip(self._written(one, computation), one.arrays, strict=True)
        return read + sum(size for size, array in written if array.in_memory)

    def _read(self, one: Instruction, place: int, whole: int) -> int:
        """Bytes of an operand that are read; of a fusion's, what the instructions in it take."""
        if one.opcode in READS_A_PART and place == 0:
            return one.arrays[0].bytes
        if one.opcode in WRITES_A_PART and place == 0:
            return 0
        if one.opcode == "fusion":
            inner = self.computations[_called(one)["calls"][0]]
            (source,) = (one for one in inner.values() if one.opcode == "parameter" and one.operands == [str(place)])
            return min(whole, self._taken(source, whole, inner))
        return whole

    def _taken(self, source: Instruction, whole: int, inner: dict[str, Instruction]) -> int:
        uses = [
            (user, place) for user in inner.values() for place, name in enumerate(user.operands) if name == source.name
        ]
        return sum(
            self._taken(user, whole, inner) if user.opcode == "bitcast" else self._read(user, place, whole)
            for user, place in uses
        )

    def _written(self, one: Instruction, computation: dict[str, Instruction]) -> list[int]:
        """Bytes of each result that are written: of an array that is updated in place, the update."""
        if one.opcode in WRITES_A_PART:
            return [computation[one.operands[WRITES_A_PART[one.opcode]]].arrays[0].bytes]
        if one.opcode == "bitcast":
            return self._written(computation[one.operands[0]], computation)
        if one.opcode == "fusion":
            inner = self.computations[_called(one)["calls"][0]]
            (root,) = (each for each in inner.values() if each.is_root)
            roots = [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]
            return [size for each in roots for size in self._written(each, inner)]
        return [array.bytes for array in one.arrays]


def _called(one: Instruction) -> dict[str, list[str]]:
    """The computations that an instruction calls, by the word for each."""
    return {word: re.findall(r"[\w.-]+", names) for word, names in CALLED.findall(one.rest)}


def _arrays(shapes: str) -> list[Array]:
    found = []
    for dtype, sizes, layout in ARRAY.findall(shapes):
        bits = 8 if dtype == "pred" else int(re.sub(r"\D", "", dtype))
        count = math.prod(int(size) for size in sizes.split(",") if size)
        found.append(Array(count * bits // 8, "S(" not in layout))
    return found
