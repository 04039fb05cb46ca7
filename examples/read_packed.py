"""Prints the packed labels of one record of a shard, decoded with nothing of labelgen: storage/FORMAT.md as a program.

    python examples/read_packed.py labels/data/000000-0-1a2b3c4d.parquet 3

It is here to be read beside sections 7 and 10 to 12 of FORMAT.md, by whoever writes a reader in another language. It is
slow and checks little; to use labels from Python, `import labelstore`. pyarrow reads Parquet and zstd for it.
"""

from __future__ import annotations

import hashlib
import math
import struct
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TABLE_BITS, NUM_SYMBOLS, ESCAPE, DIRECT_BITS, DIRECT = 10, 128, 127, 5, 32
NUM_LANES, MIN_LABELS_IN_LANES = 4, 32
LIST_CLASSES, RANK_CLASSES, NUM_PLACES, NUM_VALUE_PLACES = 16, 12, 28, 12
TARGET_STEPS, ENTROPY_STEPS, EXACT_REST_BITS = 32, 2048, 20
NUM_CONTEXTS, CLUSTER_LOW_BITS = 466, 5
CLUSTER_HIGH, CLUSTER_LOW, SHAPE, FIT, SIZE, GAP = 0, 1, 33, 34, 50, 66
VALUE, COUNT, TAIL, RANK_INSIDE, RANK_OUTSIDE, TARGET_INSIDE, TARGET_OUTSIDE = 178, 370, 386, 402, 418, 434, 450
LN2 = 11629080  # in units of 2^-24 nats


@dataclass
class Label:
    """One label; candidates by rising place until `put_in_order`."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    draw_counts: list[int] = field(default_factory=list)
    tail_mass: float = 0.0
    target_rank: int = 0
    target_logprob: float = 0.0
    entropy: float | None = None

    def put_in_order(self, order: list[int]) -> None:
        self.token_ids = [self.token_ids[i] for i in order]
        self.logprobs = [self.logprobs[i] for i in order]
        self.draw_counts = [self.draw_counts[i] for i in order] if self.draw_counts else []


class Model:
    """FORMAT.md, section 11."""

    def __init__(self, data: bytes) -> None:
        magic, num_bytes, *numbers = struct.unpack("<4s9I", data[:40])
        assert magic == b"LSM0"
        self.vocab_size, self.size, self.inverse_step, self.exact_base, flags, _, num_seen, num_clusters = numbers
        self.has_draws, self.has_entropy = bool(flags & 1), bool(flags & 2)
        content = memoryview(pa.Codec("zstd").decompress(data[40:], num_bytes, asbytes=True))
        class_sizes = struct.unpack("<128I", content[:512])
        at = 512
        seen = _gap_planes(content[at : at + 3 * num_seen], list(class_sizes))
        at += 3 * num_seen
        is_seen = set(seen)
        self.id_of_rank = seen + [i for i in range(self.vocab_size) if i not in is_seen]
        num_sizes = LIST_CLASSES * num_clusters
        list_sizes = list(struct.unpack(f"<{num_sizes}H", content[at : at + 2 * num_sizes]))
        at += 2 * num_sizes
        num_listed = sum(list_sizes)
        ranks = _gap_planes(content[at : at + 3 * num_listed], list_sizes)
        at += 3 * num_listed
        self.list_ids: list[list[int]] = []
        self.list_classes: list[list[int]] = []
        first = 0
        for cluster in range(num_clusters):
            sizes = list_sizes[cluster * LIST_CLASSES : (cluster + 1) * LIST_CLASSES]
            listed = ranks[first : first + sum(sizes)]
            self.list_ids.append([self.id_of_rank[rank] for rank in listed])
            self.list_classes.append([c for c, size in enumerate(sizes) for _ in range(size)])
            first += sum(sizes)
        self.tables: list[list[tuple[int, int, int]]] = []  # context -> slot -> symbol, frequency, start
        for _ in range(NUM_CONTEXTS):
            frequencies = struct.unpack(f"<{NUM_SYMBOLS}H", content[at : at + 2 * NUM_SYMBOLS])
            at += 2 * NUM_SYMBOLS
            table: list[tuple[int, int, int]] = []
            for symbol, frequency in enumerate(frequencies):
                table += [(symbol, frequency, len(table))] * frequency
            assert len(table) == 1 << TABLE_BITS
            self.tables.append(table)
        assert at == len(content)

    def place_class(self, cluster: int, place: int) -> int:
        classes = self.list_classes[cluster]
        if place < len(classes):
            return classes[place]
        return LIST_CLASSES + min(RANK_CLASSES - 1, (place - len(classes)).bit_length() >> 1)

    def id_at(self, cluster: int, place: int) -> int:
        ids = self.list_ids[cluster]
        return ids[place] if place < len(ids) else self.id_of_rank[place - len(ids)]


class Lane:
    """One coder of a record: FORMAT.md, "Lanes" and "Steps"."""

    def __init__(self, model: Model, words: list[int]) -> None:
        self.model = model
        self.words = words
        self.state = words[0] | words[1] << 32
        self.read = 2

    def number(self, context: int) -> int:
        slot = self.state & ((1 << TABLE_BITS) - 1)
        symbol, frequency, start = self.model.tables[context][slot]
        self.state = frequency * (self.state >> TABLE_BITS) + slot - start
        if symbol == ESCAPE:
            symbol = self.bits(7)
            return symbol if symbol < DIRECT else _base(symbol) | self.bits(_width(symbol))
        if symbol < DIRECT:
            self._settle(self.state)
            return symbol
        return _base(symbol) | self.bits(_width(symbol))

    def bits(self, width: int) -> int:
        value = self.state & ((1 << width) - 1)
        self._settle(self.state >> width)
        return value

    def _settle(self, state: int) -> None:
        if state < 1 << 32:
            state = state << 32 | self.words[self.read]
            self.read += 1
        self.state = state


def _width(symbol: int) -> int:
    return DIRECT_BITS - 2 + ((symbol - DIRECT) >> 2)


def _base(symbol: int) -> int:
    return (4 + (symbol & 3)) << _width(symbol)


def decode_record(data: bytes, targets: list[int], model: Model, lane_type: type[Lane] = Lane) -> list[Label]:
    """Return the labels about these targets: FORMAT.md, sections 12 and 10."""
    if not targets:
        return []
    assert zlib.crc32(data[4:]) == int.from_bytes(data[:4], "little"), "the checksum is another"
    at = 4
    if model.size == 0:
        _, at = _varint(data, at)
    unit = 0
    if model.inverse_step == 0:
        unit, at = data[at], at + 1
    num_lanes = NUM_LANES if len(targets) >= MIN_LABELS_IN_LANES else 1
    counts = []
    for _ in range(num_lanes):
        count, at = _varint(data, at)
        counts.append(count)
    lanes = []
    for count in counts:
        lanes.append(lane_type(model, list(struct.unpack(f"<{count}I", data[at : at + 4 * count]))))
        at += 4 * count
    assert at == len(data)

    labels = [_label(lanes[n % num_lanes], target, model, unit) for n, target in enumerate(targets)]
    assert all(lane.state == 1 << 32 and lane.read == len(lane.words) for lane in lanes), "the record is damaged"
    return labels


def _label(lane: Lane, target: int, model: Model, unit: int) -> Label:
    high = lane.number(CLUSTER_HIGH)
    cluster = (high << CLUSTER_LOW_BITS) + lane.number(CLUSTER_LOW + high)
    shape = lane.number(SHAPE)
    fit = lane.number(FIT + shape)
    size = model.size or lane.number(SIZE + shape)
    places = _places(lane, cluster, fit, size)
    label = Label(token_ids=[model.id_at(cluster, place) for place in places])
    levels, float_bits = [], []
    for place in places:
        place_class = model.place_class(cluster, place)
        value_class = place_class >> 1
        if place_class >= LIST_CLASSES:
            value_class = (LIST_CLASSES >> 1) + (place_class - LIST_CLASSES) // 3
        level = lane.number(VALUE + shape * NUM_VALUE_PLACES + value_class)
        levels.append(level)
        if model.inverse_step == 0:
            float_bits.append(_exact_bits(lane, level, model.exact_base, unit))
    if model.has_draws:
        label.draw_counts = [lane.number(COUNT + min(15, level)) for level in levels]
    inside = label.token_ids.index(target) if target in label.token_ids else None
    if model.inverse_step:
        _read_grid_values(lane, label, levels, inside, shape, model)
    else:
        _read_exact_values(lane, label, levels, float_bits, inside, shape, model)
    return label


def _places(lane: Lane, cluster: int, fit: int, size: int) -> list[int]:
    """Return the places of a label's candidates, rising."""
    places: list[int] = []
    place = 0
    for _ in range(size):
        place += lane.number(GAP + fit * NUM_PLACES + lane.model.place_class(cluster, place))
        places.append(place)
        place += 1
    return places


def _read_grid_values(
    lane: Lane, label: Label, levels: list[int], inside: int | None, shape: int, model: Model
) -> None:
    def weight(level: int) -> int:
        return 12 * level * level + 1

    head = [level for level, count in zip(levels, label.draw_counts, strict=False) if count == 0]
    total = sum(weight(level) for level in head or levels)
    of_one = 12 * model.inverse_step**2
    if total >= of_one:
        expected = 0
    elif 2 * total >= of_one:
        expected = math.isqrt((of_one - total) * 2**17 // of_one)
    else:
        expected = 512 - math.isqrt(total * 2**17 // of_one)
    tail_code = expected + _unzigzag(lane.number(TAIL + expected.bit_length()))
    kept = max(2**18 - 2 * tail_code**2 if tail_code <= 256 else 2 * (512 - tail_code) ** 2, 1)
    label.tail_mass = _float32(1 - kept / 2**18)
    shift = ln(kept) - ln(2**18) - ln(max(total, 1))
    label.logprobs = [_float32(ln(weight(level)) + shift) * 2.0**-24 for level in levels]
    label.target_rank = _rank(lane, levels, inside, shape, model)

    expected, context = 0, TARGET_OUTSIDE + shape
    if inside is not None:
        context = TARGET_INSIDE + levels[inside].bit_length()
    if levels:
        level = min(levels) if inside is None else levels[inside]
        expected = ((1 << 18) - (ln(weight(level)) + shift)) >> 19
    label.target_logprob = -(expected + _unzigzag(lane.number(context))) / TARGET_STEPS
    if model.has_entropy:
        label.entropy = lane.bits(16) / ENTROPY_STEPS
    label.put_in_order(sorted(range(len(levels)), key=lambda i: -levels[i]))  # stable


def _read_exact_values(
    lane: Lane, label: Label, levels: list[int], bits: list[int], inside: int | None, shape: int, model: Model
) -> None:
    label.tail_mass = _float_of(lane.bits(32))
    label.logprobs = [-_float_of(value) if value else 0.0 for value in bits]
    order = sorted(range(len(bits)), key=lambda i: bits[i])  # stable
    if bits.count(min(bits, default=0)) > 1:
        order.insert(0, order.pop(lane.number(TAIL)))
    label.target_rank = _rank(lane, levels, inside, shape, model)
    if inside is not None and lane.number(TARGET_INSIDE) == 0:
        label.target_logprob = label.logprobs[inside]
    else:
        label.target_logprob = -_float_of(lane.bits(32))
    if model.has_entropy:
        label.entropy = _float_of(lane.bits(32))
    label.put_in_order(order)


def _rank(lane: Lane, levels: list[int], inside: int | None, shape: int, model: Model) -> int:
    if model.has_draws:
        return lane.number(RANK_OUTSIDE + shape)
    if inside is None:
        return len(levels) + 1 + _unzigzag(lane.number(RANK_OUTSIDE + shape))
    above = sum(level > levels[inside] for level in levels)
    equal = levels.count(levels[inside])
    return above + 1 + _unzigzag(lane.number(RANK_INSIDE + equal.bit_length()))


def _exact_bits(lane: Lane, level: int, exact_base: int, unit: int) -> int:
    if level == 0:
        return lane.bits(32)
    high = exact_base + 1 - level
    zeros = min(max(unit - (high >> 3), 0), EXACT_REST_BITS)
    return high << EXACT_REST_BITS | lane.bits(EXACT_REST_BITS - zeros) << zeros


def _make_ln_table() -> list[int]:
    table = []
    for i in range(2049):
        x, y = (2048 + i) << 51, 0
        for _ in range(32):
            x, y = (x * x) >> 62, 2 * y
            if x >= 1 << 63:
                x, y = x >> 1, y + 1
        if i == 2048:
            y = 1 << 32
        table.append((y * 0xB17217F7D1CF79AB + (1 << 71)) >> 72)
    return table


_LN_TABLE = _make_ln_table()


def ln(n: int) -> int:
    """Return the natural logarithm of a positive integer in units of 2^-24 nats."""
    exponent = n.bit_length() - 1
    x = n << (62 - exponent)
    i, fraction = (x >> 51) & 2047, (x >> 35) & 65535
    return exponent * LN2 + _LN_TABLE[i] + (((_LN_TABLE[i + 1] - _LN_TABLE[i]) * fraction) >> 16)


def _gap_planes(planes: memoryview, run_sizes: list[int]) -> list[int]:
    count = len(planes) // 3
    values: list[int] = []
    for size in run_sizes:
        value = 0
        for i in range(len(values), len(values) + size):
            value += planes[i] | planes[count + i] << 8 | planes[2 * count + i] << 16
            values.append(value)
    return values


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number, shift = 0, 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def _unzigzag(n: int) -> int:
    return -((n + 1) >> 1) if n & 1 else n >> 1


def _float32(value: float) -> float:
    """Return the nearest float32, ties to even."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _float_of(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def read_model(shard: bytes, metadata: pq.FileMetaData) -> Model:
    """Return the model in a shard's tail, checked against its hash list: FORMAT.md, section 7."""
    footer_bytes = int.from_bytes(shard[-8:-4], "little") + 8
    list_start = len(shard) - footer_bytes - 32 * (2 + 2 * metadata.num_row_groups)
    hashes = [shard[i : i + 32] for i in range(list_start, len(shard) - footer_bytes, 32)]
    stop = 4
    for index in range(metadata.num_row_groups):
        row_group = metadata.row_group(index)
        columns = [row_group.column(i) for i in range(row_group.num_columns)]
        hard_stop = max(_stop(column) for column in columns[:-1])  # the one soft column is the last
        soft_stop = _stop(columns[-1])
        assert hashlib.sha256(shard[stop:hard_stop]).digest() == hashes[2 + 2 * index]
        assert hashlib.sha256(shard[hard_stop:soft_stop]).digest() == hashes[3 + 2 * index]
        stop = soft_stop
    assert hashlib.sha256(shard[-footer_bytes:]).digest() == hashes[0]
    assert hashlib.sha256(shard[stop:list_start]).digest() == hashes[1]
    return Model(shard[stop:list_start])


def _stop(column: Any) -> int:
    start = column.data_page_offset
    if column.has_dictionary_page:
        start = min(start, column.dictionary_page_offset)
    return int(start + column.total_compressed_size)


def read_labels(path: Path, record: int) -> tuple[list[int], list[Label]]:
    """Return the targets of one record of a shard, and its labels."""
    model = read_model(path.read_bytes(), pq.read_metadata(path))
    columns = (
        pq.read_table(path, columns=["input_ids", "spans", "label_positions", "packed_labels"])
        .slice(record, 1)
        .to_pylist()
    )
    input_ids = columns[0]["input_ids"]
    positions = columns[0]["label_positions"]
    if positions is None:
        positions = [position for span in columns[0]["spans"] for position in range(span["start"], span["stop"])]
    targets = [input_ids[position] for position in positions]
    return targets, decode_record(columns[0]["packed_labels"], targets, model)


def main() -> None:
    path, record = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    targets, labels = read_labels(path, record)
    for target, label in zip(targets, labels, strict=True):
        entropy = "" if label.entropy is None else f"  entropy {label.entropy:.4f}"
        of_target = f"target {target}: {label.target_logprob:.4f}, rank {label.target_rank}"
        print(f"{of_target}  tail {label.tail_mass:.4f}{entropy}")
        for i, (token_id, logprob) in enumerate(zip(label.token_ids, label.logprobs, strict=True)):
            drawn = f"  drawn {label.draw_counts[i]}" if label.draw_counts else ""
            print(f"  {token_id:>8}  {logprob:9.4f}{drawn}")


if __name__ == "__main__":
    main()
