#!/usr/bin/env bash
# Repeat the whole study: learning rates, GRPO and GBPO on two tasks, ablations. It takes about five hours on 2 cores. Run
# the script again to continue after an interruption. The variables PYTHON and JOBS can be set. Needs reasoning-gym.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../.."
output=runs/stability
compare=("${PYTHON:-.venv/bin/python}" -m evals.compare)
shared=(--steps_per_generation=1 --max_steps=400 --log_completions=false --eval_questions 256 --eval_steps 40
    --jobs "${JOBS:-2}")
algorithms=(grpo gbpo gbpo:target_baseline=exact gbpo:target_baseline=exact,overshoot_slope=0.2)
export OMP_NUM_THREADS=1

keep() { # copy the files of a comparison that are part of the repository
    mkdir -p "$here/$1"
    cp "$output/$1/results.json" "$output/$1/summary.md" "$here/$1/"
}

sweep() { # NAME RECIPE: GRPO's mean@16 at several learning rates
    "${compare[@]}" "recipes/$2.yaml" --algorithms grpo --seeds 100 101 \
        --grid learning_rate=1e-4,3e-4,1e-3,3e-3 num_iterations=1,4,16 "${shared[@]}" --output "$output/$1"
    keep "$1"
}

study() { # NAME RECIPE GRID...: all algorithms over a grid with five seeds
    local name=$1 recipe=$2
    shift 2
    "${compare[@]}" "recipes/$recipe.yaml" --algorithms "${algorithms[@]}" --seeds 0 1 2 3 4 --grid "$@" "${shared[@]}" \
        --output "$output/$name"
    keep "$name"
}

sweep sums-learning-rate tiny_math
study sums tiny_math epsilon=0.2,0.3,0.5 num_iterations=1,4,16 --learning_rate=3e-4
sweep words-learning-rate tiny_words
study words tiny_words epsilon=0.2,0.3 num_iterations=1,4,16 --learning_rate=3e-4
study sums-own-learning-rate tiny_math learning_rate=1e-4,1e-3 num_iterations=4,16

algorithms=(
    grpo grpo:importance_sampling_level=sequence
    gbpo gbpo:target_temperature=0.1 gbpo:target_temperature=1 gbpo:target_baseline=mean gbpo:target_baseline=exact
    gbpo:importance_sampling_level=sequence gbpo:target_baseline=exact,importance_sampling_level=sequence
)
study ablations tiny_math num_iterations=4,16 --epsilon=0.2 --learning_rate=3e-4
