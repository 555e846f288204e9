#!/usr/bin/env bash
# Repeat the whole study: GRPO and GBPO with completions that are 0, 1, 4 and 16 generations old, with both anchors, on
# two tasks. Run the script again to continue after an interruption. The variables PYTHON and JOBS can be set. Needs
# reasoning-gym.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../.."
output=runs/staleness
export OMP_NUM_THREADS=1

study() { # NAME RECIPE ANCHOR AHEAD: all algorithms, each with completions of several ages and five seeds
    "${PYTHON:-.venv/bin/python}" -m evals.compare "recipes/$2.yaml" \
        --algorithms grpo gbpo:overshoot_slope=0.2 gbpo:target_baseline=exact,overshoot_slope=0.2 \
        --seeds 0 1 2 3 4 --grid "generate_ahead=$4" --jobs "${JOBS:-2}" --output "$output/$1" \
        --steps_per_generation=1 --num_iterations=4 --max_steps=200 --learning_rate=3e-4 --ratio_anchor="$3" \
        --log_completions=false --eval_questions 256 --eval_steps 50
    mkdir -p "$here/$1"
    cp "$output/$1/results.json" "$output/$1/summary.md" "$here/$1/"
}

study sums-trainer tiny_math trainer 0,1,4,16
study sums-sampler tiny_math sampler 1,4,16
study words-trainer tiny_words trainer 0,1,4,16
study words-sampler tiny_words sampler 1,4,16
