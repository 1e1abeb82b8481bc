"""Every number of the judge that somebody chose, with the reason for its value.

Facts are not listed here: the unit roundoff of a dtype (`oracles.tolerance.PRECISIONS`), the factor 2 of a difference
between two values that may each be off by a tolerance. The table in docs/verdicts.md repeats these values, and
tests/test_readme.py compares the two.
"""

# --- Tolerances: how far rounding can move an entry (oracles/tolerance.py) ---

# The factor c of a perturbation c·√n·u. The largest of a few samples underestimates the largest possible deviation; 8
# covers the difference in every case that benchmarks/false_alarms.py has drawn.
CONFIDENCE = 8.0
# Two samples accept most right entries, at the price of two evaluations.
FIRST_SAMPLES = 2
# A cheap step before the many samples of a refusal.
SECOND_SAMPLES = 5
# The last samples perturb the backward alone. In the forward, independent noise drives equal rows apart: a batch
# without variance then saturates tanh, and no perturbation behind it counts any more.
BACKWARD_SAMPLES = 4
# Before anything is refused: the largest of 16 is exceeded by one more sample in 1 of 17.
MORE_SAMPLES = 16 + BACKWARD_SAMPLES
# Before a right formula is refused for its digits or its choice at a kink. Those beyond `MORE_SAMPLES` perturb the
# backward alone, as the last of those do: one more of these exceeds the largest of 80 in 1 of 81.
LAST_SAMPLES = 96
# Where the tolerance of a refused entry reaches this share of the entry, its distribution has heavy tails, and
# `MORE_SAMPLES` bound it badly: `LAST_SAMPLES` are drawn.
RESAMPLED_SHARE = 1 / 16
# A deviation that is smooth in the perturbation shrinks by 2^-10 with it; one across a kink stays. 1/8 separates them.
JUMP_SHRINKAGE = 2.0**-10
JUMP_SHARE = 1 / 8

# --- What is judged, and by what (oracles/decision/judge.py) ---

# One cotangent may hide an error by a coincidence of signs; three rarely do.
DRAWN_COTANGENTS = 3
# Ball arithmetic evaluates every number on its own, in Python. So next to a reference it judges tiny points only; where
# nothing else is rigorous it may take longer; and a refusal is rare, and worth more time.
EXACT_INPUTS = 8
LONE_EXACT_INPUTS = 256
ARBITER_INPUTS = 1024

# --- Lost digits (oracles/decision/precision.py) ---

# u to this power: an error above it leaves less than half of the digits.
HALF_OF_THE_DIGITS = 0.5
# A framework whose own error is at least this share of the subject's loses as many digits: two bits are luck.
AS_MANY_DIGITS = 1 / 4
# Rounding in a coarser precision is off in most entries, a wrong formula often in a few: the share of the nonzero
# entries that must be off.
SPREAD_SHARE = 0.5
# Three errors or more have a size that is typical; one or two may be a bug in an entry.
SPREAD_ENTRIES = 3
# Typical errors of float32 are a few bits below its u; what is smaller by 2^7 is not computed in float32.
COARSE_ERROR = 2.0**-7
# Relative errors that differ by less than this share of the largest are one factor: a formula's error, not rounding's.
ONE_FACTOR_SPREAD = 0.25
# float64 has 29 bits more than float32. A rounding error shrinks by most of them; 6 are left to chance.
PRECISION_SHRINKAGE = 2.0**-23

# --- Kinks (oracles/decision/kinks.py) ---

# How far away gradients are sampled, relative to the size of a primal: a steep function is smooth over so little.
KINK_STEP = 2.0**-44
# Of two sides of a kink, 32 random steps miss one in 2^31 runs; a tie of several entries needs several directions.
KINK_SAMPLES = 32
# What is smooth changes this many times as much over steps this many times as long; a jump stays as large. The share
# of the far change that a near one must exceed lies between 1/64 and 1.
KINK_FAR = 64
KINK_JUMP_SHARE = 1 / 8
# Up to so many inputs, each is moved alone to find the entries that jump together: two gradients for each input.
KINK_INPUTS = 512
# The hull is known from gradients a step away from the point, and each of them has moved by about that step.
HULL_SLACK = 2.0**-20
# The weight of "the coefficients sum to 1" in the least squares, next to rows that are scaled to 1.
HULL_WEIGHT = 8.0
# A descent, or a distance for each corner, below this is rounding of the least squares.
HULL_ROUNDING = 2.0**-40
# A coefficient below this is zero.
HULL_ZERO = 2.0**-60

# --- Ball arithmetic (oracles/exact/) ---

# Working precision, in bits: twice that of float64 and some to lose.
BALL_BITS = 128
# Times the bits, one after another: the third resolves what float64 cannot tell from 0 (2^-1074), the last more.
BALL_LADDER = (1, 2, 10, 32)
# An enclosure is narrow when its radius is at most 2^-60 of its magnitude: beyond float64's 53 bits.
NARROW_BITS = 60
# Branches taken through comparisons that rounding can turn: each costs one evaluation.
MOST_BRANCHES = 16
# NumPy's vectorized elementary functions are tested to 4 units in the last place, that is 8 unit roundoffs. A partial
# derivative of such a function is one of them again and a few operations, and counts the same.
ELEMENTARY_ROUNDINGS = 8
# A subject's own formulas run on midpoints of so many bits, without a proof: what cancels in float64 does not here.
FORMULA_BITS = 512
FORMULA_INPUTS = 1024

# --- Finite differences (oracles/finite_differences.py) ---

# The largest step, relative to the size of the primals (at least `LEAST_SIZE`): well inside the radius of convergence
# of common functions, and far above rounding.
DIFFERENCE_STEP = 2.0**-4
LEAST_SIZE = 2.0**-10
# A ladder of steps h, h/4, h/16, …: six cancel five powers of the truncation error; further ones add rounding.
DIFFERENCE_STEPS = 6
DIFFERENCE_RATIO = 4.0
# Far smaller steps, which must not contradict the ladder: a kink narrower than its steps shows there.
DIFFERENCE_PROBES = (2.0**-13, 2.0**-16, 2.0**-20, 2.0**-32)
# How much smaller all steps become where the domain ends within them.
DIFFERENCE_NEARER = (1.0, 2.0**-8, 2.0**-16)
# The spread between neighbours in the tableau, times this, is the radius: an estimate, so it is generous.
DIFFERENCE_SAFETY = 10.0

# --- The search (oracles/search.py) ---

# A run in which more than this share of an oracle's points are inconclusive is not green.
VACUOUS_LIMIT = 0.1
