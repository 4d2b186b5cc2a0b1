"""A call as it went over the wire: GraphQL and JSON, highlighted in the colours of the page's own editor."""

from collections.abc import Iterator

from pygments.lexers.data import JsonLexer
from pygments.lexers.graphql import GraphQLLexer
from pygments.token import Keyword, Name, Number, Operator, String, _TokenType

from ucl_helpers.tables import printable
from ucl_helpers.views.markup import FAINT, Html, card, element, safe
from ucl_helpers.wire.exchange import Exchange

_COLOURS = (  # JupyterLab's for code, else those of pydata's Sphinx themes, else the page's
    (Keyword, "keyword", "font-weight:600"),
    (String, "string", ""),
    (Number, "number", ""),
    (Name.Tag, "property", ""),
    (Name.Attribute, "property", ""),
    (Name.Function, "def", "font-weight:600"),
    (Operator, "operator", ""),
)
_LEXERS = {"query": GraphQLLexer, "variables": JsonLexer, "data.result": JsonLexer}
_NAMES = {"query": "sent", "variables": "with the variables", "data.result": "received"}
_PRE = f"margin:0.2em 0 0.6em;padding:0.5em 0.7em;border:{FAINT};border-radius:0.3em;white-space:pre-wrap"


def exchanged(exchange: Exchange) -> Html:
    """What was sent and what came back, without secrets, as a card."""
    return card(exchange.title, *_parts(exchange))


def highlighted(text: str, lexer: type[GraphQLLexer] | type[JsonLexer]) -> Html:
    """A text with its words in colours."""
    return Html("".join(_coloured(kind, word) for kind, word in lexer().get_tokens(printable(text))))


def _parts(exchange: Exchange) -> Iterator[Html]:
    for name, text in exchange.rows():
        if name in _LEXERS:
            yield element("div", _NAMES[name], style="font-weight:600")
            code = element("code", highlighted(text.strip(), _LEXERS[name]), style="background:none;color:inherit")
            yield element("pre", code, style=f"{_PRE};overflow-wrap:anywhere")
        else:
            yield element("div", element("b", name), " ", text, style="overflow-wrap:anywhere")


def _coloured(kind: _TokenType, word: str) -> Html:
    for known, name, more in _COLOURS:
        if kind in known:
            colour = f"color:var(--jp-mirror-editor-{name}-color,var(--pst-color-inline-code,currentColor))"
            return element("span", word, style=f"{colour};{more}".rstrip(";"))
    return safe(word)
