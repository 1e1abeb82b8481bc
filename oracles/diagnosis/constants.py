"""Constants of diagnosis that were chosen, each with its reason.

Numbers that are candidates for a factor (2, 1/2, N, √n) are data of the patterns, not constants to tune.
"""

from __future__ import annotations

# --- Experiments ---
# Samples of the tolerance in each experiment. One diagnosis compares many candidates, each with a tolerance; the
# many samples of a verdict are not needed, since a diagnosis only explains what is refused already.
EXPERIMENT_SAMPLES = 5
# Seed of the deltas that are drawn here. It differs from every seed that the judge uses, so that the second delta is
# never the refused one again.
SEED = 20_111
# A candidate whose distance from the subject's answer is above this share of that answer, in norm, is dropped before
# its tolerance is computed, which costs several evaluations. It only rejects: what remains must agree in every entry.
ROUGH_AGREEMENT = 1 / 8
# A lone entry cannot be shuffled, so it is multiplied by this instead: another value in the same domain (probabilities
# stay in [0, 1], positive numbers stay positive), and exact in binary.
LONE_ENTRY_FACTOR = 0.75
# Random directions in which the subject's own derivative is compared with its cotangent. One of them may be nearly
# orthogonal to the error; each costs a ladder of finite differences.
DIRECTIONS = 3

# --- Limits of what is tried ---
# Rearrangements and reductions are tried for arrays of up to so many axes: 4 axes have 23 transpositions and 15 sets
# of axes, 5 axes would have 119 and 31.
MOST_AXES = 4
# One pullback for each index along an axis: beyond so many the test of a block-diagonal Jacobian takes too long.
MOST_PULLBACKS = 32
# Finding the order of n slices compares all n² pairs, each with all entries of a slice.
MOST_SLICES = 256
# In a product, the subject rounds the known array as well as the cotangent: two sources of error of one size.
PRODUCT_ROUNDINGS = 2

# --- Special values of primals ---
# Exact zeros become this value. It is one value for all of them, so that entries that are tied stay tied.
VALUE_FOR_ZEROS = 0.75
# Tied entries are multiplied by factors from this range, which keeps their sign and rough size; tied zeros, which no
# factor separates, are drawn from the second range.
UNTYING_FACTORS = (0.75, 1.0)
VALUES_FOR_TIED_ZEROS = (0.1, 0.3)
# Entries that change their sign become at least so large: far enough from zero to be on the other side of it.
LEAST_MAGNITUDE = 0.5
# Only entries above this magnitude are called large. Functions that saturate or overflow do so beyond 1.
LARGE = 1.0
# A location is named only if more than this share of its entries is wrong; otherwise the name says too much.
WRONG_SHARE = 1 / 2

# --- Coarse rounding ---
# The inputs move by so many roundings of the coarse precision: enough for most roundings to be drawn anew, and so
# little that an error which is a smooth function of the input stays nearly straight.
STEP_IN_ROUNDINGS = 4
# The least second difference of the error along that line, as a share of the error's norm. Independent rounding errors
# give about √6; a smooth error gives far less, since its input moves by a few roundings only.
LEAST_BEND = 0.3
# The median error, in units of the coarse precision's rounding. Below it more digits are right than that precision
# has, so the loss has another cause.
LEAST_ERROR_IN_ROUNDINGS = 2.0**-7

# --- Fitting declarations ---
# Quotients of one array that differ by less than this share are taken for one factor. It is wide enough for float16
# and bfloat16 subjects; the judge then decides whether that factor fits.
FACTOR_SPREAD = 2.0**-8
# Random deltas at which a declaration must fit, besides the refused one: with one sign alone a wrong factor may fit.
DECLARATION_DELTAS = 2

# --- Length of sentences ---
SHOWN_INDICES = 8
SHOWN_FACTORS = 4
SHOWN_NAMES = 3  # of the axes that have an extent
SHOWN_MEANINGS = 2  # of one factor
