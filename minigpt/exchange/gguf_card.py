"""The model card and ollama's Modelfile beside a GGUF file."""

from minigpt.exchange.model_card import SPECIAL_TOKEN_LIMIT, format_model_card
from minigpt.runs.run import Run
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.chat_format import END_OF_ANSWER, ROLE_TOKENS
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

# The format of tokenizers/chat_format.py, as a template of Go.
_OLLAMA_TEMPLATE = (
    "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}"
    '{{ if eq .Role "assistant" }}' + END_OF_ANSWER + "{{ end }}{{ end }}" + ROLE_TOKENS["assistant"]
)


def format_modelfile(run: Run, name: str) -> str:
    """Return the Modelfile, from which `ollama create` makes a model.

    Args:
        run: the run.
        name: name of the GGUF file, which is beside the Modelfile.
    """
    context = run.config.model.block_size
    lines = [f"FROM ./{name}", f"PARAMETER num_ctx {context}", f"PARAMETER num_predict {_count_new_tokens(context)}"]
    if run.info.instructions:
        lines += [f'TEMPLATE """{_OLLAMA_TEMPLATE}"""']
        lines += [f'PARAMETER stop "{token}"' for token in (END_OF_ANSWER, ROLE_TOKENS["user"])]
    else:
        lines += ['TEMPLATE """{{ .Prompt }}"""']
    return "\n".join(lines) + "\n"


def format_gguf_card(run: Run, name: str) -> str:
    """Return the model card. Arguments as for `format_modelfile`."""
    context = run.config.model.block_size
    is_chat = bool(run.info.instructions)
    prompt = "-cnv" if is_chat else '-no-cnv -p "the"'
    usage = f"""With llama.cpp, and with ollama:

```sh
llama-cli -m {name} -c {context} -n {_count_new_tokens(context)} {prompt}
ollama create mine -f Modelfile
ollama run mine
```

Newer versions of llama.cpp name the first program `llama-completion`."""
    limits = [
        f"- A prompt and its continuation have at most {context:,} tokens together: `-c {context}`, and `-n` at most "
        f"{context:,} minus the tokens of the prompt. llama.cpp stops with an error beyond that.",
        f"- `minigpt` begins a text without a prompt after {run.tokenizer.decode(run.encode_prompt('')[:1])!r}. "
        "llama.cpp needs a prompt.",
    ]
    if isinstance(run.tokenizer, CharTokenizer):
        limits.append("- llama.cpp leaves out a character that is not in the vocabulary.")
    elif isinstance(run.tokenizer, SentencePieceTokenizer) and run.tokenizer.method == "unigram":
        limits.append("- llama.cpp reads a character that is not in the vocabulary as the unknown token.")
    if run.tokenizer.special_tokens:
        limits.append(SPECIAL_TOKEN_LIMIT)
    return format_model_card(run, usage, "\n".join(limits), "llama.cpp")


def _count_new_tokens(context: int) -> int:
    """Return a number of new tokens that leaves room for a prompt."""
    return max(1, context // 2)
