"""Which words the SQL of a metric may hold, and which functions it may call, before anything is known of its parts."""

from collections.abc import Mapping, Sequence

from sqlglot import exp

from metrics.sql_allowed import FUNCTIONS, HINTS, REFUSED_WORDS, TYPE_WORDS, WORDS_BEFORE_PARENTHESIS
from metrics.sql_tokens import NOTHING, Token, error_at

MAX_JOINS = 10


def check_words(text: str, tokens: list[Token], tables: Mapping[str, Sequence[str]]) -> list[Token]:
    """Refuse words that have no place in a query, and functions that are not allowed.

    Returns names before parentheses that may be aliases with their columns; the tree will show.
    """
    first = next((token for token in tokens if token.text != "("), NOTHING)
    if first.meaning not in ("select", "with") or first.kind != "word":
        came = f"got '{first.text}'" if first.text else "got none"
        known = REFUSED_WORDS.get(first.meaning)
        reason = (
            known.format(word=first.meaning) if known and first.kind == "word" else f"a SELECT was expected, {came}"
        )
        raise error_at(text, first.start, reason)
    own = {name.lower() for table, columns in tables.items() for name in (table, *columns)}
    joins = [token for token in tokens if token.text == "||" or token.meaning == "concat"]
    if len(joins) > MAX_JOINS:
        # Each can double a text, and the next one doubles that.
        raise error_at(text, joins[-1].start, f"at most {MAX_JOINS} texts are put together with || and concat")
    unsure = []
    following = [*tokens[1:], NOTHING]
    for i, token in enumerate(tokens):
        previous = tokens[i - 1] if i else NOTHING
        if token.kind == "word" and token.meaning in REFUSED_WORDS and token.meaning not in own:
            raise error_at(text, token.start, REFUSED_WORDS[token.meaning].format(word=token.meaning))
        if token.kind not in ("word", "name") or following[i].text != "(":
            continue
        refusal = function_refusal(token, previous)
        if refusal and previous.text != "." and _names_follow(tokens[i + 2 :]):
            unsure.append(token)
        elif refusal:
            raise error_at(text, token.start, refusal)
    return unsure


def _names_follow(tokens: list[Token]) -> bool:
    """Whether nothing but names is in the parentheses that these tokens end."""
    closed = next((i for i, token in enumerate(tokens) if token.text == ")"), 0)
    inside = tokens[:closed]
    return closed % 2 == 1 and all(
        token.text == "," if i % 2 else token.kind in ("word", "name") for i, token in enumerate(inside)
    )


def function_refusal(token: Token, previous: Token) -> str:
    """Return why a name before a parenthesis is no function that is allowed; "" if it is one, or something else."""
    if previous.meaning == "as" and previous.kind == "word":
        return ""  # the columns of an alias, or a type, which the tree shows
    if token.kind == "name" or previous.text == ".":
        return "functions are called by their bare names"
    name = token.meaning
    if name in FUNCTIONS or name in WORDS_BEFORE_PARENTHESIS or (name in TYPE_WORDS and previous.text == "::"):
        return ""
    hint = f": {HINTS[name]}" if name in HINTS else ""
    return f"the function {name} is not allowed{hint}"


def check_aliases(text: str, query: exp.Query, unsure: list[Token]) -> None:
    """Refuse as functions those names before parentheses that the tree does not show to be aliases."""
    aliases = {alias.this.meta.get("start") for alias in query.find_all(exp.TableAlias) if alias.this and alias.columns}
    for token in unsure:
        if token.start not in aliases:
            raise error_at(text, token.start, function_refusal(token, NOTHING))
