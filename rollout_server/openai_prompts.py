"""Prompts of OpenAI's API as tokens, and back."""

from jinja2 import TemplateError

from rollout_server.engines import Facts, Tokenizer
from rollout_server.limits import invalid
from rollout_server.openai_schema import ChatRequest, CompletionRequest


def text_tokenizer(facts: Facts) -> Tokenizer:
    """The model's tokenizer. Raises ApiError 422 when it has none."""
    if facts.tokenizer is None:
        fix = "Ask /v1/generate, whose wire is tokens, or serve a model with its tokenizer's files."
        raise invalid("the model that is served has no tokenizer", fix=fix)
    return facts.tokenizer


def completion_prompts(body: CompletionRequest, tokenizer: Tokenizer) -> list[list[int]]:
    """Texts get the special tokens that the tokenizer puts around a text; tokens stay as they are."""
    return [
        tokenizer.encode(prompt, add_special_tokens=True) if isinstance(prompt, str) else prompt
        for prompt in body.prompt
    ]


def echoes(body: CompletionRequest, tokenizer: Tokenizer) -> list[str]:
    """What stands before each completion, in their order: nothing without echo."""
    texts = (prompt if isinstance(prompt, str) else tokenizer.decode(prompt) for prompt in body.prompt)
    return [text for text in texts for _ in range(body.n)] if body.echo else []


def chat_prompt(body: ChatRequest, tokenizer: Tokenizer) -> list[int]:
    """Raises ApiError 422 when the model has no chat template, or its template refuses these messages."""
    if not tokenizer.chat_template:
        fix = "Write the prompt yourself, and ask /v1/completions."
        raise invalid("the model that is served has no chat template", fix=fix)
    messages = [{"role": message.role, "content": message.text} for message in body.messages]
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        fix = "Send messages in the order and of the roles that it takes."
        raise invalid(f"the model's chat template refuses these messages: {error}", fix=fix) from None
    return tokenizer.encode(text, add_special_tokens=False)
