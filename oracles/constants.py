"""Every chosen number of the judge, with the reason for its value.

Facts are not listed here: the unit roundoff of a dtype (`oracles.tolerance.PRECISIONS`), the factor 2 of a difference
between two values that may each be off by a tolerance. Nor is data, such as the memory layouts that are drawn or the
factors that a diagnosis tries, nor the width of a printed text. The tables in docs/how_it_works/constants.md repeat
these values, and tests/test_readme.py compares the two.
"""

# --- Tolerances: how far rounding can move an entry (oracles/tolerance.py) ---

# The factor c of a perturbation c·√n·u. The largest of a few samples underestimates the largest possible deviation; 8
# covers the difference in every case that benchmarks/false_alarms.py has drawn.
CONFIDENCE = 8.0
# The same for an operand that is stored in half precision. It is rounded once, by u at most, and sums of such operands
# are kept in float32. In bfloat16 8 u is 3 % of each operand, and any gradient would agree.
HALF_CONFIDENCE = 2.0
# The share of its error that a step of a declared solver leaves. Without a reference the solver is differentiated, and
# the derivative's error is about log τ / log ρ times the value's. 1/2 covers shares up to 0.7, through CONFIDENCE.
STEP_SHARE = 0.5
# Integers of at least this size among the constants of a code may stand for −∞ or +∞ (−1e4 in float16, −1e9, −1e30),
# and are exact. Smaller ones, such as 0 and 1, are also values that functions saturate at.
LARGE_CONSTANT = 1000.0
# An array of more distinct ones is data.
FEW_FILL_VALUES = 8
# Sums of up to this many equal ones are exact too.
FILL_VALUE_MULTIPLES = 16
# By what share the primals move, to see whether the declared factor of a cotangent depends on their values.
FACTOR_STEP = 2.0**-10
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
# A right formula loses digits from this many tolerances on: one binary digit. The tolerance is that of the reference's
# steps, and other steps that are as good round up to about so much more: a softmax of 513 equal numbers whose delta is
# first made relative to one entry has 1.07 tolerances.
LEAST_LOSS = 2.0
# Where an intermediate is stored in low precision and cancels, an entry may be off by its own size. That is a defect if
# it is off by so many roundings of the array's largest entry: what cancels in a few entries of many is off by 1 or 2.
CANCELLED_ROUNDINGS = 4.0
# Before the operations of a reference are recorded, to be run again without dispatch: most points need no more
# evaluations, and to record one takes a third longer.
UNRECORDED_EVALUATIONS = 2
# If the tolerance of a refused entry reaches this share of the entry, its distribution has heavy tails, and
# `MORE_SAMPLES` bound it badly: `LAST_SAMPLES` are drawn.
RESAMPLED_SHARE = 1 / 16
# If `LAST_SAMPLES` reach this share of a refused entry, its own size is its tolerance.
UNBOUNDED_SHARE = 0.5
# A deviation that is smooth in the perturbation shrinks by 2^-10 with it; one across a kink stays. 1/8 separates them.
JUMP_SHRINKAGE = 2.0**-10
JUMP_SHARE = 1 / 8
# Numbers below this share of the largest are taken for what rounding in float64 leaves where terms cancel to zero; and
# how many times as large that may be as the largest of a few samples of it.
NOISE_SHARE, ROUNDING_INSIDE = 2.0**-40, 4.0
# Of two operands that are tied, half of the samples move both alike: 8 miss the jump in 1 of 256.
JUMP_SAMPLES = 8

# torch's derivative of digamma is an asymptotic series of few terms, off by 4.9e-10 of its value at most in float64, at
# 2e5 points between 1e-4 and 150: beyond its rounding, such a function may be off by this.
TRIGAMMA_ERROR = 2.0**-30

# --- Time ---

# A person waits for one check up to a minute, and as long for its diagnosis. Of a shorter check the diagnosis takes so
# many times what the judgement took, and that many seconds at least: most take less.
CHECK_SECONDS = 60.0
DIAGNOSIS_SECONDS = 60.0
DIAGNOSIS_TIMES = 1.0
LEAST_DIAGNOSIS_SECONDS = 15.0
# Seconds without a word at a terminal: a small check ends within them. Then a line says what is done; it changes often
# enough for a person to see that something happens.
PATIENCE_SECONDS = 2.0
REFRESH_SECONDS = 0.25
# Off a terminal a log keeps every line: six a minute show that a run goes on.
REPORT_SECONDS = 10.0

# --- Inputs and samples of one judgement (oracles/decision/judge.py) ---

# One cotangent may hide an error by a coincidence of signs; three rarely do.
DRAWN_COTANGENTS = 3
# Above so many inputs one is drawn: among a million entries no coincidence hides an error in all.
LONE_COTANGENT_INPUTS = 10**6
# Drawn numbers whose first entries are multiples of a primal's, within the rounding of float16, are that primal.
PROPORTIONAL_ENTRIES = 16
PROPORTIONAL_ERROR = 2.0**-7
# Ball arithmetic evaluates every number on its own, in Python. So next to a reference it judges tiny points only; where
# nothing else is rigorous it may take longer; and a refusal is rare, and worth more time.
EXACT_INPUTS = 8
LONE_EXACT_INPUTS = 256
ARBITER_INPUTS = 1024

# --- Large points (oracles/decision/reduced_point.py) ---

# Above so many inputs, a gross error is looked for at a smaller point: below, the further evaluations are cheap.
REDUCED_INPUTS = 1024
# An error so many times the tolerance of the first samples: more samples raise a tolerance by a few times.
GROSS_RATIO = 1000.0
# The same where results are stored in low precision: their tolerance is one rounding, which no sample changes, and in
# bfloat16 an error of 2 % is four of them.
GROSS_STORED = 4.0
# The shortest window of an axis. A mean over one entry is a sum, and of two entries a softmax is a sigmoid.
LEAST_WINDOW = 3
# Of up to so many refused entries of a large point, the rows are judged alone. The reference must have the same values
# there, but for some units in the last place: another order of its sums.
MOST_RESAMPLED = 4096
SAME_VALUE = 2.0**-40
# A compiled form must equal so many plain calls, at different points, before it is called alone.
CONFIRMED_CALLS = 3
# Above so many inputs, what depends on no size is asked at a part of the point, of axes of about so many entries.
PART_INPUTS = 2**14
PART_WINDOW = 32

# --- Lost digits (oracles/decision/precision.py) ---

# u to this power: an error above it leaves less than half of the digits.
HALF_OF_THE_DIGITS = 0.5
# Entries of delta that are kept one at a time, to see whether a subject errs without a sum: stores round any of them.
SINGLE_TERMS = 3
# A framework whose own error is at least this share of the subject's loses as many digits: two bits are luck.
AS_MANY_DIGITS = 1 / 4
# Rounding in a coarser precision is off in most entries, a wrong formula often in a few: the share of the nonzero
# entries that must be off.
SPREAD_SHARE = 0.5
# Three errors or more have a size that is typical; one or two may be a bug in an entry.
SPREAD_ENTRIES = 3
# Typical errors of float32 are a few bits below its u; an error smaller by 2^8 was not made in float32. For six entries
# of a tanh in float32, the median was 2^-7.2 u.
COARSE_ERROR = 2.0**-8
# Relative errors that differ by less than this share of the largest are one factor: a formula's error, not rounding's.
ONE_FACTOR_SPREAD = 0.25
# float64 has 29 bits more than float32. A rounding error shrinks by most of them; 6 are left to chance.
PRECISION_SHRINKAGE = 2.0**-23
# Long double has 11 bits more than float64, which may not be enough for all digits that cancel: 5 are left to chance.
FINER_SHRINKAGE = 2.0**-6
# An error that shrinks by this much more than the unit roundoff is not rounding's: random signs account for far less.
SHRINKAGE_OF_ROUNDING = 2.0**-30

# --- Entries that are judged (oracles/decision/comparison.py) ---

# An agreement whose median tolerance is above this share of the entries lets errors of 10 % pass: nothing is judged.
RESOLUTION_LIMIT = 0.1
# Where rounding moves an entry beyond its own size and this share of the largest number, products inside overflow.
NEAR_OVERFLOW = 2.0**-10
# So many entries that are not judged are named.
NAMED_ENTRIES = 4

# --- References that differ from the derivative of the value (oracles/decision/declared_gradients.py) ---

# Two derivatives that differ by more than this share are different gradients, and not one with an inaccurate
# implementation: torch's special functions are off by 1e-7 at most, a detached term by far more.
GROSS_DIFFERENCE = 2.0**-13
# So many of the worst entries are asked of finite differences, at two ladders of about 20 evaluations each.
ASKED_ENTRIES = 3
# Up to so many entries without any finite oracle are asked of finite differences.
ASKED_UNKNOWN = 64

# --- Kinks (oracles/decision/kinks.py) ---

# Samples that move equal numbers alike: a tie that comes apart stays in one of them by chance, half of the time.
TIE_SAMPLES = 6
# How far away gradients are sampled, relative to the size of a primal: a steep function is smooth over so little.
KINK_STEP = 2.0**-44
# Of two sides of a kink, 32 random steps miss one in 2^31 runs; a tie of several entries needs several directions.
KINK_SAMPLES = 32
# A smooth gradient changes this many times as much over steps this many times as long; a jump stays as large. The share
# of the far change that a near one must exceed lies between 1/64 and 1.
KINK_FAR = 64
KINK_JUMP_SHARE = 1 / 8
# Next to a point a primal changes by another step, to see a kink that no axis crosses: so long a step, relative to the
# size of a primal, still shows slopes to half of the digits, of so many samples each.
BEND_STEP = 2.0**-20
BEND_SAMPLES = 8
# Up to so many of the entries that finite differences refuse are asked for a kink, the worst first.
BEND_ENTRIES = 8
# How many roundings of an output a change must exceed: code rounds more than once.
BEND_SAFETY = 64
# A claim is beyond the slopes of its primal nearby if it is so by this share of itself, and by half of their range.
BEYOND_SLOPES = 1 / 4
# A ramp breaks ties by the order of the entries: up to so many, by one step in all, which leaves neighbours some units
# in the last place apart. Over more entries it is longer, but stays well below the distance of KINK_FAR steps.
RAMP_ENTRIES = 64
LONGEST_RAMP = 8.0
# Random sizes of the steps that take one choice among tied entries.
CHOICE_SAMPLES = 2
# Up to so many entries of the output, each is differentiated alone to find its subgradient.
KINK_OUTPUTS = 512
# Up to so many inputs, each is moved alone to find the entries that jump together: two gradients for each input.
KINK_INPUTS = 512
# Up to so many inputs, each is also moved from a point nearby, where the entries of a norm at 0 jump together.
COUPLED_INPUTS = 64
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
# The most memory that the arrays of a file on the command line may take: far above a point that can be judged, and
# within the memory of most machines.
MOST_STORED_BYTES = 2 * 2**30
# Larger arrays are written into a script as compressed bytes, since a file of some megabytes of digits helps nobody.
SCRIPT_ENTRIES = 20_000
# Rows and columns of a heat map of a refused array, in JSON and on a page. Of larger arrays each cell is a block of
# entries: more cells could not be distinguished at the width of a telephone.
SHOWN_EXTENT = 32
# Characters of a script up to which JSON and a page hold it: longer ones are a file of their own, by --script.
DOCUMENT_SCRIPT = 500_000
# Seconds that ball arithmetic may take on one point of somebody's code, which runs in a process of its own. The slowest
# points that were measured take some seconds.
BALL_SECONDS = 60.0
# Seconds that one call may take at shapes that nobody gave, which the diagnosis tries in a copy of the process first. A
# call takes milliseconds; a copy of a process with many threads may hang.
TRIED_SECONDS = 10.0
# Processes of ball arithmetic at a time: `check` and a search judge one subject after another, each at several points.
BALL_SERVERS = 2
# Seconds without a question after which such a process ends by itself.
IDLE_SECONDS = 60

# --- Finite differences (oracles/finite_differences.py) ---

# The largest step, relative to the size of the primals (at least `LEAST_SIZE`): well inside the radius of convergence
# of common functions, and far above rounding.
DIFFERENCE_STEP = 2.0**-4
LEAST_SIZE = 2.0**-10
# Numbers below this are smaller than any step of a ladder, and than any of its probes.
TINY_SIZE = 2.0**-46
# Values at which an infinite output shows what it depends on: most functions take them, as a logarithm, a square root,
# a probability.
ORDINARY_VALUES = (1 / 4, 3 / 4)
# A ladder of steps h, h/4, h/16, …: six cancel five powers of the truncation error; further ones add rounding.
DIFFERENCE_STEPS = 6
DIFFERENCE_RATIO = 4.0
# Far smaller steps, which must not contradict the ladder: a kink narrower than its steps shows there.
DIFFERENCE_PROBES = (2.0**-13, 2.0**-16, 2.0**-20, 2.0**-32)
# How much smaller all steps become where the domain ends within them, or where the slopes change most between later
# steps than the first: a matrix of condition number 10^8 is singular at a relative distance of 2^-27.
DIFFERENCE_NEARER = (1.0, 2.0**-8, 2.0**-16, 2.0**-24)
SETTLED_FROM = 2
# The spread between neighbours in the tableau, times this, is the radius: an estimate, so it is generous.
DIFFERENCE_SAFETY = 10.0
# Up to so many inputs, finite differences measure every entry.
MOST_DIFFERENCES = 300
# Of more inputs they measure so many entries, and of a million inputs fewer, since each takes about 20 evaluations.
MOST_MEASURED = 96
DIFFERENCES_OF_MILLION = 16
# Several parts of the judge ask for the second derivatives by finite differences at one point: so many are remembered.
DIFFERENCES_KEPT = 16
# A derivative of a pullback is not symmetric if it differs from its transpose along so many pairs of directions.
HESSIAN_DIRECTIONS = 3
# Smaller slopes are not compared: products inside the pullback underflow, and lose digits.
LEAST_HESSIAN = 2.0**-900
# A diagnosis measures so many wrong second derivatives by finite differences of the pullback.
GRAPH_ENTRIES = 6
# Second derivatives of up to so many inputs are all measured; of more, so many entries: each takes 20 pullbacks, and
# the pullback itself has been judged in every entry.
SECOND_DIFFERENCES, SECOND_MEASURED = 32, 16
# All entries are judged along so many random directions for each primal and delta. Under three deltas they miss a gross
# error with a probability of 0.71^18 = 0.002.
DIRECTIONS = 6

# --- Self-consistency (oracles/self_consistency.py) ---

# The other point has the entries reversed and times this, so that it stays in the domain (a probability, a variance).
OTHER_POINT_SCALE = 0.75

# --- Invariance (oracles/invariance.py) ---

# Calls that must give the same bits: atomic additions of a few thousand terms seldom keep their order so often.
REPEATS = 6
# Chunks of one size that are compared: the first ones and the last.
MOST_CHUNKS = 8
# The memory between the entries of a strided copy is filled with NaN if it is at most so many times as large as the
# array itself: every second column, or a padded row. A column of a large matrix reaches much farther.
FILLED_GAPS = 16
# The answers that one check, or one point of a search, remembers to notice another answer to the same call.
REMEMBERED_BYTES = 2**26
# Kernels read memory in pieces of so many bytes: the widest load of a GPU, and of SSE. NumPy and torch allocate arrays
# at multiples of it.
ALIGNED_BYTES = 16
# Before a call that must show memory which was never written, so many blocks of each likely size are filled and freed:
# NumPy and the C library each keep about seven freed blocks of a size, and the judge's own copies take some. Of a size
# above the limit two blocks are: the first one only raises the limit of the C library, which gives such memory back.
FREED_BLOCKS = 16
LARGE_BLOCK = 2**16

# In float16 the values of points are compared whose numbers are at most this: the fourth power is still below float16's
# largest number, and more than that rarely stands in a formula.
LARGEST_IN_FLOAT16 = 12.0
# A value in float16 that is off by more than this share is another value: so much is 128 of its roundings.
FAR_OFF_IN_FLOAT16 = 1 / 16
# In float16 a subject may err by so many times what a reference errs there: sums in other orders differ by less.
REFERENCE_ERRORS = 8

# --- The search (oracles/search.py, oracles/reimplementation.py) ---

# A run in which more than this share of an oracle's points are inconclusive is not green. The points of one drawn case
# are inconclusive together, and a short run has few cases: so many points more are allowed as one case has.
VACUOUS_LIMIT = 0.1
# Drawing a case and setting up its oracles costs as much as judging a point, so each drawn case is judged at several.
POINTS_PER_CASE = 4
# Examples in one run of Hypothesis, which begins to vary what it has drawn before after ten.
EXAMPLES_PER_RUN = 9
# The share of the points that are judged with long axes, one point for each case: where oracles judge, 21 of 60 points,
# enough for all 2^k and 2^k + 1; for what a subject must keep with itself 4, which are some of 2^k + 1.
LONG_SHARE = 0.35
OWN_LONG_SHARE = 0.07
# Where tiles are declared, so much more: six sizes around each of two tiles on two axes are 24 of then 36 of 60 points.
TILED_SHARE = 0.25
# Long axes have 2^k − 1, 2^k and 2^k + 1 entries, for k from the first of these to one below the second. Kernels work
# in blocks of 16 to 1024 entries.
LADDER_POWERS = (4, 11)
# Entries of all primals up to which a case with long axes is judged: a quarter of a second in float64.
MOST_LONG_ENTRIES = 2**19
# Two axes are long together only if their product is at most this.
LONG_PRODUCT = 2**12 + 2**9
# Examples in which a failure with long axes is looked for at shorter ones: some for each boundary size.
SHORTER_EXAMPLES = 100
# Inputs up to which finite differences judge a case with long axes entry by entry; above, along directions alone.
DIFFERENCE_INPUTS = 256
# Enough draws to find one case among those that a filter leaves: a Boolean option at its default halves them.
DRAWS_FOR_ONE_CASE = 200

# --- Drawn points (oracles/strategies.py) ---

# Entries of an array up to which the report on coverage looks for ties, which costs a sort.
COVERAGE_ENTRIES = 1024
# The largest extent of a short axis: longer ones cost time, and the ladder of long axes draws what fails there alone.
MAX_EXTENT = 8
# At most so many entries of a point are special: more hide one another's effect.
MAX_OVERRIDES = 4
# The position of a special entry is drawn below this number, and reduced modulo the sizes of the arrays. It is far
# larger than a drawn array, so that every entry is about as likely.
POSITIONS = 2**16
# Factors of the normal numbers. Half of the points are of magnitude 1; 1e-3 lets terms vanish against constants such as
# ε, 30 saturates tanh and sigmoid, 1e4 overflows exponentials.
MAGNITUDES = (1.0, 1.0, 1.0, 1.0, 1e-3, 1e-3, 30.0, 1e4)
# The same in float16, whose numbers reach from 6e-8 to 65504: at six of eight points what is stored, its square and its
# cube neither overflow nor vanish. At 1e4 squares overflow, and at 1e-4 they vanish, for whoever stores them.
MAGNITUDES_OF_FLOAT16 = (1.0, 1.0, 1.0, 1.0, 2.0**-4, 4.0, 1e-4, 1e4)
# The special values of large magnitude and of small: they saturate, and vanish against 1, in every dtype. In float16
# the large one is `LARGEST_IN_FLOAT16`.
LARGE_ENTRY, SMALL_ENTRY = 1e4, 1e-3
# The smallest number of `positive`: below, 1/√x amplifies rounding until every point is inconclusive.
LEAST_POSITIVE = 0.1
# The shares of points, of those that may have special values, with special entries; with ties, which count only in
# small arrays of some width; with half-integers or −∞, each; with one primal copied into another.
SPECIAL_ENTRIES_SHARE = 1 / 2
TIES_SHARE = 3 / 4
SPECIAL_SHARE = 1 / 6
COPIED_SHARE = 1 / 4
# The same for cotangents that are scaled, or have zeros.
SPECIAL_DELTA_SHARE = 1 / 3
# The powers of two between which cotangents are scaled, as by a loss scale: a third of the time one of these two.
DELTA_EXPONENTS = (-24, 16)
# The share of the rows of a mask in which nothing is visible.
MASKED_SHARE = 1 / 8
# The share of `nonnegative` that is not zero: most weights count, and zeros are frequent enough to be drawn.
NONZERO_SHARE = 0.7

# --- Adapters (oracles/adapters/) ---

# Unit roundoffs by which a declared derivative at a kink may differ: one each for delta, slope and product, and one to
# spare.
KINK_ROUNDINGS = 4
# Times the largest tolerance of an array, under a declared accuracy by norm: the transforms of Winograd's F(4, 3)
# enlarge the rounding of the terms that they mix.
NORMWISE_FACTOR = 4
# Axes of a declared layout whose other orders are tried: 4! = 24 evaluations of the subject.
LAYOUT_AXES = 4
# The size of the delta of an earlier step, as a fraction of its output: large enough that a gradient left over from it
# exceeds the tolerance, and small enough that the rounding of that gradient does not.
FAINT_DELTA = 2.0**-12
# Levels of attributes, dicts and lists of an object in which other references to an array are searched: deeper ones
# are rare, and the number of objects grows with every level. A hint in a message names fewer: a deep location
# does not help.
REFERENCE_LEVELS = 6
HINT_LEVELS = 3
# Seconds that a spawned process may take to import what the subject needs: torch and JAX on a busy machine take 20.
START_SECONDS = 60.0
# Seconds between two looks at whether that process lives: short to a user, and cheap.
POLL_SECONDS = 0.05
# Such processes of one subject that wait for its next call: the judge has two calls of a subject open at a time.
IDLE_PROCESSES = 2

# --- Perturbed evaluations (oracles/perturbation/) ---

# Shares of a perturbation that are tried where the domain of a subject ends within all of it (a check that rows sum to
# one within 1e-6, say). The deviation is divided by the share, as if it were linear.
SMALLER_SHARES = (1 / 2, 1 / 8, 1 / 64)
# Random signs in the pool: drawing fresh ones for each operand would cost most of a perturbed evaluation.
SIGN_POOL = 2**16
# The sizes of these signs. Signs of size 1 cancel exactly where two operands of equal size are subtracted; with 16
# samples of these sizes, such a difference moves by less than u, 1/8 of c u, in one of 10^10 entries. Their root mean
# square is 1.01, so that the tolerances of sums are what they are with size 1.
SIGN_SIZES = (3 / 4, 5 / 4)
# The sizes and signs of what the terms of one sum have in common, for the same reason.
COMMON_SIGNS = (-SIGN_SIZES[1], -SIGN_SIZES[0], SIGN_SIZES[0], SIGN_SIZES[1])
# Random factors in the pool of each length of a reduction. There are many lengths, so these pools are smaller; an array
# of more than half as many entries gets its factors by arithmetic.
SMALL_SIGN_POOL = 2**13
# Entries above which an array's memory is freed as soon as no later call of a program reads it; for smaller ones the
# bookkeeping costs more than the memory.
FREED_ENTRIES = 2**14

# --- Experiments of a diagnosis (oracles/diagnosis/) ---

# Samples of the tolerance in each experiment, and the factor of the largest: a diagnosis compares many candidates at
# points of their own, and only explains what is refused already, so it takes twice what few samples give.
EXPERIMENT_SAMPLES = 2
EXPERIMENT_MARGIN = 2.0
# Seed of the deltas that are drawn here. It differs from every seed that the judge uses, so that the second delta is
# never the refused one again.
EXPERIMENT_SEED = 20_111
# An output within this share of the reference's may approximate it, or the reverse: GELU by tanh is within 1e-3.
APPROXIMATED = 2.0**-9
# A candidate whose distance from the subject's answer is above this share of that answer, in norm, is dropped before
# its tolerance is computed, which costs several evaluations. It only rejects: what remains must agree in every entry.
ROUGH_AGREEMENT = 1 / 8
# The same by another tolerance at this point: one candidate's is rarely larger than another's by more than this.
ROUGH_TOLERANCE = 2.0**10
# Points of other values at which a diagnosis must hold again. A coincidence of values survives one now and then.
FURTHER_POINTS = 2
# Their values are the refused ones times factors of this range: in the same domain, and far from the refused ones.
FURTHER_FACTORS = (0.5, 1.0)
# Other shapes at which the name of a factor must hold again; each costs an evaluation, and in JAX a trace.
MOST_OTHER_SHAPES = 12
# Entries of all arrays together up to which an axis is made longer for that.
MOST_RESHAPED_ENTRIES = 2**14
# A factor that differs from 1 by less than this, or by less than so many relative tolerances, is rounding.
LEAST_FACTOR = 2.0**-19
FACTOR_TOLERANCES = 4
# At a large point of which a part is diagnosed, the factor of that tolerance again: of a million right entries, few
# samples refuse some. The error there is above `GROSS_RATIO` tolerances.
WHOLE_MARGIN = 8.0
# Shares of the error by which the answer is changed: a claim that holds then as well does not depend on the error. So
# the claimed value differs from the oracle's by at least two tolerances, and a sum's bound is no place to hide in.
OTHER_ERRORS = (-0.5, 0.5)
# The term that is found in an error, in its own uncertainties, which the tolerance alone may make: less is chance.
TERM_UNCERTAINTIES = 2
# Points to which special values are moved: the errors must follow each time.
MOVED_POINTS = 3
# The share of the entries of a sign that must be wrong there: about half of all entries have it, so it fits by chance.
SIGN_SHARE = 0.9
# A lone entry cannot be shuffled, so it is multiplied by this instead: another value in the same domain (probabilities
# stay in [0, 1], positive numbers stay positive), and exact in binary.
LONE_ENTRY_FACTOR = 0.75
# Random directions in which the subject's own derivative is compared with its cotangent. One of them may be nearly
# orthogonal to the error; each costs a ladder of finite differences.
OWN_DIRECTIONS = 3
# Random deltas at which a declaration must fit, next to the refused one: with one sign alone a wrong factor may fit.
DECLARATION_DELTAS = 2
# Quotients of one array that differ by less than this share are taken for one factor. It is wide enough for float16
# and bfloat16 subjects; the judge then decides whether that factor fits.
FACTOR_SPREAD = 2.0**-8
# In a product, the subject rounds the known array as well as the cotangent: two sources of error of one size.
PRODUCT_ROUNDINGS = 2

# --- Limits of what a diagnosis tries ---

# Rearrangements and reductions are tried for arrays of up to so many axes: 4 axes have 23 transpositions and 15 sets
# of axes, 5 axes would have 119 and 31.
REARRANGED_AXES = 4
# One pullback for each index along an axis: beyond so many the test of a block-diagonal Jacobian takes too long.
MOST_PULLBACKS = 32
# Finding the order of n slices compares all n² pairs, each with all entries of a slice.
MOST_SLICES = 256

# --- Special values that a diagnosis replaces ---

# Exact zeros become this value. It is one value for all of them, so that entries that are tied stay tied.
VALUE_FOR_ZEROS = 0.75
# Tied entries are multiplied by factors from this range, which keeps their sign and rough size; tied zeros, which no
# factor separates, are drawn from the second range.
UNTYING_FACTORS = (0.75, 1.0)
VALUES_FOR_TIED_ZEROS = (0.1, 0.3)
# Entries at which a derivative is singular move by this share of their value, to show whether the point is a lone one.
SMALL_MOVE = 2.0**-10
# Entries that change their sign become at least so large: far enough from zero to be on the other side of it.
LEAST_MAGNITUDE = 0.5
# Only entries above this magnitude are called large. Functions that saturate or overflow do so beyond 1.
LARGE_VALUE = 1.0
# A location is named only if more than this share of its entries is wrong; otherwise the name says too much.
WRONG_SHARE = 1 / 2

# --- Coarse rounding in a diagnosis ---

# The inputs move by so many roundings of the coarse precision: enough for most roundings to be drawn anew, and so
# little that an error which is a smooth function of the input stays nearly straight.
STEP_IN_ROUNDINGS = 4
# Of those steps. The coarse precision hides a step so small, so its error stays; noise and chaos are drawn anew.
HIDDEN_STEP = 2.0**-16
# The least second difference of the error along that line, as a share of the error's norm. Independent rounding errors
# give about √6; a smooth error gives far less, since its input moves by a few roundings only.
LEAST_BEND = 0.3
# The median error, in units of the coarse precision's rounding. Below it more digits are right than that precision
# has, so the loss has another cause.
LEAST_ERROR_IN_ROUNDINGS = 2.0**-7

# --- Sizes in a diagnosis ---

# Sizes of the blocks, warps and tiles that kernels process at once.
BLOCK_SIZES = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
# Entries of all arrays together up to which an axis is made longer in an experiment: one call stays below a second.
MOST_ENLARGED_ENTRIES = 2**17

# --- Edited references in a diagnosis ---

# Operations of a reference up to which each is edited: all their operands become outputs, with a pullback each.
MOST_EDITS = 32

# --- The derivative of a subject's own forward (oracles/diagnosis/own_forward.py) ---

# Relative differences below which two arrays are one function: far above rounding in float64, far below a mistake.
OWN_AGREEMENT = 2.0**-30
# Operations of an own forward up to which each is tried: a network of ten layers has about a hundred.
MOST_OWN_OPERATIONS = 400

# --- Layers of a network (oracles/diagnosis/layers.py) ---

# Levels of attributes, lists and dicts in which layers are looked for: network.blocks[0].layers[1] has four.
LAYER_LEVELS = 4
# Layers that are judged one after the other, a fraction of a second each.
MOST_LAYERS = 64
# A layer is right if its gradient is the slope along one random direction, to which all entries contribute. The slope
# counts if its radius is less than this share of the gradient.
LAYER_RESOLUTION = 2.0**-12
# Entries that are measured one by one in a large layer that is off along the direction: they show where.
LAYER_ENTRIES = 16

# --- Memory in a diagnosis ---

# What freed memory is filled with: two values that no arithmetic gives by chance.
POISONS = (1.2345678e30, -9.8765432e20)
# Blocks of each size that are filled and freed: a subject allocates a few of one size before the one that it returns.
POISONED_BLOCKS = 8

# --- Small errors in a diagnosis ---

# How many times as many terms a sum gets: sequential rounding errors then grow 8 times relative to it, those of single
# terms not at all. The least growth that is taken for the former lies between.
LONGER_SUMS = 64
LEAST_GROWTH = 3.0
# Over a step of many roundings of float32, rounding errors are drawn anew, and an error that is smooth hardly changes.
SMOOTH_STEP = 2.0**-16
MOST_SMOOTH_CHANGE = 2.0**-4
# The points of a path along which an error may jump, its length relative to the primal, and how often the step that
# changes most is halved: a smooth change shrinks with it, a jump stays. The share of the error that a jump must have.
PATH_POINTS = 17
MOST_PATH_POINTS = 200
PATH_LENGTH = 0.5
# Points of that path at which most entries must be wrong, all together.
PATH_TRIALS = 5
BISECTIONS = 40
LEAST_JUMP = 1 / 8

# --- The audit of a test suite (oracles/audit) ---

# Entries of an array that are compared with each mutant: as many take a fifth of a millisecond.
AUDIT_ENTRIES = 4096
# A mutant that differs by fewer roundings of the largest entry is as right as the value itself.
AUDIT_DIFFERENCE = 16.0
# The audit's time as a share of the run's own: up to the first for a comparison that the test repeats, up to the second
# for one that it has not made before. So a run takes less than twice its time.
AUDIT_REPEATED_SHARE = 0.3
AUDIT_FIRST_SHARE = 0.7
# Seconds after which no further mutant is tried in one comparison.
AUDIT_SECONDS = 0.1
# So many calls of one line in one test are asked again, then those whose number is a power of two.
AUDIT_CALLS = 4
# Lines that the summary shows; with -v it shows all.
AUDIT_LINES = 20

# --- Taylor remainders of whole functions (oracles/taylor_lines.py, oracles/taylor_blocks.py) ---

# The largest step, relative to the point: a random direction of relative size 1/4 seldom leaves what is smooth.
TAYLOR_STEP = 1 / 4
# Steps down to 2^-46 of the point, where differences of float64 have no digit left.
TAYLOR_STEPS = 23
# A step counts if the rounding of the argument changes it by less than this share.
TAYLOR_MOVEMENT = 1 / 8
# The slope from a pair of steps has 0.75 standard deviations of the noise over the step; 8 is 10 times that, since a
# table of differences has about 10 degrees of freedom.
TAYLOR_NOISE = 8.0
# A table of differences of 17 values over [−h, h]: the differences of orders 6, 7 and 8 of a smooth function vanish.
NOISE_POINTS = 17
NOISE_ORDERS = (6, 7, 8)
# Tables until the steps that are used have one at their scale.
NOISE_ROUNDS = 5
# Differences that shrink by half of what the leading order shrinks by are those of a smooth function.
SMOOTH_DECAY = 1 / 2
# Where a line crosses kinks at random, the error is about a quarter of the last difference.
ROUGH_SAFETY = 4.0
# Random directions of one judgement: an error of ten tolerances passes all three in 1 of 2,000.
TAYLOR_DIRECTIONS = 3
# Steps over which an error or a gap must stay: the largest is 4^9 = 262,144 times the smallest. float32 has no such
# range above its rounding, so there points nearby are asked.
LONG_RANGE = 10
# So many smallest steps in a row at which f has the claimed slope contradict what larger ones say.
CONTRADICTIONS = 4
# Before a refusal, further ladders of steps between the first ones, as shares of the largest step.
TAYLOR_SHIFTS = (0.63, 0.4)
# Pairs of values of the function that a search of blocks may take; the smallest block that it halves.
BLOCK_PAIRS = 60
SMALLEST_BLOCK = 64
# So many arrays, or groups of arrays, are judged by themselves too.
LONE_ARRAYS = 16
# How far points nearby are, relative to the point: beyond the steps at which a kink showed, that of float32 being 1/64.
NEARBY = 1 / 8
# So many must show the same error: one may lie next to another kink.
NEARBY_POINTS = 3

# --- Campaigns (oracles/campaign) ---

# A lease that is not renewed for so long ends, and another worker does the unit: three heartbeats, of which two may be
# late. Of a worker that dies on this machine the unit is given back at once.
CAMPAIGN_LEASE_SECONDS = 60.0
# So many workers that end during a unit, and no more, try it: by chance two may, and one that ends each of them would
# otherwise stop the campaign.
CAMPAIGN_ATTEMPTS = 3
# A process that is silent for so long is ended: the time of a point, of a diagnosis and of the shrinking of an example,
# which Hypothesis ends after 5 minutes, and as much to spare.
CAMPAIGN_SILENCE_SECONDS = 900.0
# A process says that it is alive, between two points, when the last word is so long ago.
CAMPAIGN_TICK_SECONDS = 2.0
# When the budget is over, units in work may take so much longer; then they are given back.
CAMPAIGN_GRACE_SECONDS = 30.0
# How often a worker looks whether its process has answered, the user has interrupted, or a unit was given back.
CAMPAIGN_POLL_SECONDS = 0.2
# Seeds of one unit: of 30 points each, and 10 that climb, it takes seconds, against milliseconds of its lease.
CAMPAIGN_BLOCK = 10

# --- Subjects that are not trusted (oracles/untrusted) ---

# How much the arrays of an answer of a subject's process may take: this, and so many times those of the question. An
# output may be larger than the inputs: an outer product. The header of an answer may take less.
LEAST_ANSWER_BYTES = 2**28
ANSWER_SHARE = 16
MOST_HEADER_BYTES = 2**20
# How much of a text that a subject's process sends is read.
MOST_TEXT = 500
# How many calls of a subject are kept to ask some of them again.
MOST_RECORDED = 256
# How many of them are asked again, and how many calls that are not judged stand between them.
REPEATED_CALLS = 6
DECOY_CALLS = 3
# How many calls of the longest duration that is allowed a point may take, besides `CHECK_SECONDS`. Right ones take 12.
CALLS_OF_A_POINT = 16
# How long the loading of a subject may take at least, with packages that it imports.
LOADING_SECONDS = 20.0
# How long a process that has closed its connection to the judge has to end.
GRACE_SECONDS = 1.0
# The size of the folder in memory in which a subject may write.
SCRATCH_MB = 64
