"""The generated chains, and the tokens of the model that learns them."""

import random
import re
from itertools import pairwise

from transformers import AutoTokenizer

from gbpo.run.data.chains import answer, chains, right_totals
from gbpo.run.models import tiny_chain


def test_the_solution_is_the_start_plus_ten_steps_modulo_100():
    rows = chains(size=300, seed=1)
    starts, steps = set(), set()
    for row in rows:
        start, step = re.fullmatch(r"(\d\d)([+-]0[1-9])", row["prompt"]).groups()
        total = int(start)
        for _ in range(10):
            total = (total + int(step)) % 100
        assert row["solution"] == f"{total:02d}"
        starts.add(int(start))
        steps.add(int(step))
    assert steps == {*range(-9, 0), *range(1, 10)} and min(starts) < 5 and max(starts) > 94
    assert chains(size=300, seed=1)["prompt"] == rows["prompt"] != chains(size=300, seed=2)["prompt"]


def test_an_answer_writes_every_total():
    assert right_totals(95, 3)[:3] == [95, 98, 1]
    assert answer(3, [95, 98, 1]) == r"95+03=98+03=\boxed{01}"


def test_every_number_and_step_is_one_token_also_after_loading(tmp_path):
    text = tiny_chain.tokenizer()
    text.save_pretrained(tmp_path)
    for tokenizer in (text, AutoTokenizer.from_pretrained(tmp_path)):
        written = answer(-7, right_totals(95, -7))
        assert len(tokenizer("95-07")["input_ids"]) == 2
        ids = tokenizer(written)["input_ids"]
        assert len(ids) == 33 and tokenizer.decode(ids) == written
    assert len(text) >= 200


def test_a_demonstration_goes_on_from_its_errors():
    rng = random.Random(0)
    errors = 0
    for _ in range(200):
        question, written = tiny_chain._demonstration(rng, 0.04)
        start, step = int(question[:2]), int(question[2:])
        totals = list(map(int, re.findall(r"\d\d(?=[-+}])", written)))
        assert totals[0] == start and len(totals) == 11
        errors += sum((before + step - after) % 100 != 0 for before, after in pairwise(totals))
    assert 45 < errors < 115  # of 2,000 totals 4 % are random, and one in a hundred of these is right by chance
    question, written = tiny_chain._demonstration(rng, 0.0)
    start, step = int(question[:2]), int(question[2:])
    assert written == answer(step, right_totals(start, step))
