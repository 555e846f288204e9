#!/usr/bin/env bash
# Repeat the whole study: the family of losses without reference answers (TTRL), with 1, 4 and 16 updates per generation
# and two learning rates. Run the script again to continue after an interruption. The variables PYTHON and JOBS can be
# set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../.."
export OMP_NUM_THREADS=1

algorithms=(
    grpo grpo:importance_sampling_level=sequence gbpo gbpo:target_baseline=exact
    gbpo:target_baseline=exact,overshoot_slope=0.2
    gbpo:target_baseline=mean,target_temperature=0,bound_exponent=1,overshoot_slope=0
    gbpo:target_baseline=exact,bound_exponent=1
)

seeds=(1 2 3 4 5)

study() { # NAME UPDATES LEARNING_RATE [GENERATIONS [OPTION…]]: the algorithms with each seed, 60 generations by default
    local tenth=$((${4:-60} / 10 * $2)) # optimiser steps
    "${PYTHON:-.venv/bin/python}" -m evals.compare recipes/tiny_ttrl.yaml --algorithms "${algorithms[@]}" \
        --seeds "${seeds[@]}" --jobs "${JOBS:-2}" --output "runs/ttrl/$1" \
        "--dataset_kwargs={size: 83, max_operand: 49, seed: 0}" --steps_per_generation=1 --num_iterations="$2" \
        --max_steps=$((10 * tenth)) --learning_rate="$3" --eval_steps $tenth --logging_steps=$((tenth / 3)) \
        --log_completions=false --eval_questions 256 --eval_reward exact_match "${@:5}"
    mkdir -p "$here/$1"
    cp "runs/ttrl/$1/results.json" "runs/ttrl/$1/summary.md" "$here/$1/"
}

study updates-16 16 3e-4
study updates-4 4 3e-4
study updates-16-rate-1e-4 16 1e-4
study updates-4-rate-1e-4 4 1e-4
algorithms=(grpo gbpo) # with one update per generation the others take the steps of one of these
study updates-1 1 3e-4
study updates-1-rate-1e-4 1 1e-4

# Confirmation with fresh seeds, written down before it ran: GBPO with the bounds on the ratio and κ 1, and GRPO, each
# with the updates and the rate that have the highest final validation of its seeds 1 to 5. That is 16 updates and 1e-4
# for all three. GRPO has almost the same validation with 4 updates and 1e-4, and with 1 update and 3e-4 (0.48, 0.47
# and 0.44), so it runs with these too.
seeds=(6 7 8 9 10 11 12 13 14 15)
algorithms=(grpo gbpo gbpo:target_baseline=exact)
study confirmation-16-rate-1e-4 16 1e-4
algorithms=(grpo)
study confirmation-4-rate-1e-4 4 1e-4
study confirmation-1 1 3e-4

# Screen for better settings of GRPO, written down before it ran: a third of the lower rate, and four times as many
# generations, so that 4 updates per generation also take 960 optimiser steps. The measure is the final validation,
# averaged over the seeds 1 and 2. If GRPO has a higher one here than with each of its three settings of the
# confirmation (the same two seeds), the confirmation did not have GRPO's best setting. The page then says so, and GRPO
# runs with this setting and the seeds 6 to 15, too.
seeds=(1 2)
algorithms=(grpo gbpo gbpo:target_baseline=exact)
study screen-16-rate-3e-5 16 3e-5
algorithms=(grpo gbpo:target_baseline=exact)
study screen-4-generations-240 4 1e-4 240

# Second confirmation. By the rule of the screen GRPO runs with 16 updates and 3e-5: its final validation of the seeds 1
# and 2 is 0.64, and at most 0.49 with the settings of the first confirmation. The exact target was not part of the
# rule. It was added after the screen and before these runs, because its validation is the highest at this rate, too.
# The differences to GRPO at this setting are a family of their own: exact and published with 1e-4, exact with 3e-5.
seeds=(6 7 8 9 10 11 12 13 14 15)
algorithms=(grpo gbpo:target_baseline=exact)
study confirmation-16-rate-3e-5 16 3e-5

# Staleness and mismatch, written down before these runs. The votes are the 8 completions themselves, because additional
# votes cannot be combined with `generate_ahead` or `sampling_dtype`. The anchor is the default, `trainer`. There are 4
# updates per generation. A try of GRPO with seed 0 chose the rate: with 1e-4 it ended at 0.72 of right sums, and at
# 0.76 with completions of 16 generations ago, so nothing happened. With 3e-4 it stayed at 0.4 to 0.5 from the middle
# of the run on, so it is near the edge. The seeds are 16 to 20, in all three settings. If there is no time for seed 20,
# the seeds are 16 to 19 in all of them.
#
# - An axis shows an effect if GRPO ends significantly lower with it than without it: paired t-test over seeds of the
#   final mean@16, p < 0.05 after Holm's correction for the two axes. An axis without this effect cannot judge which
#   loss bears it better, and the page says so.
# - The differences to GRPO in the same setting, 3 losses in 3 settings, are another family. A difference counts if its
#   p-value, corrected by Holm's method for all 9, is below 0.05.
#
# Two changes were made after GRPO had run with all seeds and the other losses with the seeds 16 and 17. TRL takes
# `epsilon_high` as the highest weight of CISPO and recommends 5. The first runs had 0.2, so CISPO runs again with 5. The
# other losses also run with the seeds 18 to 20.
seeds=(16 17 18 19 20)
algorithms=(grpo grpo:loss_type=cispo,epsilon_high=5 gbpo gbpo:target_baseline=exact)
own_votes="--reward_kwargs={majority_vote: {votes: 8, boxed: false}}"
study axes-none 4 3e-4 60 "$own_votes"
study axes-ahead-16 4 3e-4 60 "$own_votes" --generate_ahead=16
study axes-bfloat16 4 3e-4 60 "$own_votes" --sampling_dtype=bfloat16

# Added after the three settings above and before this one: completions of 4 generations ago. The families of tests grow
# to 3 effects on GRPO and 12 differences to GRPO.
study axes-ahead-4 4 3e-4 60 "$own_votes" --generate_ahead=4

# Screen of other losses, written down before it ran: TRL's other losses with their default settings, GBPO with bounds
# between those of the ratio and of the probability, and GBPO with a flat loss past the target. GRPO and GBPO with the
# exact target run again, because the first runs of the seeds 1 and 2 were made on another machine. A loss with a higher
# final mean@16 than GBPO with the exact target in both seeds also runs with the seeds 3 to 5. All others end here.
seeds=(1 2)
algorithms=(
    grpo gbpo:target_baseline=exact grpo:loss_type=cispo,epsilon_high=5 grpo:loss_type=sapo grpo:loss_type=vespo
    gbpo:target_baseline=exact,bound_exponent=0.5 gbpo:target_baseline=exact,overshoot_slope=0
)
study screen-others 4 3e-4

# The rest of the first screen's rule, and a lower rate. This was written down before these runs. By that rule GRPO with
# 4 updates and 240 generations runs with the seeds 6 to 15. The exact target runs beside it. Their difference is a
# family of its own. The rate 1e-5 is screened with 16 updates. A loss runs with the seeds 6 to 15 at 1e-5 if its final
# validation, averaged over the seeds 1 and 2, is higher there than with 3e-5.
seeds=(6 7 8 9 10 11 12 13 14 15)
algorithms=(grpo gbpo:target_baseline=exact)
study confirmation-4-generations-240 4 1e-4 240
seeds=(1 2)
algorithms=(grpo gbpo gbpo:target_baseline=exact)
study screen-16-rate-1e-5 16 1e-5

# The losses that go on from the screen of other losses: `bound_exponent` 0.5 and κ 0. A run takes 20 s, so they run with
# the seeds 3 to 10 instead of 3 to 5. This was decided before these runs. Their differences to the exact target with
# these seeds are a family of their own.
seeds=(3 4 5 6 7 8 9 10)
algorithms=(
    gbpo:target_baseline=exact gbpo:target_baseline=exact,bound_exponent=0.5
    gbpo:target_baseline=exact,overshoot_slope=0
)
study others-again 4 3e-4

"${PYTHON:-.venv/bin/python}" -m evals.studies.test_time.table
