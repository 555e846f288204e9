"""What a user does with an installed gbpo: train, compare, report."""

SMALL = ["--per_device_train_batch_size=16", "--max_steps=2", "--max_completion_length=3"]


def train_compare_report(gbpo, folder):
    """Call the commands and check the files that they write.

    Args:
        gbpo: `gbpo(*words)` runs a command in `folder`, checks that it succeeds and returns what it printed.
        folder: An empty folder outside the checkout.
    """
    assert "tiny_math" in gbpo("recipes")
    gbpo("train", "tiny_math", *SMALL, "--output_dir=run")
    assert (folder / "run" / "model" / "README.md").is_file()
    few = ["--eval_steps=1", "--eval_questions=8", "--eval_samples=2", "--seeds", "0"]
    gbpo("compare", "tiny_math", "--algorithms", "grpo", "gbpo", *few, *SMALL)
    report = folder / "runs" / "compare-tiny_math" / "report.html"
    report.unlink()
    gbpo("report", "runs/compare-tiny_math")
    assert report.is_file()
