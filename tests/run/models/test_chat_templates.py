"""What a chat template refuses or leaves out is one error with the value, the consequence and the fix."""

import pytest
from datasets import Dataset

from gbpo.run.data.prompts import PromptFormat
from gbpo.run.models.chat_templates import check_prompts, unread_variables
from gbpo.run.models.tiny import character_tokenizer
from templates import DEAF, IN_TURN, NO_SYSTEM, OPEN, PARTS, PLAIN, SWITCH


def chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


QUESTION = chat(("user", "1+1="))
TWICE = chat(("user", "Add."), ("user", "1+1="))
OWN_SYSTEM = chat(("system", "Add."), ("user", "1+1="))
EXAMPLE = chat(("user", "2+2="), ("assistant", "4"), ("user", "1+1="))
BRIEF = PromptFormat(system_prompt="Be brief.")


def tokenizer_with(template):
    tokenizer = character_tokenizer()
    tokenizer.name_or_path = "the/model"
    tokenizer.chat_template = template
    return tokenizer


def check(template, prompts, form=None):
    data = Dataset.from_dict({"prompt": prompts})
    check_prompts(data, "sums.jsonl", form or PromptFormat(), tokenizer_with(template))


# template, prompts, format → words of the error
REFUSED = {
    "system prompt refused": (
        (NO_SYSTEM, ["1+1="], BRIEF),
        ["system_prompt='Be brief.'", "'the/model'", "no place for a system", "before {prompt} in prompt_template"],
    ),
    "system message of a row refused": (
        (NO_SYSTEM, [QUESTION, QUESTION, OWN_SYSTEM]),
        ["'the/model'", "system message in row 2 of 'sums.jsonl'", "no place for a system", "user message"],
    ),
    "system prompt before a system message": (
        (IN_TURN, [QUESTION, OWN_SYSTEM], BRIEF),
        ["system_prompt='Be brief.'", "before the system message in row 1", "take turns", "Remove system_prompt."],
    ),
    "two user messages": (
        (IN_TURN, [QUESTION, EXAMPLE, TWICE, TWICE]),
        ["roles user, user in row 2", "take turns", "user and assistant in turn", "chat_template_path"],
    ),
    "two user messages and a system prompt": (
        (IN_TURN, [TWICE], BRIEF),
        ["roles system, user, user in row 0", "take turns"],
    ),
    "system prompt left out": (
        (DEAF, ["1+1="], BRIEF),
        ["system_prompt='Be brief.'", "would not reach the model", "leaves system messages out", "prompt_template"],
    ),
    "system message of a row left out": (
        (DEAF, [QUESTION, OWN_SYSTEM]),
        ["leaves out the system message in row 1", "message['content']"],
    ),
    "prompt left out": (("Solve it.", ["1+1="]), ["leaves out the user message in row 0", "message['content']"]),
    "content as parts that the template leaves out": ((PARTS, ["1+1="]), ["leaves out the user message in row 0"]),
    "first message left out": (
        ("{{ messages[-1]['content'] }}", [EXAMPLE]),
        ["leaves out the user message in row 0"],
    ),
    "messages without a template": (
        (None, [QUESTION]),
        ["row 0 of 'sums.jsonl'", "'the/model' has no chat template", "chat_template_path", "dataset_columns"],
    ),
    "syntax": (("{% for message in messages %}", ["1+1="]), ["'the/model' does not work as a Jinja template"]),
    "any error": (("{{ 1 / 0 }}", ["1+1="]), ["does not work as a Jinja template", "division by zero"]),
    "file": (
        ("{{ 1 / 0 }}", ["1+1="], PromptFormat(chat_template_path="own.jinja")),
        ["chat_template_path='own.jinja' does not work as a Jinja template"],
    ),
    "variable of another type": (
        (
            PLAIN + "{% if n %}{{ n + 1 }}{% endif %}",
            ["1+1="],
            PromptFormat(chat_template_kwargs={"n": "one"}),
        ),
        ["chat_template_kwargs={'n': 'one'}", "Correct"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_template_that_does_not_write_the_prompts_is_refused(case):
    arguments, words = REFUSED[case]
    with pytest.raises(ValueError) as error:
        check(*arguments)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("template", "prompts", "form"),
    [
        (PLAIN, ["1+1="], BRIEF),
        (NO_SYSTEM, ["1+1="], PromptFormat(prompt_template="Be brief. {prompt}")),
        (IN_TURN, [QUESTION, EXAMPLE, OWN_SYSTEM], PromptFormat()),
        (IN_TURN, ["1+1="], BRIEF),
        (DEAF, ["1+1="], PromptFormat()),
        (SWITCH, ["1+1="], PromptFormat(chat_template_kwargs={"enable_thinking": False})),
        (None, ["1+1="], BRIEF),
        # a template may shorten earlier answers, as those of thinking models do
        (
            "{% for message in messages if message.role != 'assistant' %}{{ message.content }}{% endfor %}",
            [EXAMPLE],
            BRIEF,
        ),
        ("{% for message in messages %}{{ message.content | trim | upper }}{% endfor %}", ["two plus two "], BRIEF),
    ],
)
def test_prompts_that_reach_the_model_are_accepted(template, prompts, form):
    check(template, prompts, form)


@pytest.mark.parametrize(
    ("template", "unread"),
    [
        (SWITCH, ["enable_thinkin", "year"]),
        (SWITCH + "{{ year }}", ["enable_thinkin"]),
        (SWITCH + "{% set year = year | default(0) %}", ["enable_thinkin"]),
        (
            SWITCH + "{% generation %}{{ year }}{%- endgeneration -%}{% for m in messages %}{% break %}{% endfor %}",
            ["enable_thinkin"],
        ),
        (PLAIN, ["enable_thinking", "enable_thinkin", "year"]),
        (None, ["enable_thinking", "enable_thinkin", "year"]),
        ({"default": SWITCH, "tool_use": PLAIN}, ["enable_thinkin", "year"]),
    ],
)
def test_variables_that_the_template_does_not_read(template, unread):
    form = PromptFormat(chat_template_kwargs={"enable_thinking": False, "enable_thinkin": False, "year": 3})
    (line,) = unread_variables(form, tokenizer_with(template))
    assert f"does not read {', '.join(unread)}, so" in line and "'the/model'" in line
    assert unread_variables(PromptFormat(), tokenizer_with(template)) == []


def test_variables_that_are_read_are_no_hazard():
    form = PromptFormat(chat_template_kwargs={"enable_thinking": True})
    assert unread_variables(form, tokenizer_with(SWITCH)) == []
    assert len(unread_variables(form, tokenizer_with(OPEN))) == 1
