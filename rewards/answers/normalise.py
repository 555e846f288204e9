r"""Rewrite an answer into LaTeX that the parser of math-verify reads as a person would.

People and models write one value in many ways: `58\,500`, `½`, `**5**`, `1e-5`, `\text{10 apples}`, `30°`, `2*pi`.
`normalise` applies a list of small steps. Each step removes or rewrites one kind of spelling. The reference answer and
the answer of a completion go through the same steps.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

# ---------------------------------------------------------------------------------------------------------------------
# characters
# ---------------------------------------------------------------------------------------------------------------------

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱᵏᵐˣʸ", "0123456789+-()nikmxy")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_VULGAR = re.compile("[¼-¾⅐-⅞]|[⁰¹²³⁴-⁹]+⁄[₀-₉]+")  # fractions such as ½ and ³⁄₄
# a character and its LaTeX, in turn
_TABLE = r"""
    × \times  · \cdot  ⋅ \cdot  ∙ \cdot  ÷ /  ⁄ /  ∕ /  − -  – -  ‐ -  ± \pm  ∓ \mp  ≈ \approx  ≃ \approx
    ≤ \le  ⩽ \le  ≥ \ge  ⩾ \ge  ≠ \ne  ∞ \infty  ∪ \cup  ∩ \cap  ∈ \in  ∖ \setminus  ∅ \emptyset  ∨ \lor  ∧ \land
    √ \sqrt  ∛ \sqrt[3]  ∜ \sqrt[4]  ° ^\circ  º ^\circ  ⌊ \lfloor  ⌋ \rfloor  ⌈ \lceil  ⌉ \rceil  π \pi  θ \theta
    α \alpha  β \beta  ℝ \mathbb{R}  ℤ \mathbb{Z}  ℕ \mathbb{N}  ℚ \mathbb{Q}  ℂ \mathbb{C}  ’ '  ′ '
    γ \gamma  δ \delta  ε \epsilon  λ \lambda  μ \mu  ρ \rho  σ \sigma  τ \tau  φ \phi  ϕ \phi  ω \omega  Δ \Delta
    Ω \Omega  ∠ \angle  △ \triangle  ℏ \hbar  ⟨ (  ⟩ )  — -  ∣ |
    ∴ \therefore  → \to  ‘ '  ˚ ^\circ  “ "  ” "  。 .  、 ,
""".split()
_COMMANDS = dict(zip(_TABLE[::2], _TABLE[1::2], strict=True))
_SPACES = re.compile("[\u00a0\u2002-\u200a\u202f]")  # among them the thin spaces between thousands


def _unicode(text: str) -> str:
    """Replace characters that stand for LaTeX: signs, fractions, exponents and spaces."""
    if text.isascii():
        return text
    text = _VULGAR.sub(_vulgar, text)
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱᵏᵐˣʸ]+", lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}", text)
    text = re.sub(r"[₀-₉]+", lambda match: f"_{{{match[0].translate(_SUBSCRIPTS)}}}", text)
    text = _SPACES.sub(" ", text)
    text = "".join(character if character in _COMMANDS else _compatible(character) for character in text)
    for character, latex in _COMMANDS.items():
        # a command ends before a letter: αx is \alpha x
        text = text.replace(character, f"{latex} " if latex[0] == "\\" and latex[-1].isalpha() else latex)
    return text


def _compatible(character: str) -> str:
    """The usual form of a character, such as `5` for a full-width digit; nothing for a pictogram and for no width."""
    if unicodedata.category(character) == "No":  # a circled digit names an option of a list
        return character
    usual = unicodedata.normalize("NFKC", character)
    return "" if unicodedata.category(usual[0]) in ("So", "Cf") and usual[0] != "°" else usual


def _vulgar(match: re.Match[str]) -> str:
    numerator, _, denominator = unicodedata.normalize("NFKC", match[0]).partition("⁄")
    return rf"\frac{{{numerator}}}{{{denominator}}}"


# ---------------------------------------------------------------------------------------------------------------------
# groups in braces and parentheses
# ---------------------------------------------------------------------------------------------------------------------

_CLOSING = {"{": "}", "(": ")", "[": "]"}
_COMMAND_AT_END = re.compile(r"\\[A-Za-z]+$")


def _group_end(text: str, start: int) -> int | None:
    """The index after the group that opens at `start`; None if it does not close."""
    opening, closing = text[start], _CLOSING[text[start]]
    depth = 0
    for place in range(start, len(text)):
        if text[place] in (opening, closing) and text[place - 1 : place] != "\\":
            depth += 1 if text[place] == opening else -1
            if depth == 0:
                return place + 1
    return None


def _rewrite_groups(text: str, head: re.Pattern[str], rewrite: Callable[[re.Match[str], str], str]) -> str:
    """Replace each match of `head` with the group after it, from the last one on, so that groups may be nested.

    `head` ends before the opening brace or parenthesis. `rewrite` gets the match and the content of the group.
    """
    for match in reversed(list(head.finditer(text))):
        end = _group_end(text, match.end()) if match.end() < len(text) else None
        if end is not None:
            before, written = text[: match.start()], rewrite(match, text[match.end() + 1 : end - 1])
            is_joined = written[:1].isalpha() and _COMMAND_AT_END.search(before)  # \cdot\mathbf{b} is \cdot b
            text = f"{before}{' ' if is_joined else ''}{written}{text[end:]}"
    return text


# ---------------------------------------------------------------------------------------------------------------------
# decoration
# ---------------------------------------------------------------------------------------------------------------------

_DELIMITERS = re.compile(r"(?<!\\)(?:\$|\\[()\[\]])")
_CODES = "USD|EUR|GBP|JPY|CNY|RMB|INR"
_CURRENCY = re.compile(
    rf"(?:US|[RCAS]|HK|NT)?\\\$|[€£¥₹¢₩₱₽₺₫฿]|(?:\\text\{{ ?)?\bRs\b\.? ?\}}?(?= ?\d)"
    rf"|\\(?:pounds|euro|textdollar)(?![A-Za-z])|\\text\{{ ?(?:{_CODES}) ?\}}|\b(?:{_CODES})\b"
)
_MARKDOWN = re.compile(r"\s*(?:(\*{1,3}|__?|`|\")(.+)\1[.,;]?|#+ (.+)|``(.+)'')\s*", re.DOTALL)
_SYMBOLS = {"{.}": ".", "{:}": ":", "{-}": "-", r"\ast ": r"\cdot ", "+/-": r"\pm ", r"\{ \}": r"\emptyset"}
_SYMBOLS |= {r"\lbrace": r"\{", r"\rbrace": r"\}", r"\langle": "(", r"\rangle": ")"}
_SYMBOLS |= {
    r"\text{^\circ}": r"^\circ ",
    r"\colon": ":",
    r"\bigcup": r"\cup",
    r"\bigcap": r"\cap",
    r"\cr": r"\\",
    "smallmatrix": "matrix",
}
_SYMBOL = re.compile(
    r"^\\\{ \\\}$|(?<![A-Za-z])\{[.:-]\}|\\ast |\\(?:[lr]brace|[lr]angle|colon|big(?:cup|cap)|cr)(?![A-Za-z])|\+/-"
    r"|(?<=\{)smallmatrix(?=\})|\\text\{\^\\circ\}"
)
_COLOUR_MODEL = r"(?:\[\w+\]\s*)?"
_INVISIBLE = re.compile(
    r"\\!\s*"
    r"|\\(?:display|text|script)style(?![A-Za-z])"
    r"|\\(?:left|right)\.|\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])"
    r"|\\(?:no)?limits(?![A-Za-z])|\\(?:math)?strut(?![A-Za-z])|\\(?:label|tag)\{[^{}]*\}|\\no(?:number|tag)(?![A-Za-z])"
    r"|\\(?:tiny|small|normalsize|large|Large|LARGE|huge|Huge|bf|it|rm|sf|tt|bfseries|itshape)(?![A-Za-z])"
    r"|\\(?:mathbf|mathrm|mathit|mathsf|boldsymbol|bm)(?=\s*\d|\s+[A-Za-z](?![A-Za-z]))"
    rf"|\\color\s*{_COLOUR_MODEL}(?!\{{white\}})\{{[^{{}}]*\}}"
    r"|\\(?:checkmark|qed|square|blacksquare|Box)\s*$|(?<=\\\\)\[[\d.]+(?:pt|em|ex|mm|cm)\]"
)
_SPACE = re.compile(
    r"(?:(?<!\\)\\[,;:> ]|\\(?:q?quad|enspace|thinspace|medspace|space)(?![A-Za-z])|\\[hv]?phantom\{[^{}]*\}"
    r"|\\hspace\*?\{[^{}]*\}|(?<=\d)\{(?:\\[,;: ]|~|\s)\}(?=\d)|~|\s)+"
)
_ROW_ENDS = re.compile(r"\\\\\s*(?:\\\\\s*)+")  # the end of one row, escaped twice
_LINES = re.compile(
    r"\\begin\s*\{(align(?:ed)?\*?|gather(?:ed)?\*?|equation\*?|split|cases)\}(.*?)\\end\s*\{\1\}", re.DOTALL
)
_SYSTEM = re.compile(  # a brace before lines
    r"\\left\s*\\\{\s*\\begin\s*\{(aligned|array|gathered|matrix)\}(?:\{[lcr]*\})?(.*?)\\end\s*\{\1\}\s*\\right\s*\.",
    re.DOTALL,
)
_TEXT_COMMA = re.compile(r"\\text\s*\{\s*([,;:]\s*)\}")
_MATH_FONT = re.compile(
    r"\\(?:math(?:bf|it|sf|tt|cal|frak|normal|ord|op)|boldsymbol|pmb|bm|underline|ensuremath|fbox|framebox|boxed"
    rf"|(?:textcolor|colorbox|fcolorbox\s*{_COLOUR_MODEL}\{{[^{{}}]*\}})\s*{_COLOUR_MODEL}\{{[^{{}}]*\}})\s*(?=\{{)"
)
_TEXT_FONT = re.compile(r"\\(?:text(?:bf|it|rm|sf|sc|sl|tt|normal|up)|emph|mbox|hbox|operatorname\*?)\s*(?=\{)")
_TEXT_IN_TEXT = re.compile(r"\\text\{ ?\\text\{([^{}]*)\} ?\}")
_ANSWER_IS = "(?:最终|最后)?答案[是为]?|respuesta es|réponse est|Antwort (?:ist|lautet)"
_ANSWER_IS = rf"(?:{_ANSWER_IS}|(?i:(?:the )?(?:final |correct )?answer(?: is|(?=:))))"
_MATHS_IN_TEXT = re.compile(  # without a word, except and and or
    rf"\\text\{{ ?(?:{_ANSWER_IS}:? ?)?"
    r"((?=[^{}]*\d)(?:\b(?:and|or)\b|(?![A-Za-z]{2})[^{}])*?)[ .]*\}"
)
_OLD_ROMAN = re.compile(r"\{ ?\\rm(?![A-Za-z])[\s~]*\{?([^{}]*)\}?\s*\}|\\rm\s*\{([^{}]*)\}")
_TEXT_IN_BRACES = re.compile(r"(?<=\d)\s*\{\s*(\\text\{[^{}]*\})\s*\}")
_TEXTS = re.compile(r"\\text\{[^{}]*\}(?: ?\\text\{[^{}]*\})+")
_ROMAN = re.compile(r"(\s*)\\(?:mathrm|text)\s*(?=\{)")
_ELLIPSIS = re.compile(r"(?<![\d.])(\d*\.\d*?)(?:(\d)\2{2,}|(\d{2,}?)\3+) ?(?:\.{3}|\\[lc]?dots)(?=\s*$)")  # 0.333...
_DOTS_IN_LIST = re.compile(r"(?<=,) ?(?:\.{3}|\\(?:[lc]?dots|dots[bcm])(?![A-Za-z]))")
_TRAILING = re.compile(r"[\s.,;]+$|(?<=[^\\])\\+$")
_LEADING = re.compile(r"^(?:\s|=|:|\\(?:approx|therefore|implies|Rightarrow|to|sim|simeq|equiv)(?![A-Za-z]))+")
_FUNCTION = re.compile(r"(?:arc)?(?:sin|cos|tan|cot|sec|csc|tg|ctg)|log|ln|lg|gcd|pi")
_OTHER_NAMES = {"tg": "tan", "ctg": "cot", "arctg": "arctan", "arcctg": "arccot", "varepsilon": "epsilon"}
_OTHER_NAMES["varphi"] = "phi"
_OTHER_NAME = re.compile(rf"\\({'|'.join(_OTHER_NAMES)})(?![A-Za-z])")
_PLAIN_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_FORMULA_COMMAND = re.compile(r"\\(?:[dt]?frac|sqrt|pi)(?![A-Za-z])")
_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{2}")
_UNIT_LETTERS = frozenset("mgshLlNJWVAKCF")  # other single letters are variables


def _decoration(text: str) -> str:
    """Remove what changes only the look of an answer: delimiters, currencies, fonts, colours, spaces, a final dot."""
    while match := _MARKDOWN.fullmatch(text):
        text = match[2] or match[3] or match[4]
    text = _SYSTEM.sub(lambda match: rf"\begin{{cases}}{match[2]}\end{{cases}}", text)
    text = _LINES.sub(_list_of_lines, _ROW_ENDS.sub(r"\\\\", text))
    text = _CURRENCY.sub("", text)
    text = _OLD_ROMAN.sub(lambda match: rf"\mathrm{{{match[1] or match[2]}}}", text)
    text = _DELIMITERS.sub("", text)
    text = _INVISIBLE.sub("", text)
    text = _SYMBOL.sub(lambda match: _SYMBOLS[match[0]], text)
    text = _ELLIPSIS.sub(lambda match: rf"{match[1]}\overline{{{match[2] or match[3]}}}", text)
    text = _TEXT_COMMA.sub(r"\1", text)
    text = _rewrite_groups(text, _MATH_FONT, lambda _, content: content)
    text = _rewrite_groups(text, _TEXT_FONT, lambda _, content: rf"\text{{{content}}}")
    text = _rewrite_groups(text, _ROMAN, _roman)
    text = _TEXT_IN_TEXT.sub(r"\\text{\1}", text)
    text = _DOTS_IN_LIST.sub(r" \\text{dots}", _SPACE.sub(" ", text))
    text = _TEXT_IN_BRACES.sub(r" \1", text)
    text = _LEADING.sub("", _TRAILING.sub("", text))
    if text.startswith("{") and _group_end(text, 0) == len(text):
        text = text[1:-1]
    if match := _MATHS_IN_TEXT.fullmatch(text):
        text = match[1]
    return text.strip()


def _list_of_lines(match: re.Match[str]) -> str:
    """The lines of an environment as a list, except the cases of a function."""
    if r"\begin" in match[2]:  # a matrix
        return match[2].strip()
    lines = re.sub(r"&\s*(?==)|(?<==)\s*&", "", match[2])
    if match[1] == "cases" and "&" in lines:
        return match[0]
    listed = ""
    for line in lines.replace("&", " ").split(r"\\"):
        line = line.strip().rstrip(" ,;.")
        listed += line if not listed or line.startswith("=") else f", {line}" if line else ""
    return listed


def _roman(match: re.Match[str], content: str) -> str:
    r"""Upright text. One letter is a variable, as in `2\mathrm{x}`, except a unit such as `6\,\mathrm{m}`."""
    if name := _FUNCTION.fullmatch(content.strip()):
        return rf"{match[1]}\{_OTHER_NAMES.get(name[0], name[0])} "
    before = match.string[: match.start()]
    if _PLAIN_NUMBER.fullmatch(content) and not before[-1:].isalnum():
        return match[1] + content
    if _FORMULA_COMMAND.search(content) and not _WORD.search(content):
        return match[1] + content
    is_set_off = bool(match[1]) or before.endswith((r"\,", r"\;", r"\ ", "~"))
    is_unit = content in _UNIT_LETTERS and before != "" and (is_set_off or r"\text" in match[0])
    return match[1] + (content if len(content) == 1 and not is_unit else rf"\text{{{content}}}")


_VECTOR_FONT = r"\\(?:mathbf|boldsymbol|bm|hat|widehat|vec|overrightarrow)"
_UNIT_VECTOR = re.compile(
    rf"{_VECTOR_FONT}\s*\{{\s*{_VECTOR_FONT}\s*\{{\s*\\?([ijk])(?:math)?\s*\}}\s*\}}"
    rf"|{_VECTOR_FONT}(?:\s*\{{\s*\\?([ijk])(?:math)?\s*\}}|\s+([ijk])(?![A-Za-z]))"
)
_VECTOR = re.compile(r"\\(?:vec|overrightarrow)(?:\s*\{\s*([A-Za-z])\s*\}|\s+([A-Za-z])(?![A-Za-z]))")
_TERM = re.compile(r"[\s$]*([+-]?)([^<>+-]*)<([ijk])>[\s$.]*")


def _unit_vectors(text: str) -> str:
    r"""A sum of unit vectors, such as `3\mathbf{i} - 5\mathbf{k}`, as a point; other vectors without an arrow."""
    marked = _UNIT_VECTOR.sub(lambda match: f"<{match[1] or match[2] or match[3]}>", text)
    text = _VECTOR.sub(lambda match: f" {match[1] or match[2]}", text)
    terms = list(_TERM.finditer(marked))
    coordinates = {term[3]: term[1].strip("+") + (term[2].strip(" $") or "1") for term in terms}
    if "".join(term[0] for term in terms) != marked or not 1 < len(coordinates) == len(terms):
        return text
    return f"({', '.join(coordinates.get(letter, '0') for letter in ('ijk' if 'k' in coordinates else 'ij'))})"


# ---------------------------------------------------------------------------------------------------------------------
# numbers
# ---------------------------------------------------------------------------------------------------------------------

_SPACED_THOUSANDS = re.compile(r"(?:(?<![\w.,^}])\d{1,3}|(?<=\d\.)\d{3})(?: \d{3})+(?![^\W_]| \d)")
_BRACED_COMMA = re.compile(r"\s*\{\s*,\s*\}\s*")
_DECIMAL_COMMA = re.compile(r"(?<![\d.,}])(?:(?=0\{,\}|\d+\{,\}(?!\d{3}(?!\d)))(\d+)\{,\}|(0),(?=0))(\d+)(?![\d.{,])")
_COMMA_THOUSANDS = re.compile(r"(?<![\w.,^}])\d{1,3}(?:,\d{3})+(?!\d)")
_BRACKET = re.compile(r"[(\[]|\\\{")
_MIXED = re.compile(r"(?<![\w.])(\d+) (\d+) ?/ ?(\d+)(?![\w.])")
_SLASH_FACTOR = re.compile(r"(?<![\w.}^)/])(\d+) ?/ ?(\d+)(?= ?\\?[A-Za-z])")  # 2/3 x
_SIDE_BY_SIDE = re.compile(r"(?<=\d) +(?=\d)")
_DOT_THOUSANDS = re.compile(r"-?\d{1,3}(?:\.\d{3})+,\d+|-?\d{1,3}(?:\.\d{3}){2,}")  # perhaps with a decimal comma
_TO = re.compile(r"(?<=\d) ?(?:\\text\{ ?to ?\}|to) ?(?=\d)")
_RATIO = re.compile(r"\d+(?: ?: ?\d+){2,}")
_RATIO_OF_FORMULAS = re.compile(r"(?!.*\\text)(?=.*\\)[^:=,()]+(?::[^:=,()]+){2,}")
_EXPONENT = re.compile(r"(?<![A-Za-z\\_^])(\d+(?:\.\d*)?|\.\d+)[eE]\{?([+-]?\d+)\}?(?![\w.])")
_REPEATING = re.compile(r"(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))|\((\d+)\)(?![\^(\w]))")
_DOTS = re.compile(r"\\dot\s*\{?(\d)\}?(\d*)\\dot\s*\{?(\d)\}?")  # over the first and the last repeated digit
_FACTOR = re.compile(r"(?<![\w^.}\\])(\d+(?:\.\d+)?) ?(?=\()|(?<=\\pi) ?(?=\()")
_BETWEEN_GROUPS = re.compile(r"\) ?(?=\()")
_DECIMAL_POINT_FIRST = re.compile(r"(?<![\d.])\.(?=\d)")


def _numbers(text: str) -> str:
    """Join thousands, and write exponents, repeating decimals and mixed numbers as LaTeX."""
    text = _TO.sub(":", text)
    if _RATIO_OF_FORMULAS.fullmatch(text):
        first, *others = (f"{{{part.strip()}}}" for part in text.split(":"))
        fractions = (rf"\frac{part}{first}" for part in others)
        return f"({', '.join(fractions)})"
    if _RATIO.fullmatch(text):
        parts = [int(part) for part in text.split(":")]
        return rf"\text{{{':'.join(str(part // max(1, math.gcd(*parts))) for part in parts)}}}"
    if _DOT_THOUSANDS.fullmatch(text):
        return text.replace(".", "").replace(",", ".")
    text = _SPACED_THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text)
    text = _BRACED_COMMA.sub("{,}", text)
    if not _BRACKET.search(text):
        text = _DECIMAL_COMMA.sub(lambda match: f"{match[1] or match[2]}.{match[3]}", text)
    if "{,}" in text:
        text = text.replace("{,}", "")
    elif not re.search(",(?! )", _COMMA_THOUSANDS.sub("", text)) and not _BRACKET.search(text):  # no list or point
        text = _COMMA_THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _SIDE_BY_SIDE.sub(", ", _SLASH_FACTOR.sub(r"\\frac{\1}{\2}", text))
    text = _EXPONENT.sub(r"\1\\cdot 10^{\2}", text)
    text = _REPEATING.sub(_repeating, _DOTS.sub(r"\\overline{\1\2\3}", text))
    text = _FACTOR.sub(r"\1\\cdot ", text)  # the parser adds the numbers of 3(2), and calls \pi(2)
    if "," not in text:
        text = _BETWEEN_GROUPS.sub(r")\\cdot ", text)
    return _DECIMAL_POINT_FIRST.sub("0.", text)


def _repeating(match: re.Match[str]) -> str:
    whole, fixed = match.groups()[:2]
    repeated = match[3] or match[4] or match[5]
    value = Fraction(int(f"{whole}{fixed}" or 0)) + Fraction(int(repeated), 10 ** len(repeated) - 1)
    value /= 10 ** len(fixed)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


# ---------------------------------------------------------------------------------------------------------------------
# spellings of code and of plain text
# ---------------------------------------------------------------------------------------------------------------------

_GREEK = "alpha|beta|gamma|delta|theta|lambda|mu|phi|omega"
_BARE_COMMAND = re.compile(
    rf"(?<![A-Za-z\\{{])(pi|infty|(?:sin|cos|tan)h?|cot|sec|csc|arcsin|arccos|arctan|log|ln|{_GREEK})(?![A-Za-z])"
)
_INFINITY = re.compile(
    r"\\text\{ ?infinity ?\}|\\inf(?![A-Za-z_])|(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])", re.IGNORECASE
)
_SQRT_GROUP = re.compile(r"(?:\\|(?<![A-Za-z]))sqrt(\[\d+\])? ?(?=\()")
_SQRT_BRACES = re.compile(r"(?<![A-Za-z\\])sqrt ?(?=\{)")
_SQRT_NUMBER = re.compile(r"(?:(?<![A-Za-z\\])sqrt|\\sqrt(?: |(\[\d+\]))) ?(\d+)")
_JOINED_THOUSANDS = re.compile(r"(?<![\w.,])\d{1,3}(?:_\d{3})+(?!\d)")
_CALLS = {"exp": ("e^{", "}"), "cbrt": (r"\sqrt[3]{", "}"), "factorial": ("(", ")!")}
_CALLS |= {"floor": (r"\lfloor ", r"\rfloor "), **dict.fromkeys(("abs", "Abs"), ("|", "|"))}
_CALLS |= dict.fromkeys(("ceil", "ceiling"), (r"\lceil ", r"\rceil "))
_CALLS_OF_TWO = dict.fromkeys(("Rational", "Fraction"), r"\frac{{{0}}}{{{1}}}") | {"pow": "({0})^{{{1}}}"}
_CALLS_OF_TWO |= dict.fromkeys(("binomial", "comb", "nCr"), r"\binom{{{0}}}{{{1}}}") | {"log": r"\log_{{{1}}}({0})"}
_CALL = re.compile(rf"(?:\\(?=exp)|(?<![A-Za-z\\]))({'|'.join(_CALLS)}) ?(?=\()")
_CALL_OF_TWO = re.compile(rf"(?<![A-Za-z\\])({'|'.join(_CALLS_OF_TWO)}) ?(?=\()")
_INVERSE = re.compile(r"(?<![A-Za-z\\])a(sin|cos|tan) ?(?=\()")
_LOG_BASE = re.compile(r"(?<![A-Za-z\\])log(2|10) ?(?=\()")
_MOD = re.compile(r"(?<=\d) ?(?:\\bmod(?![A-Za-z])|\\text\{ ?mod ?\}|\bmod\b) ?(?=\d)")
_COMPLEX = re.compile(r"(\(?[-+]?[\d.]+ ?[-+] ?[\d.]*)j(\)?)")
_POWER = re.compile(r"\^ ?([+-]?\d+(?:\.\d+)?|[+-]\w)")
_POWER_GROUP = re.compile(r"\^ ?(?=\()")
_TIMES_TEN = re.compile(r"(?<=\d) ?[xX*] ?(?=10 ?\^)")
_RELATIONS = {">=": r"\ge ", "<=": r"\le ", "!=": r"\ne ", r"\not=": r"\ne ", r"\neq": r"\ne"}
_RELATIONS |= {r"\varnothing": r"\emptyset", r"\geq": r"\ge", r"\leq": r"\le"}
_RELATIONS |= {r"\geqslant": r"\ge", r"\leqslant": r"\le", r"\lt": "<", r"\gt": ">"}
_RELATION = re.compile(r"[<>]=|(?<![\d)])!=|\\not ?=|\\(?:[gl]eq(?:slant)?|neq|[lg]t|varnothing)(?![A-Za-z])")
_UNION = re.compile(r"(?<=[)\]}]) ?(?:U|\\text\{ ?(?:U|union) ?\}|\bunion\b) ?(?=[(\[\\{])")
_OR_BETWEEN_INTERVALS = re.compile(r"(?<=[)\]]) ?(?:\\text\{ ?or ?\}|\bor\b|\\lor) ?(?=[(\[])")
_SET_MINUS = re.compile(r"(?<=[})\]]) ?(?:-|\\backslash(?![A-Za-z])) ?(?=\\\{)")
_EXCEPT = re.compile(r"\\text\{ ?all real(?: number)?s? except(?: for)? ?(?:\}(.+)|([^{}]+)\})", re.IGNORECASE)
_REALS = re.compile(r"^[a-z] ?\\in ?\\mathbb\{R\} ?,(?=.*\\ne)")
_NOT_EQUAL = re.compile(r"([A-Za-z]) ?\\ne(?![A-Za-z]) ?((?:(?!\\ne(?![A-Za-z])|[=<>]).)+)")
_NEXT_VALUE = re.compile(r"(?:,|\\text\{ ?(?:and|or) ?\}|\b(?:and|or)\b)(?: ?[a-z] ?=)?")
_NESTED_LIST = re.compile(r"\[ ?((?:\[[^\[\]]*\] ?, ?)+\[[^\[\]]*\]) ?\]")
_COMBINATION = re.compile(
    r"(?:\{\}|(?<![\w}]))[_^] ?\{? ?(\w+) ?\}? ?\\?C ?_ ?\{? ?(\w+) ?\}?"
    r"|(?<![\w\\])C ?_ ?\{? ?(\d*[a-z]|\d+) ?\}? ?\^ ?\{? ?(\w+) ?\}?|(?<![\w.])(\d+) ?C ?(\d+)(?![\w.])"
    r"|(?<![\w\\])C ?\( ?(\d+) ?, ?(\d+) ?\)"
)
_NAMED_BASE = re.compile(r"(?<=[0-9A-F)]) ?(?:\\text\{ ?)?\(? ?(?:in )?(?<![A-Za-z])base (?:\} ?)?(\w+) ?\)?(?: ?\})?$")
_NUMBERS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
""".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_NUMBER_NAMES = {
    name: number for number, name in enumerate(_NUMBERS + [ten + one for ten in _TENS for one in ("", *_NUMBERS[1:10])])
}
_TEXT_DIGITS = re.compile(r"(?<!\{)\\text\{ ?([0-9A-F]+) ?\}")
_DIGITS_IN_BASE = re.compile(r"\(? ?([0-9A-F]+) ?\)? ?_ ?(?:\{ ?(?:\\text\{ ?(\w+) ?\}|\(? ?(\d+) ?\)?) ?\}|(\d+))")
_PERCENT = re.compile(r"\\text\{ ?(?:percent|percentage|pct|\\?%) ?\}|(?<![A-Za-z])(?:percent|pct)(?![A-Za-z])|\\?%")
_FRACTION = re.compile(r"(\^ ?)?\\[dtc]?(frac|binom)(?![A-Za-z])|\\(?:nice|s)(frac)(?![A-Za-z])")
_CHOOSE = re.compile(
    r"\{ ?([^{}\\]+?) ?\\choose(?![A-Za-z]) ?([^{}\\]+?) ?\}|^([^{}\\]+?) ?\\choose(?![A-Za-z]) ?([^{}\\]+)$"
    r"|^(\w+) ?(?:\bchoose\b|\\text\{ ?choose ?\}) ?(\w+)$"
)
_BASE = re.compile(r"_ ?(\d+) (?=\d)|_ ?(\d)(?=\d)")
_NATURAL = re.compile(r"\\log ?_ ?\{? ?e ?\}?")
_LG = re.compile(r"\\lg(?![A-Za-z])")
_ARGUMENT_BEFORE_DOT = re.compile(
    r"(\\(?:(?:arc)?(?:sin|cos|tan|cot|sec|csc)|log|ln)) ?"
    r"((?:\d+(?:\.\d+)?)? ?[A-Za-z]|\d+(?:\.\d+)?|\\(?:pi|theta|alpha|beta))"
    r" ?(?=\\(?:cdot|times)|\*|/ ?\\(?:(?:arc)?(?:sin|cos|tan|cot|sec|csc)|log|ln)(?![A-Za-z]))"
)
_FUNCTION_IN_BRACES = re.compile(
    r"(?<![A-Za-z}])\{ ?(\\(?:(?:arc)?(?:sin|cos|tan|cot|sec|csc)|log|ln)(?: ?\^ ?(?:\d|\{\d+\}))?) ?\}"
)
_MAXIMUM_OF_SET = re.compile(r"\\(max|min) ?\\\{(.*?)\\\}")
_BUILDER = re.compile(r"\\\{ ?([A-Za-z])(?: ?\\in ?\\mathbb\{R\})? ?(?:\\mid|\\vert|\\colon|:|\|) ?(.*\b\1\b.*?) ?\\\}")
_BLACKBOARD = re.compile(r"\\(?:mathbb|Bbb) ?\{? ?([A-Z]) ?\}?|(?<=\\in) ?([NQRZ])(?![A-Za-z])")
_SEMICOLON = re.compile(r"(?:(?<=\[)|(?<=[(\]]))([^\[\](),;]+);([^\[\](),;]+)(?=[\[\])])")
_OPEN_INTERVAL = re.compile(r"([\[\]])([^\[\](),;]+),([^\[\](),;]+)([\[\]])")
_CLOSED_AT_INFINITY = re.compile(r"\[ ?-\\infty|\\infty ?\]")
_INTEGER = r"\\in ?\\mathbb\{[NQRZ]\}(?:\^[+*])?|\\text\{ ?(?:is )?(?:an? |any )?(?:[a-z-]+ )?integer ?\}"
_PARAMETER = re.compile(
    r"(?<=[\w})\]]) ?[,;]? ?(?:"
    r"\\text\{ ?(?:for|where|with) (?:[a-z]+ )*(?:any|all|every|real|integers?|numbers?) ?\} ?([a-z])"
    r"|(?:\\text\{ ?(?:for|where|with) ?(?:any|all|some)? ?\})?"
    rf" ?(\()? ?([a-z]) ?(?:{_INTEGER}) ?(?(2)\)))$"
)
_NAMED_FUNCTION = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?'* ?\( ?([a-z]) ?\) ?=")
_FOR = (
    r"\\text\{ ?,? ?(?:for|where|when|if|with|provided|assuming|given)"
    r"(?: (?:that|all|any|every|real|positive|integers?|numbers?))* ?\}|\bfor\b"
)
_COMPARED = r"(?:\\(?:[lgn]e|in)(?![A-Za-z])|[<>])"
_CONDITION = (  # x \ne 1, 0 < x, 0 < x < 5, or x \in [0,1]
    rf" ?(?:-?[\d.]+ ?[<>] ?[a-z](?= ?(?:[,;)\\]|$))|(?:-?[\d.]+ ?{_COMPARED} ?)?[a-z] ?{_COMPARED} ?"
    r"(?:[(\[][^()\[\]]*[)\]]|(?:[^\w,;()\[\]=<>]|\d|\\(?!text)[A-Za-z]+)+))"
)
_BETWEEN_CONDITIONS = r"(?:[,;]|\\text\{ ?(?:and|or) ?\}|\b(?:and|or)\b)"
_CONDITIONS = re.compile(
    rf"(?P<main>[^<>]+?) ?(?:[,;] ?(?:{_FOR})?|{_FOR}|(?P<open>\()(?:{_FOR})?)"
    rf"(?P<rest>{_CONDITION}(?:{_BETWEEN_CONDITIONS}{_CONDITION})*)(?(open)\)) ?"
)
_ARGUMENT = re.compile(r" *(?:(\d)|([A-Za-z])|(\\[A-Za-z]+))")


def _code(text: str) -> str:
    """Write the spellings of code and plain text as LaTeX: `**`, `sqrt(…)`, `pi`, `exp(…)`, `>=`, `U`, `percent`."""
    text = _JOINED_THOUSANDS.sub(lambda match: match[0].replace("_", ""), text.replace("**", "^"))
    text = _PERCENT.sub(r"\\%", text)
    text = _NAMED_BASE.sub(r"_{\1}", text)
    match = _DIGITS_IN_BASE.fullmatch(_TEXT_DIGITS.sub(r"\1", text))
    if match and ("(" in text or r"\text" in text):
        text = f"{match[1]}_{{{_NUMBER_NAMES.get(match[2], match[2]) or match[3] or match[4]}}}"
    text = _COMBINATION.sub(_combination, text)
    text = _NESTED_LIST.sub(_matrix, text)
    text = _SET_MINUS.sub(r"\\setminus ", _EXCEPT.sub(_all_except, text))
    text = _relations(text)
    text = _INFINITY.sub(r"\\infty ", text)
    text = _blackboard(text)
    text = _REALS.sub("", _BUILDER.sub(r"\2", text))
    if match := _NOT_EQUAL.fullmatch(text):
        text = ", ".join(rf"{match[1]} \ne {value}" for value in _values(match[2]))
    text = _without_conditions(_PARAMETER.sub("", text))
    text = _SEMICOLON.sub(r"\1,\2", text) if "[" in text or "]" in text else text
    text = _OPEN_INTERVAL.sub(_open_interval, text)
    text = _UNION.sub(r"\\cup ", text)
    if r"\infty" in text or "[" in text or "]" in text:  # otherwise these may be points
        text = _OR_BETWEEN_INTERVALS.sub(r"\\cup ", text)
    text = _rewrite_groups(text, _SQRT_GROUP, lambda match, content: rf"\sqrt{match[1] or ''}{{{content}}}")
    text = _SQRT_BRACES.sub(r"\\sqrt", text)
    text = _SQRT_NUMBER.sub(r"\\sqrt\1{\2}", text)
    text = _rewrite_groups(text, _CALL, lambda match, content: content.join(_CALLS[match[1]]))
    text = _rewrite_groups(text, _CALL_OF_TWO, _call_of_two)
    text = _LOG_BASE.sub(r"\\log_{\1}", _INVERSE.sub(r"\\arc\1", text))
    text = _MOD.sub(r" \\mod ", text)
    if match := _COMPLEX.fullmatch(text):
        text = f"{match[1]}i{match[2]}"
    text = _BARE_COMMAND.sub(r"\\\1 ", _OTHER_NAME.sub(lambda match: f"\\{_OTHER_NAMES[match[1]]}", text))
    text = _LG.sub(r"\\log ", _NATURAL.sub(r"\\ln ", text))
    text = _BASE.sub(lambda match: f"_{{{match[1] or match[2]}}} ", text)
    text = _MAXIMUM_OF_SET.sub(r"\\\1(\2)", _FUNCTION_IN_BRACES.sub(r"\1 ", text))
    text = _ARGUMENT_BEFORE_DOT.sub(r"\1(\2)", text)
    text = _TIMES_TEN.sub(r"\\cdot ", text)
    text = _rewrite_groups(text, _POWER_GROUP, lambda _, content: f"^{{{content}}}")
    text = _POWER.sub(r"^{\1}", text)
    text = _CHOOSE.sub(lambda match: r"\binom{{{}}}{{{}}}".format(*filter(None, match.groups())), text)
    return _fractions(text)


def _relations(text: str) -> str:
    return _RELATION.sub(lambda match: _RELATIONS[match[0].replace(" ", "")], text).replace("!=", "! =")


def _all_except(match: re.Match[str]) -> str:
    values = re.sub("^ ?[a-z] ?=", "", match[1] or match[2])
    return rf"\mathbb{{R}}\setminus\{{{', '.join(_values(values))}\}}"


def _values(text: str) -> list[str]:
    r"""The values of a list, with `\pm a` as two."""
    parts = [part.strip() for part in _NEXT_VALUE.split(text)]
    return [value for part in parts for value in ([part[3:], f"-{part[3:]}"] if part.startswith(r"\pm") else [part])]


def _without_conditions(text: str) -> str:
    r"""An expression without the conditions on its variables, such as `\frac1x` of `\frac1x, x \ne 0`."""
    match = _match_conditions(text)
    return match["main"] if match else text


def _match_conditions(text: str) -> re.Match[str] | None:
    match = _CONDITIONS.fullmatch(text)
    if match is None or re.search(rf"{_COMPARED}|\\begin", match["main"]):
        return None
    letters = set(re.findall(rf"([a-z]) ?{_COMPARED}|[<>] ?([a-z])", match["rest"]))
    is_about_main = all(re.search(rf"(?<![A-Za-z\\]){one or other}(?![a-z])", match["main"]) for one, other in letters)
    return match if is_about_main else None


def _blackboard(text: str) -> str:
    return _BLACKBOARD.sub(r"\\mathbb{\1\2}", text)


def _combination(match: re.Match[str]) -> str:
    """A binomial coefficient. C(1, 9) would be 0, so it is the name of a point."""
    above, below = filter(None, match.groups())
    is_point = above.isdecimal() and below.isdecimal() and int(above) < int(below)
    return match[0] if is_point else rf"\binom{{{above}}}{{{below}}}"


def _call_of_two(match: re.Match[str], content: str) -> str:
    arguments = [part.strip() for part in content.split(",")]
    return _CALLS_OF_TWO[match[1]].format(*arguments) if len(arguments) == 2 else f"{match[0]}({content})"


def _matrix(match: re.Match[str]) -> str:
    """A list of lists, as in code, as a matrix."""
    rows = re.findall(r"\[([^\[\]]*)\]", match[1])
    return r"\begin{bmatrix}" + r"\\".join(row.replace(",", "&") for row in rows) + r"\end{bmatrix}"


def _open_interval(match: re.Match[str]) -> str:
    """An interval whose open ends are written with a bracket that is turned round: `]1,2[`."""
    return f"{'(['[match[1] == '[']}{match[2]},{match[3]}{')]'[match[4] == ']']}"


def _fractions(text: str) -> str:
    r"""Give both parts of each fraction or binomial braces: `\frac12` and `\dfrac\pi 2` become `\frac{…}{…}`."""
    for match in reversed(list(_FRACTION.finditer(text))):
        place, parts = match.end(), []
        for _ in range(2):
            spaces = len(text) - len(text[place:].lstrip(" "))
            if text[spaces : spaces + 1] == "{":
                end = _group_end(text, spaces)
                if end is None:
                    return text
                parts.append(text[spaces + 1 : end - 1])
            else:
                argument = _ARGUMENT.match(text, place)
                if argument is None or argument[3] == r"\frac":
                    return text
                parts.append(argument[0].strip())
                end = argument.end()
            place = end
        fraction = rf"\{match[2] or match[3]}{{{parts[0]}}}{{{parts[1]}}}"
        text = text[: match.start()] + (f"^{{{fraction}}}" if match[1] else fraction) + text[place:]
    return text


# ---------------------------------------------------------------------------------------------------------------------
# words and units
# ---------------------------------------------------------------------------------------------------------------------

_DEGREE = r" ?(?:(?:\{\} ?)?\^ ?(?:\{ ?\\circ ?\}|\\circ|\{o\}|o$)|\{ ?\^ ?\\circ ?\})"
_DEGREES = re.compile(rf"{_DEGREE} ?(?:\\text\{{ ?[CF] ?\}}|[CF](?![A-Za-z]))?|\\degrees?(?![A-Za-z])")
_MINUTES = re.compile(rf"(-?)(\d+){_DEGREE} ?(\d+) ?(?:'|\^ ?\{{? ?\\prime ?\}}?)(?: ?(\d+) ?(?:''|\"|' '))?")
_ANGLE = re.compile(  # a conditional group: a parenthesis closes if one opens
    r"(\\(?:sin|cos|tan|cot|sec|csc)(?: ?\^ ?\{\d\})?) ?([({] ?)?(\d+(?:\.\d+)?)"
    rf"(?:{_DEGREE}|\\degrees?(?![A-Za-z])) ?(?(2)[)}}])"
)
_SCALES = {"dozen": 12, "hundred": 10**2, "thousand": 10**3, "lakh": 10**5, "million": 10**6}
_SCALES |= {"crore": 10**7, "billion": 10**9, "trillion": 10**12, "万": 10**4, "亿": 10**8}
_SCALE = re.compile(rf"(?<=\d)( ?\\text\{{)? ?({'|'.join(_SCALES)})s?(?![A-Za-z])")
_NUMBER_WORD = re.compile("|".join(sorted(_SCALES.keys() | _NUMBER_NAMES.keys(), key=len, reverse=True)))
_BELOW_HUNDRED = "|".join(_NUMBER_NAMES)
_BELOW_THOUSAND = rf"(?:{_BELOW_HUNDRED}|a)?hundred(?:and)?(?:{_BELOW_HUNDRED})?|{_BELOW_HUNDRED}"
_NUMBER_IN_WORDS = re.compile(  # without spaces: `threehundredandfortytwo`
    rf"(negative|minus)?(?=.)(?:(?:{_BELOW_THOUSAND}|a)?(?:{'|'.join(_SCALES.keys() - {'hundred'})})(?:and)?)*"
    rf"(?:{_BELOW_THOUSAND})?"
)
_DENOMINATORS = {"half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7}
_DENOMINATORS |= {"eighth": 8, "ninth": 9, "tenth": 10, "twelfth": 12, "hundredth": 100, "thousandth": 1000}
_FRACTION_IN_WORDS = re.compile(rf"(?:({_BELOW_HUNDRED})and)?({_BELOW_HUNDRED}|an?)?({'|'.join(_DENOMINATORS)})s?")
_ORDINAL = re.compile(r"(?<=\d) ?(?:\^ ?)?(?:\{ ?)?(?:\\text\{ ?)?(?:st|nd|rd|th)\b(?: ?\})*$")
_LETTER = r"[^\W\d_]"
_UNIT_POWER = r"\^ ?\{?-?[1-9]\}?"
_SYMBOL_OF_UNIT = (
    r"[kcmdnM]?(?:m|g|s|[lL]|J|N|W|V|A|K|C|Pa|Hz|mol)|ft|in|mi|yd|min|hr?|\\?sec ?|days?|lbs?|oz|gal|rad|rev"
)
_UNIT = rf"(?:(?:{_SYMBOL_OF_UNIT})(?![A-Za-z])|\\text\{{[^{{}}]*\}}) ?(?:{_UNIT_POWER})?"
_UNIT_FACTOR = r"(?:kg|k?[NJWV]|\\text\{[^{}]*\}) ?\\cdot(?![A-Za-z]) ?"  # m \cdot g may be a product of variables
_QUOTIENT_OF_UNITS = rf"(?:{_UNIT_FACTOR})?{_UNIT}(?: ?/ ?\(?(?:{_UNIT_FACTOR})?{_UNIT}\)?)+"
_UNIT_FRACTION = re.compile(
    rf"(?:(?<=[\d}}])|(?<=\\pi)) ?\\frac\{{ ?(?:{_UNIT_FACTOR})?{_UNIT} ?\}}\{{ ?{_UNIT}(?: ?\\cdot ?{_UNIT})* ?\}}$"
)
_COMPOUND_UNIT = re.compile(rf"(?:(?<=[\d}})])|(?<=\\pi)) ?(?:{_QUOTIENT_OF_UNITS}|{_UNIT_FACTOR}{_UNIT})$")
_MODULUS = re.compile(
    r"(?<=[\w)]) ?(?:\\pmod ?(?:\{ ?(\d+) ?\}|(\d+))"
    r"|\( ?(?:mod |\\b?mod ?|\\text\{ ?mod ?\} ?)(\d+) ?\)|\\text\{ ?\( ?mod (\d+) ?\) ?\})$"
)
_TRAILING_TEXT = re.compile(rf" ?(?:/|\\cdot)? ?\\text\{{((?:[^{{}}]|\^\{{-?[1-9]\}})*)\}} ?(?:{_UNIT_POWER})?$")
_NEXT = r"(?= ?(?:[,;)\]]|\\\}|(?:\\text\{ ?)?\b(?:and|or)\b ?\}? ?[-+\d\\.]))"  # what follows a value of a list
_LISTED_UNIT = re.compile(rf"(?<=[\d}}]) ?(?:\\text\{{([^{{}}]*)\}}|(?<= )({_LETTER}+))(?: ?{_UNIT_POWER})?{_NEXT}")
_UNIT_AND = re.compile(r"(?<=[\d}]) ?\\text\{ ?([^{}\d]+) (and|or) ?\}(?= ?[-+\d\\.])")  # 3\text{ cm and }4\text{ cm}
_TRAILING_WORDS = re.compile(
    rf"(?:(?<=[\d}})!%])|(?<=\\pi)) ({_LETTER}+(?:\.?[ /-]{_LETTER}+)*)(?:\^ ?\{{?-?[1-9]\}}?)?$"
)
_UNIT_IN_PARENTHESES = re.compile(rf"(?<=\d) ?\( ?(\\text\{{[^{{}}]*\}}(?: ?{_UNIT_POWER})?) ?\)$")
_COMMAND_UNIT = re.compile(
    r"(?<=[\d})]) ?(?:\\text\{ ?[kM]? ?\} ?|[kM](?=\\))?\\(?:Omega|sec|mu ?(?:\\text\{[^{}]*\}|[mgsLFCA])) ?$"
)
_FOREIGN = r"[^\W\d_A-Za-z\u0370-\u03ff]+"
_FOREIGN_UNIT = re.compile(rf"(?<=[\d}})]) ?{_FOREIGN}(?:/{_FOREIGN})?$")
_FOREIGN_OR = re.compile(r"(?<=[\d)}\]]) ?[或和] ?(?=[-\d\w\\([])")
_SECOND_ANSWER = re.compile(
    r"\d|\b(?:not|plus|minus|below|oder|und|nicht|ou|et|pas)\b|[或和与非]|不是|[〇零一二三四五六七八九十百千万亿半]$"
    r"|\b(?:or|and)\b(?= ?(?:$|(?:an?|half|more|less|so|not|none|no|above|below|up|zero|one|quarter)\b))"
    r"|\b(?:wrong|incorrect|false)\b(?=[ )]*$)"
    rf"|\b(?:{'|'.join(_NUMBERS[2:] + _TENS)})\b(?!-| digit)"
    r"|^ ?(?:squared|cubed|half|twice|doubled|tripled|halved|factorial)\b"
    r"|^ ?(?:halves|thirds|(?:four|fif|six|seven|eigh|nin|ten|hundred|thousand)ths)\b"
)
_ATTACHED_UNIT = re.compile(
    r"(?<=[\d}])(?:(?:cm|mm|km|kg)(?:\^ ?\{?[23]\}?|/[hs])?| ?m/s(?:\^ ?\{?2\}?)?"
    r"|mph|mins?|hrs?|ft|lbs|ml|hours?|minutes?|seconds?|days?|inches|feet|miles|dollars|cents)$"
)
_OPEN_END = re.compile(r"(?:[-+*/=<>,;:^_(\[]|\\(?:cdot|times|pm|le|ge|ne|in|cup|cap|setminus|land|lor))$")
_SHORT_UNITS = frozenset(
    """
    cm mm km dm nm cms ft in yd mi kg mg lb oz ml mL dl cl sq cu cent cents am pm AM PM hr hrs yr yrs deg fps mps
    ms ns Hz kHz MHz GHz kW MW kJ kN kV Pa kPa MPa hPa dB eV keV MeV GeV mA mAh Wh kWh mmHg MB GB TB Mbps kbps
    amp amps hp qt pt pts sqft sqm rpm mph kph mpg bpm bps ppm tsp tbsp pcs pkgs kgs gms kms mls yds ltr ltrs wks mths
    egg ace aces ant ants app apps bee art
    """.split()
)
_WORD_SHAPE = re.compile(
    r"(?=.*[aeiouAEIOU]|[^xz]*[yY][^xz]*$|.*[^\x00-\x7f])(?:[^\W\d_][^\W\d_A-Z]+|[A-Z]+|[A-Z][a-z]+[A-Z][a-z]{2,})"
)
_FIRST_WORDS = frozenset("of on a an is each all".split())
_CONNECTIVES = frozenset("and or mod if for where union".split())
_AMOUNT = "increase|decrease|rise|reduction|profit|gain|loss|discount|total|maximum|minimum|average|mean"
_LABEL = re.compile(
    rf"^(?:\\text\{{(?:[^{{}}]*(?:[:=]|(?<!\bnot)\bis|\bare|{_ANSWER_IS})|(?i: ?about| ?approximately)) ?\}}(?: ?[:=])?"
    rf"|\\text\{{ ?(?:[Aa]n? )?(?:{_AMOUNT}) of ?\}}|[A-Za-z]_\{{1, ?2\}} ?=|{_ANSWER_IS}[:=]?) ?(?=.)"
    r"|^(?:[A-Za-z]{3,}(?: [A-Za-z]+)*:|\\?#|(?:\\text\{ ?)?(?:[Ee]xactly|[Oo]nly|[Dd]ay|[Pp]age|[Ww]eek) ?\}?) ?"
    r"(?=[-\d\\]|\\?\$)"
)
_ALL_NUMBERS = re.compile(
    r"^(?:\\text\{ ?[Aa]ll(?: real)?(?: numbers?| values?)?(?: of)? ?\} ?)?(?:[a-z] ?\\text\{ ?such that ?\} ?)?"
    r"(?=[^\\]*(?:[<>]|\\(?:le|ge|ne|in)(?![A-Za-z])))"
)
_FUNCTION_NAME = re.compile(  # of an equation whose other side does not contain the function
    r"^([A-Za-z])(?: ?\^ ?\{ ?-1 ?\}|'+)? ?\( ?[a-z] ?\) ?= ?(?!.*(?:=|(?<![A-Za-z\\])\1'* ?\())"
    r"|^(?:\\frac\{ ?d ?[a-z] ?\}\{ ?d ?[a-z] ?\}|([a-z])'+) ?= ?(?!.*(?:=|(?<![A-Za-z\\])\2(?![A-Za-z])))"
)
_POINT_NAMES = re.compile(
    r"\( ?(?:[a-z]|\\[a-z]+)(?: ?, ?(?:[a-z]|\\[a-z]+))+ ?\) ?= ?(?=\()|^[ABD-Z] ?(?=\([^()]+,[^()]+\)$)"
)
_TRANSPOSED = re.compile(r"^(\([^()]+,[^()]+\)) ?\^ ?\{? ?(?:T|\\top|\\intercal) ?\}?$")
_ANGLE_NAME = re.compile(r"(?:\bm ?)?\\angle ?\{? ?([A-Z]) ?([A-Z]) ?([A-Z]) ?\}?(?![A-Za-z])")
_NEGATIVE = re.compile(r"^(?:\\text\{ ?(?:negative|minus) ?\}|(?:[Nn]egative|[Mm]inus)) ?(?=\d|\\infty)")
_CLOCK = re.compile(
    r"(?:\\text\{ ?)?(\d{1,2}(?::\d\d)?) ?(?:\} ?)?(?:\\text\{ ?)?([ap])\.? ?m\.?(?: ?\})?", re.IGNORECASE
)
_MONTHS = "january february march april may june july august sept september october november december".split()
_MONTH = "|".join([*_MONTHS, "sept", *(month[:3] for month in _MONTHS)])
_DATE = re.compile(
    rf"(?:(?P<m>{_MONTH})\.? (?P<d>\d{{1,2}})(?:st|nd|rd|th)?"
    rf"|(?P<e>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?(?P<n>{_MONTH})\.?)(?:,? ?(?P<y>\d{{4}}))?",
    re.IGNORECASE,
)
_MEASURE = (
    r"\d+(?:\.\d+)? ?(?:hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s|days?|weeks?|months?|years?|feet|foot|ft"
    r"|inch(?:es)?|in|pounds?|lbs?|ounces?|oz|dollars?|cents?)\.?"
)
_REMAINDER = re.compile(r"(\d+),? ?(?:with )?(?:a )?(?:R|r|rem\.?|remainder)(?: of)? ?(\d+)")
_OUT_OF = re.compile(r"(\d+) (?:out of|in) (\d+)")  # a probability
_UNIT_NAMES = {"lb": "p", "lbs": "p"}  # other units are named by their first letter
_MEASURES = re.compile(rf"{_MEASURE}(?:,? ?(?:and )?{_MEASURE})+")
_NAMES = {"allrealnumbers": r"\mathbb{R}", "allreals": r"\mathbb{R}", "allintegers": r"\mathbb{Z}"}
_NO_SOLUTION = re.compile(
    r"(?:thereis|thereare|(?:the)?(?:equation|inequality|system)has)?no(?:real)?(?:solution|root)s?(?:exists?)?|无解"
)
_NAMES |= {"emptyset": r"\emptyset", "infinity": r"\infty"}
_NAMES["doesnotexist"] = r"\text{dne}"
_WHOLE_TEXT = re.compile(r"\\text\{ ?([^{}]*) ?\}")
_WHOLE_TEXT_WITH_POWER = re.compile(rf"\\text\{{ ?([^{{}}]*[A-Za-z]) ?\}} ?{_UNIT_POWER}")
_BEFORE_NUMBER = re.compile(  # nothing, or as in `There are 15 apples` and `a 25% increase`
    r"(?:(?!.*(?i:n't|\b(?:not?|never|nor|or|if|neither|nobody|nothing|none)\b))"
    r"[A-Z][A-Za-z ]* (?:is|are|was|were|has|have|had|needs?|takes?|costs?|gets?) (?:(?:exactly|only|just|about) )?"
    rf"|[Aa]n? |(?:[Aa]n? )?(?:{_AMOUNT}) of |[A-Z][a-z]+(?: [a-z]+)*: ?(?=[^:]*$))?(?=[-+(.]*\d)"
)
_WORDS_BETWEEN = re.compile(
    r"\d[\d.]*(?: ?\\text\{(?! ?(?:and|or|to)\b)[A-Za-z ]+\} ?\d[\d.]*)+"
)  # 5\text{ remainder }2
_OF_A_VARIABLE = re.compile(r" ?(?:is|are|even|odd|prime)\b")  # n \text{ is odd}
_WORD_SEPARATOR = re.compile(r" *(?:,? and|[,;]) +")
_ALL = re.compile("^all (?:of )?(?:the )?")
_VERDICTS = frozenset(("true", "false", "yes", "no"))
_YES_OR_NO = re.compile(  # a yes or no with a reason
    r"(?:\\text\{ ?)?\b(?:(yes)(?!.*(?:n't|\b(?:yes|no|not|but|or|maybe)\b))|(no)(?!.*\b(?:yes|no|but|or|maybe)\b))"
    r" ?\}?(?:[,;:]|\.(?= [A-Za-z])) ?.*[A-Za-z].*",
    re.IGNORECASE,
)
_PHRASE = re.compile(
    rf"(?:(?:[Ii]t is|[Oo]n|[Ii]n|[Aa]t) (?=[A-Z]))?(?:(?:[Aa]n?|[Tt]he) (?=[A-Za-z-]{{3}}))?"
    rf"({_LETTER}+(?:[ '-]{_LETTER}+)*?)(?<!not)(?: (?:always )?wins| (?:will|can) win| has a winning strategy)?"
)


def is_word(letters: str) -> bool:
    """Whether letters are a word, not a product of variables.

    Products of variables are written in alphabetical order, such as `xyz` and `abc`. Few words are, and most of these
    repeat a letter, such as `eggs`, or have a vowel between consonants, such as `chips`. A word has a vowel, and a
    capital only before its small letters: `mgh` and `nRT` are products.

    >>> [is_word(letters) for letters in ("apples", "cm", "xyz", "ab", "or", "mgh")]
    [True, True, False, False, False, False]
    """
    if letters in _SHORT_UNITS:
        return True
    if len(letters) < 3 or letters in _CONNECTIVES:
        return False
    if not any(_WORD_SHAPE.fullmatch(part) or part in _SHORT_UNITS for part in re.split(r"[\W\d_]+", letters)):
        return False
    letters = letters.lower()
    return (
        list(letters) != sorted(letters)
        or re.search(r"^(?=.{4})(?=.*[eio]).*(.)\1|^[^aeiou].*[eio].*[^aeiou]$", letters) is not None
    )


def _words(text: str) -> str:
    """Drop degrees, units and words after a number, and write an answer of words as one `\\text`."""
    if match := _YES_OR_NO.fullmatch(text):
        return rf"\text{{{(match[1] or match[2]).lower()}}}"
    if match := _CLOCK.fullmatch(text):
        return rf"{match[1]}\text{{{match[2].lower()}m}}"
    if re.fullmatch(_FOREIGN, text):
        return _phrase(text)
    text = _ANGLE_NAME.sub(_angle_name, _FOREIGN_OR.sub(r" \\text{ or } ", text))
    text = _ANGLE.sub(r"\1(\\frac{\3\\pi}{180})", text)
    if match := _MINUTES.fullmatch(text):
        sign, degrees, minutes, seconds = match.groups()
        text = rf"{sign}{degrees}\frac{{{60 * int(minutes) + int(seconds or 0)}}}{{3600}}"
    text = _DEGREES.sub(lambda match: " " * text[match.end() : match.end() + 1].isdigit(), text)
    text = _NEGATIVE.sub("-", _LABEL.sub("", text))
    if _TEXTS.fullmatch(text):
        text = rf"\text{{{' '.join(part.strip() for part in re.findall('{([^{}]*)}', text))}}}"
    text = _FUNCTION_NAME.sub("", _ALL_NUMBERS.sub("", text))
    text = _TRANSPOSED.sub(r"\1", _POINT_NAMES.sub("", text))
    plain = re.sub(" +", " ", re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)).strip()
    if match := _REMAINDER.fullmatch(plain):
        return rf"\text{{{match[1]}remainder{match[2]}}}"
    if match := _OUT_OF.fullmatch(plain):
        return rf"\frac{{{match[1]}}}{{{match[2]}}}"
    if _MEASURES.fullmatch(plain) and re.search("[a-z]{2}", plain):
        measures = re.findall(r"(\d[\d.]*) ?([a-z]+)", plain)
        return rf"\text{{{''.join(number + _UNIT_NAMES.get(unit, unit[0]) for number, unit in measures)}}}"
    if match := _DATE.fullmatch(plain):
        return rf"\text{{{(match['m'] or match['n']).lower()[:3]}{match['d'] or match['e']}{match['y'] or ''}}}"
    whole = _WHOLE_TEXT.fullmatch(text) or _WHOLE_TEXT_WITH_POWER.fullmatch(text)
    sentence = whole[1] if whole else text
    start = _BEFORE_NUMBER.match(sentence)
    if start and (whole or start[0]):
        text = sentence[start.end() :].strip().rstrip(" .")
    text = _SCALE.sub(lambda match: rf"\cdot {_SCALES[match[2]]}{match[1] or ''}", text)
    text = _COMMAND_UNIT.sub("", _UNIT_IN_PARENTHESES.sub(r" \1", text))
    text = _COMPOUND_UNIT.sub("", _UNIT_FRACTION.sub("", _MODULUS.sub("", _ORDINAL.sub("", text))))
    text = _LISTED_UNIT.sub(_without_unit, _UNIT_AND.sub(r"\\text{\1}\\text{ \2 }", text))
    while (match := _TRAILING_TEXT.search(text)) and match.start() and not _OPEN_END.search(text[: match.start()]):
        if _SECOND_ANSWER.search(re.sub(_UNIT_POWER, "", match[1])):
            break
        if match.start() == 1 and text[0].isalpha() and _OF_A_VARIABLE.match(match[1]):
            break
        text = text[: match.start()]
    if match := _TRAILING_WORDS.search(text):
        first, *others = re.split("[ /-]", match[1])
        is_unit = is_word(first) or (whole and len(first) > 2) or (first in _FIRST_WORDS and any(map(is_word, others)))
        if is_unit and not _SECOND_ANSWER.search(match[1]):
            text = text[: match.start()]
    match = _FOREIGN_UNIT.search(text)
    if match and not _SECOND_ANSWER.search(match[0]):
        text = text[: match.start()]
    text = _ATTACHED_UNIT.sub("", text).strip()
    if _WORDS_BETWEEN.fullmatch(text):
        return rf"\text{{{re.sub(r'[^A-Za-z0-9.]', '', text.replace('text', ''))}}}"
    phrase = _WHOLE_TEXT.fullmatch(text)
    letters = phrase[1].strip(" .") if phrase else text
    if (number := _number_in_words(letters)) is not None:
        return str(number)
    match = _PHRASE.fullmatch(letters)
    parts = _WORD_SEPARATOR.split(letters)
    if len(parts) > 1 and {part.lower() for part in parts} <= _VERDICTS:  # one for each statement
        return rf"\text{{{''.join(parts).lower()}}}"
    if len(parts) > 1 and all(_PHRASE.fullmatch(part) and is_word(part) for part in parts):
        return ", ".join(map(_phrase, parts))
    if match and (
        phrase or any((is_word(part) and len(part) > 2) or part in _CONNECTIVES for part in re.split("[ '-]", letters))
    ):
        return _phrase(match[1])
    return text


def _angle_name(match: re.Match[str]) -> str:
    """The name of an angle, which is the same from both sides: the letter in the middle counts."""
    first, vertex, last = match.groups()
    return rf"\text{{angle{min(first, last)}{vertex}{max(first, last)}}}"


def _phrase(letters: str) -> str:
    """The symbol or number that words name, or the words as one `\\text`."""
    number = _number_in_words(letters)
    if number is not None:
        return str(number)
    name, without_all = (re.sub(r"[\W\d_]", "", one) for one in (letters.lower(), _ALL.sub("", letters.lower())))
    return r"\emptyset" if _NO_SOLUTION.fullmatch(name) else _NAMES.get(name, rf"\text{{{without_all}}}")


def _number_in_words(letters: str) -> int | str | None:
    """The number that words name, such as `three hundred and forty-two` or `two thirds`, or None."""
    joined = re.sub("[ -]", "", letters.lower())
    if (match := _FRACTION_IN_WORDS.fullmatch(joined)) and (match[2] or match[3] == "half"):
        whole, numerator = _NUMBER_NAMES.get(match[1], 0), _NUMBER_NAMES.get(match[2], 1)
        denominator = _DENOMINATORS[match[3]]
        return rf"\frac{{{whole * denominator + numerator}}}{{{denominator}}}"
    match = _NUMBER_IN_WORDS.fullmatch(joined)
    if match is None:
        return None
    total = group = 0  # `group` is the part since the last thousand or million
    for word in _NUMBER_WORD.findall(match[0]):
        group = group + _NUMBER_NAMES[word] if word in _NUMBER_NAMES else (group or 1) * _SCALES[word]
        if word in _SCALES and word != "hundred":
            total, group = total + group, 0
    return -(total + group) if match[1] else total + group


def _without_unit(match: re.Match[str]) -> str:
    """Remove the unit after a value of a list. Other words stay."""
    is_unit = match[2] is None or is_word(match[2])
    return "" if is_unit and not _SECOND_ANSWER.search(match[1] or match[2] or "") else match[0]


# ---------------------------------------------------------------------------------------------------------------------
# the imaginary unit
# ---------------------------------------------------------------------------------------------------------------------

_INDEX = re.compile(r"_ ?(?:i|\{[^{}]*i)")
_IMAGINARY = re.compile(
    r"\\(?:text|begin|end|operatorname|mathbb|mathcal)\{[^{}]*\}|\\(?:imath|jmath)(?![A-Za-z])|\\[A-Za-z]+|[A-Za-z]{3,}(?=\()|i"
)


def _imaginary(text: str) -> str:
    """Write the imaginary unit as the parser knows it, unless `i` is an index."""
    if "i" not in text or _INDEX.search(text):
        return text

    def written(match: re.Match[str]) -> str:
        if match[0].startswith("\\"):
            return "{I}" if match[0] == r"\imath" else match[0]
        return match[0] if is_word(match[0]) else match[0].replace("i", "{I}")  # a word is the name of a function

    return _IMAGINARY.sub(written, text)


# ---------------------------------------------------------------------------------------------------------------------
# choices
# ---------------------------------------------------------------------------------------------------------------------

_PLAIN = re.compile(
    r"\\(?:displaystyle|left|right)(?![A-Za-z])|\\textcolor\{[^{}]*\}\{|\\[,;: ]|[{}$~]|\*\*"
    r"|\\(?:text[a-z]*|math(?:bf|rm|it|sf|tt|normal)|boldsymbol|bm|pmb|[mhf]box|emph|boxed|underline|operatorname)\{"
)
_OPTION = r"\s*(?:(?:the )?(?:(?:correct|right|best|final) )?(?:option|choice|answer)\b(?:\s+is\b)?[\s:]*)?"
_CHOICE = re.compile(rf"{_OPTION}[(\[]?\s*([A-Za-z])\s*[)\]]?\s*[.:]?\s*", re.IGNORECASE)
_CHOICE_AND_TEXT = re.compile(
    rf"(?i:{_OPTION})"
    r"(?:\(\s*([A-Z])\s*\)[\s.:]|([A-Z])\s*(?:[):]|\.\s)|([A-H])\s+[-–—]\s(?=[A-Za-z]{2}))"
    r"\s*(?!(?:and|or)\b|\(?[A-Z][).:]|[-+*/=^,;&]|.*\b[A-Z]\s*[:=])(\S.*)",
    re.DOTALL,
)


def read_choice(text: str) -> tuple[str, str] | None:
    r"""The letter of a multiple-choice answer and the text behind it, which may be empty; None for other answers.

    >>> read_choice("(E)"), read_choice(r"\text{B: the second}"), read_choice("x+1"), read_choice("A, B")
    (('E', ''), ('B', 'the second'), None, None)
    """
    plain = _PLAIN.sub(" ", text)
    if match := _CHOICE.fullmatch(plain):
        return match[1], ""
    if match := _CHOICE_AND_TEXT.fullmatch(plain):
        return match[1] or match[2] or match[3], match[4].strip()
    return None


_LETTERS = re.compile(r"\s*\(?([A-Z])\)?(?:\s*(?:,?\s*\band\b|[,;、，]|\\?&)\s*\(?[A-Z]\)?)+[\s.]*")
_JOINED_LETTERS = re.compile(r"\s*(?=[A-Z]{2})A?B?C?D?E?F?G?H?[\s.]*")


def read_letters(text: str) -> tuple[set[str], bool] | None:
    """The letters of several choices, and whether they are joined, as in `AC`; None for other answers.

    >>> read_letters("A and C") == ({"A", "C"}, False), read_letters("AC") == ({"A", "C"}, True), read_letters("CA")
    (True, True, None)
    """
    plain = _PLAIN.sub(" ", text)
    is_joined = _JOINED_LETTERS.fullmatch(plain) is not None
    if not is_joined and not _LETTERS.fullmatch(plain):
        return None
    return set(re.findall("[A-Z]", plain)), is_joined


def undecorated(text: str) -> str:
    r"""An answer without delimiters and fonts, which may surround all of it.

    >>> undecorated(r"$\mathbf{x ≈ 5}$.")
    'x \\approx 5'
    """
    return _decoration(_unicode(text))


def letters_in_order(text: str) -> str:
    """The capital letters of an answer.

    >>> letters_in_order("C, A and B")
    'CAB'
    """
    return "".join(re.findall("[A-Z]", _PLAIN.sub(" ", text)))


def are_opposite(text: str, other: str) -> bool:
    r"""Whether two answers have opposite words, which would be read as units.

    >>> are_opposite("5 km north", "5 km south"), are_opposite(r"25\% \text{ rise}", r"25\% \text{ increase}")
    (True, False)
    """
    first, second = ({_SYNONYMS.get(word, word) for word in _DIRECTION.findall(one.lower())} for one in (text, other))
    return any(_OPPOSITES[word] in second - first for word in first - second)


def read_conditions(text: str) -> str | None:
    r"""The conditions after an expression, such as `x > 0` in `y = 2x, x > 0`; None if there are none.

    >>> read_conditions(r"y = 2x \text{ for } x ≥ 0"), read_conditions("y = 2x")
    (' x \\ge 0', None)
    """
    match = _match_conditions(_relations(undecorated(text)))
    return match["rest"] if match else None


def read_modulus(text: str) -> int | None:
    r"""The modulus at the end of an answer, such as 7 in `x \equiv 3 \pmod{7}`; None if there is none."""
    match = _MODULUS.search(undecorated(text)) if "mod" in text else None
    return int(next(filter(None, match.groups()))) if match else None


_SYNONYMS = dict.fromkeys(("rise", "growth", "more", "profit", "gain"), "increase")
_SYNONYMS |= dict.fromkeys(("reduction", "drop", "less", "fewer", "loss"), "decrease")
_PAIRS = (
    "increase decrease north south east west left right up down above below before after clockwise counterclockwise"
)
_OPPOSITES = dict(zip(_PAIRS.split()[::2], _PAIRS.split()[1::2], strict=True))
_OPPOSITES |= {second: first for first, second in _OPPOSITES.items()}
_DIRECTION = re.compile(rf"(?<![a-z\\])({'|'.join([*_OPPOSITES, *_SYNONYMS])})(?:wards?)?(?![a-z])")
_LIST_OF_THOUSANDS = re.compile(r"[\s$]*(\d{3}(?:,\d{3})+)[\s$.]*")
_LIST = re.compile(r"[\s$]*\d+(?:,\s+\d+)+[\s$.]*")


def with_separators(text: str, reference: str) -> str:
    """An answer such as `153,370,371` as a list, if the reference answer is a list of as many numbers.

    >>> with_separators("153,370,371", "153, 370, 371"), with_separators("153,370", "153370")
    ('153, 370, 371', '153,370')
    """
    match = _LIST_OF_THOUSANDS.fullmatch(text)
    is_list = match and _LIST.fullmatch(reference) and text.count(",") == reference.count(",")
    return match[1].replace(",", ", ") if match and is_list else text


def with_parameter(text: str, reference: str) -> str:
    r"""An answer with the parameter of the reference answer, if both say which letter it is.

    >>> with_parameter(r"2n\pi, n \in \mathbb{Z}", r"k\pi, k \in \mathbb{Z}")
    '2k\\pi, k \\in \\mathbb{Z}'
    """
    other = _parameter(reference)
    own = other and _parameter(text)
    if own is None or other is None or re.search(rf"(?<![A-Za-z\\]){other}(?![A-Za-z])", text):
        return text
    return re.sub(rf"(?<![A-Za-z\\]){own}(?![A-Za-z])", other, text)


def _parameter(text: str) -> str | None:
    """The letter of an integer, or of the argument of a function. Next to pi, a letter such as k is an integer."""
    text = _blackboard(undecorated(text))
    if match := _PARAMETER.search(text):
        return match[1] or match[3]
    if match := _NAMED_FUNCTION.match(text):
        return match[1]
    letters = set(re.findall(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", text.rpartition("=")[2]))
    return letters.pop() if r"\pi" in text and len(letters) == 1 and letters <= set("klmn") else None


def is_closed_at_infinity(text: str) -> bool:
    r"""Whether an interval includes infinity, as in `[0, \infty]`: the parser reads such an end as an open one."""
    return _CLOSED_AT_INFINITY.search(normalise(text)) is not None


def _letters(text: str) -> str:
    """Several letters, such as `A and C` or `(A), (C)`, as a list."""
    letters = read_letters(text)
    if not letters or letters[1]:
        return text
    in_order = letters_in_order(text)
    if len(letters[0]) < len(in_order) or letters[0] <= {"T", "F"}:  # true or false, one for each statement
        return rf"\text{{{in_order}}}"
    return ", ".join(sorted(letters[0]))


_CIRCLED = re.compile(r"(?=.*[①-⑳])(?:[①-⑳\s,;、，。.{}$]|\\text|\band\b|[和与])+")


def _circled(text: str) -> str:
    """Several circled numbers, such as `①③`, as one name."""
    if not _CIRCLED.fullmatch(text):
        return text
    return rf"\text{{circled{'and'.join(sorted({str(ord(one) - 0x245F) for one in re.findall('[①-⑳]', text)}))}}}"


_NUMERAL = r"(?:VIII|VII|VI|IV|IX|III|II|I|V|X)\b"
_STATEMENTS = re.compile(
    r"(?=.*(?:II|,|&|and))\s*(?:[Ss]tatements? )?"
    rf"{_NUMERAL}(?:\s*(?:,?\s*\band\b|[,;、，]|\\?&)\s*{_NUMERAL})*(?:\s+only)?[\s.]*"
)


def _statements(text: str) -> str:
    """The Roman numerals of statements, such as `I, III` or `II only`, as one name. V and X alone are variables."""
    plain = _PLAIN.sub(" ", text)
    if not _STATEMENTS.fullmatch(plain):
        return text
    return rf"\text{{statements{'and'.join(sorted(set(re.findall(_NUMERAL, plain)))).lower()}}}"


_SINGLE_COMMA = re.compile(r"(?<![\d.])(?:(\d+),(?!\d{3}(?!\d))|(0),)(?=\d+(?![\d.]))")


def read_decimal_comma(text: str) -> str:
    """Text with a point in place of its only comma, if this may be a decimal comma: `2,5` could also be a list.

    >>> [read_decimal_comma(text) for text in ("x = 2,5", "2, 5", "2,500", "2,5,1")]
    ['x = 2.5', '2, 5', '2,500', '2,5,1']
    """
    return _SINGLE_COMMA.sub(r"\1\2.", text) if text.count(",") == 1 and not _BRACKET.search(text) else text


_LABELS = ("abcde", "12345", ("i", "ii", "iii", "iv"))
_LABEL_OF_PART = re.compile(r"(?:\\text\s*\{\s*)?(?:Part )?\((?P<label>[a-e]|[1-5]|i{1,3}|iv)\)\s*\}?")
_BETWEEN_PARTS = r"(?:[ ,;.]|\\\\|\\text\{ ?and ?\})"


def _parts(text: str) -> str:
    """The answers to the parts of a question, such as `(a) 5, (b) 7`, as a point: their order counts."""
    labels = list(_LABEL_OF_PART.finditer(text))
    names = [label["label"] for label in labels]
    if len(names) < 2 or labels[0].start() or not any(names == list(one[: len(names)]) for one in _LABELS):
        return text
    ends = [label.start() for label in labels[1:]] + [len(text)]
    parts = [text[label.end() : end] for label, end in zip(labels, ends, strict=True)]
    parts = [re.sub(rf"^{_BETWEEN_PARTS}+|{_BETWEEN_PARTS}+$", "", part) for part in parts]
    are_answers = all(re.fullmatch(r"-?[\w\\](?:[^,;]*[\w)\]}!%'])?", part) for part in parts)
    return f"({', '.join(parts)})" if are_answers else text


_STEPS = (
    _letters,
    _statements,
    _circled,
    _unicode,
    _unit_vectors,
    _decoration,
    _parts,
    _code,
    _words,
    _numbers,
    _imaginary,
)


@lru_cache(maxsize=1024)  # the completions of one prompt share the reference answer
def normalise(text: str) -> str:
    r"""LaTeX of an answer, without decoration, units and spellings that the parser misreads.

    >>> answers = (r"58\,500", "**½**", "1e-5", r"\text{10 apples}", "30°", "2*pi", "No triangle", "1/i")
    >>> print(" | ".join(map(normalise, answers)))
    58500 | \frac{1}{2} | 1\cdot 10^{-5} | 10 | 30 | 2*\pi | \text{notriangle} | 1/{I}
    """
    for step in _STEPS:
        text = step(text)
    return text
