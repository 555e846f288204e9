"""Chat templates that refuse, ignore or add something, and tiny models that have them."""

from transformers import AutoTokenizer

_TURNS = "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
_ANSWER = "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"

PLAIN = "{% for message in messages %}" + _TURNS + "{% endfor %}" + _ANSWER
# refuses a system message, as Gemma's template does
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no place for a system') }}{% endif %}" + PLAIN
# leaves system messages out
DEAF = "{% for message in messages if message.role != 'system' %}" + _TURNS + "{% endfor %}" + _ANSWER
# wants user and assistant in turn, after at most one system message
IN_TURN = (
    "{% set ns = namespace(want='user') %}{% for message in messages %}"
    "{% if loop.first and message.role == 'system' %}{% elif message.role != ns.want %}"
    "{{ raise_exception('roles must take turns') }}{% else %}"
    "{% set ns.want = 'assistant' if ns.want == 'user' else 'user' %}{% endif %}" + _TURNS + "{% endfor %}" + _ANSWER
)
# writes the content as a list of parts, so that it loses a text
PARTS = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% for part in message['content'] %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
    "{% endfor %}" + _ANSWER
)
# thinks unless it is told not to
SWITCH = PLAIN + "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
# begins the thoughts in the prompt
OPEN = PLAIN + "{{ '<think>\n' }}"


def with_template(folder, model, template):
    """Copy a model to `folder` with another chat template (None for no template), and return the folder as text."""
    from shutil import copytree

    copytree(model, folder)
    (folder / "chat_template.jinja").unlink()
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return str(folder)
