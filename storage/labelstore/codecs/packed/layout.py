"""The numbers that encoder and decoder of the packed codecs share. Layout: FORMAT.md, "The packed codecs".

A *coding context* is one static frequency table; each kind of symbol has a run of them.
"""

from __future__ import annotations

__all__ = [
    "ESCAPE",
    "FIRST_CONTEXT",
    "MIN_LABELS_IN_LANES",
    "NUMBER_BITS",
    "NUM_CONTEXTS",
    "NUM_FITS",
    "NUM_LANES",
    "NUM_PLACES",
    "NUM_SHAPES",
    "NUM_SYMBOLS",
    "STREAMS",
    "TABLE_BITS",
]

TABLE_BITS = 10  # a table's frequencies add up to 2^10
SYMBOL_BITS = 7
NUM_SYMBOLS = 1 << SYMBOL_BITS  # of an alphabet
ESCAPE = 127  # then the symbol itself in 7 bits: for symbols that training did not see

STATE_LOW = 1 << 32  # a coder's state is in [2^32, 2^64) between two steps; its words have 32 bits
NUM_LANES = 4  # coders of a record
MIN_LABELS_IN_LANES = 32  # a record of fewer labels has one coder: each costs 6 bytes

# A number n below DIRECT is its own symbol; a larger one is its exponent and the two bits below its leading one,
# and the bits below those follow as they are. Below 2^25 these are 22 at most: a state in [2^32, 2^64) gives a symbol
# and so many bits before it needs another word.
DIRECT_BITS = 5
DIRECT = 1 << DIRECT_BITS
NUMBER_BITS = 25
LAST_NUMBER = DIRECT + 4 * (NUMBER_BITS - DIRECT_BITS) - 1  # the symbol of the largest numbers

NUM_SHAPES = 16  # classes of the curve of a label's values
NUM_FITS = 4  # classes of how well a label's ids fit their cluster
LIST_CLASSES = 16  # of likely ids, by how likely: half a bit of log-odds each
RANK_CLASSES = 12  # of all ids by frequency: two octaves of rank each
NUM_PLACES = LIST_CLASSES + RANK_CLASSES
NUM_VALUE_PLACES = 12  # the same, coarser, as the context of a value
FREQUENCY_CLASSES = 128  # of ids that training saw, by how often, most often first
FREQUENCY_STEPS = 4  # of these for each doubling of the count
MAX_CLUSTERS = 1024
CLUSTER_LOW_BITS = 5
MAX_LISTED = 1 << 14  # ids in the list of a cluster
MAX_SIZE = 4096  # candidates of a label
TAIL_CODES = 512  # the highest code of a tail mass
KEPT_BITS = 18  # a kept mass is in units of 2^-18
ENTROPY_STEPS = 2048  # a nat
TARGET_STEPS = 32  # a nat
EXACT_REST_BITS = 20  # low bits of a float32 that are stored as they are

# Stream -> contexts, in the order in which the tables stand in a model.
STREAMS: dict[str, int] = {
    "cluster_high": 1,  # z >> CLUSTER_LOW_BITS
    "cluster_low": MAX_CLUSTERS >> CLUSTER_LOW_BITS,  # the bits below
    "shape": 1,
    "fit": NUM_SHAPES,
    "size": NUM_SHAPES,  # K, where it differs from label to label
    "gap": NUM_FITS * NUM_PLACES,  # from one id to the next
    "value": NUM_SHAPES * NUM_VALUE_PLACES,
    "count": 16,  # of draws
    "tail": 16,  # by how many bits the expected code has
    "rank_inside": 16,  # of a target that is a candidate
    "rank_outside": NUM_SHAPES,
    "target_inside": 16,
    "target_outside": NUM_SHAPES,
}
FIRST_CONTEXT: dict[str, int] = {}
NUM_CONTEXTS = 0
for _name, _size in STREAMS.items():
    FIRST_CONTEXT[_name] = NUM_CONTEXTS
    NUM_CONTEXTS += _size

CLUSTER_HIGH = FIRST_CONTEXT["cluster_high"]
CLUSTER_LOW = FIRST_CONTEXT["cluster_low"]
SHAPE = FIRST_CONTEXT["shape"]
FIT = FIRST_CONTEXT["fit"]
SIZE = FIRST_CONTEXT["size"]
GAP = FIRST_CONTEXT["gap"]
VALUE = FIRST_CONTEXT["value"]
COUNT = FIRST_CONTEXT["count"]
TAIL = FIRST_CONTEXT["tail"]
RANK_INSIDE = FIRST_CONTEXT["rank_inside"]
RANK_OUTSIDE = FIRST_CONTEXT["rank_outside"]
TARGET_INSIDE = FIRST_CONTEXT["target_inside"]
TARGET_OUTSIDE = FIRST_CONTEXT["target_outside"]
