"""The generated additions and products."""

import pytest

from gbpo.run.data.arithmetic import arithmetic


def test_the_additions_do_not_depend_on_the_option_for_products():
    """The first problems of the demo, which earlier versions generated too."""
    assert arithmetic(size=4, seed=0)["prompt"] == ["24+48=", "26+2=", "16+32=", "31+25="]


@pytest.mark.parametrize(("share", "products"), [(0.0, 0), (0.875, 56), (1.0, 64)])
def test_the_share_of_products_is_exact(share, products):
    rows = arithmetic(size=64, seed=1, products=share)
    found = [row for row in rows if "*" in row["prompt"]]
    assert len(found) == products
    for row in rows:
        left, sign, right = row["prompt"].rstrip("=").replace("+", " + ").replace("*", " * ").split()
        left, right = int(left), int(right)
        assert int(row["solution"]) == (left * right if sign == "*" else left + right)
        assert min(left, right) >= 10 if sign == "*" else max(left, right) <= 49
