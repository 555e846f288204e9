r"""Units: answers are converted if both have a unit and the units measure the same."""

import pytest

from rewards.answers.math_answer import Math
from rewards.answers.units import with_common_unit
from tests.rewards.answers.test_catalogue import read_catalogue

UNITS = r"""
2 \text{ hours}
    + 120\text{ minutes} | 2 | 2\text{ h} | 7{,}200 \text{ s} | t = 120\text{ min} | \frac{1}{12}\text{ day}
    - 2\text{ minutes} | 120 | 2\text{ days} | 120\text{ s}
3 \text{ hours } 20 \text{ minutes}
    + 200\text{ minutes} | 3\frac13\text{ hours} | 3 hr 20 min | \frac{10}{3} h
    - 3\text{ hours} | 20 | 320\text{ minutes}
5\text{ ft }6\text{ in}
    + 66\text{ inches} | 5.5\text{ ft} | 5 feet 6 inches
1\text{ m}^2
    + 10000\text{ cm}^2 | 1 | 1 square meter | 10^4\,\mathrm{cm^2} | 10{,}000 cm²
    - 100\text{ cm}^2
30\text{ km/h}
    + \frac{25}{3}\text{ m/s} | 30 | 30 kilometers per hour | \frac{25}{3} \frac{\text{m}}{\text{s}}
    + \frac{25}{3}\,\mathrm{m\,s^{-1}}
    - 30\text{ m/s}
\$18.90
    + 1890\text{ cents} | 1890¢ | \$18.9 | 18.90 | 18.9 dollars | \textbf{\$18.90}
    - 1890 | 18.90\text{ cents}
1890 cents
    + \$18.90 | 1890
    - \$1890 | 18.90
60^\circ
    + \frac{\pi}{3} | \frac{\pi}{3}\text{ radians} | 60
    - 60\text{ radians} | \frac{\pi}{6}
\frac{2\pi}{3}
    + 120° | 120\text{ degrees} | \frac{2\pi}{3}\text{ rad}
    - 120
\sin 60^\circ
    + \sin\frac{\pi}{3}
    - \frac{\pi}{3}
5\text{ kJ}
    + 5000\ \mathrm{kg\,m^2/s^2} | 5000\text{ N}\cdot\text{m}
    - 5\text{ J}
2\text{ L}
    + 2000\text{ mL} | 2000 cubic centimeters | 2 litres
    - 2\text{ mL}
6\text{ years}
    + 72\text{ months}
    - 6 months
5\text{ m}
    + 5\text{ kg} | 5\text{ parsecs}
120 \mathrm{~J}
    + 120 J | 120\,J | 120J
    - 120 W | 12 J
x = \frac{\pi}{3}
    - y = \frac{\pi}{3}
"""


def test_answers_with_units_are_graded_as_a_person_would():
    rows = [(reference, *answer) for reference, answers in read_catalogue(UNITS).items() for answer in answers]
    references, answers, expected = zip(*rows, strict=True)
    math = Math(workers=1)
    statuses = math.grade([rf"So it is \boxed{{{answer}}}." for answer in answers], references)
    checked = math.check_references(list(read_catalogue(UNITS)))
    math.close()
    graded = zip(references, answers, expected, statuses, strict=True)
    assert [row for row in graded if row[2] != (row[3] == "ok")] == []
    assert set(checked) == {"ok"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2 cm", "2"),
        ("2 cm", "3 kg"),
        (r"2\text{ cm}, 3\text{ cm}", r"20\text{ mm}, 30\text{ mm}"),  # a list
        (r"25^\circ\text{C}", r"25^\circ\text{F}"),
        ("2 hours 3 kg", "4 hours"),
        ("2 cm/", "3 mm"),
        ("2cm^2^2", "3mm"),
        (r"\frac{2}{3}", r"\frac{\pi}{3}"),
    ],
)
def test_answers_that_stay_as_they_are(first, second):
    assert with_common_unit(first, second) == (first, second)
