#!/usr/bin/env bash
# Repeat the whole study: GRPO and GBPO on chains of sums, with 4 and 16 updates per generation. Run the script again to
# continue after an interruption. The variables PYTHON and JOBS can be set.
#
# Rules, written before the runs. Seed 0 alone was used to try the design.
# - Each loss runs with the rates 3e-5, 1e-4 and 3e-4, 4 and 16 updates per generation, and the seed 100. For each loss
#   and each number of updates, the rate with the highest final validation is its own rate.
# - With 16 updates, each loss runs with its own rate and with 3e-4, and the seeds 1 to 5. With 4 updates, it runs with its
#   own rate.
# - The task can judge stability if GRPO with 3e-4 ends lower with 16 updates than with its own rate, or below its start,
#   in all five seeds. Otherwise the page says that it cannot.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../.."
export OMP_NUM_THREADS=1

study() { # NAME UPDATES RATES SEEDS...: the algorithms, 30 generations of 8 prompts × 8 completions
    local name=$1 updates=$2 rates=$3
    shift 3
    "${PYTHON:-.venv/bin/python}" -m evals.compare recipes/tiny_chain.yaml --algorithms "${algorithms[@]}" \
        --seeds "$@" --grid "learning_rate=$rates" --jobs "${JOBS:-2}" --output "runs/chain/$name" \
        --num_iterations="$updates" --max_steps=$((30 * updates)) --eval_steps $((3 * updates)) \
        --logging_steps="$updates" --log_completions=false --eval_questions 128
    mkdir -p "$here/$name"
    cp "runs/chain/$name/results.json" "runs/chain/$name/summary.md" "$here/$name/"
}

algorithms=(grpo gbpo:target_baseline=median,overshoot_slope=1 gbpo:target_baseline=exact,overshoot_slope=1)
study screen-16 16 3e-5,1e-4,3e-4 100
study screen-4 4 3e-5,1e-4,3e-4 100
