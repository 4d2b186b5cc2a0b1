"""What a hostile server may write where a text is expected, and what must not come out of it."""

import re

OWNED = "owned-by-a-text"
_DO = f"document.title=`{OWNED}`"  # without the quotes that would end an attribute
MARKUP = (
    f"<script>{_DO}</script>",
    f"<img src=x onerror={_DO}>",
    f"<svg/onload={_DO}>",
    f'" onmouseover="{_DO}" autofocus onfocus="{_DO}" x="',
    f"' onmouseover='{_DO}' x='",
    f'"><iframe srcdoc="<script>parent.{_DO}</script>"></iframe>',
    f"</td></tr></tbody></table><script>{_DO}</script><table><tbody><tr><td>",
    f"</caption></b><style>*{{display:none}}</style><body onload={_DO}>",
    f"<!-- --!><script>{_DO}</script>",
    f"&lt;script&gt;{_DO}&lt;/script&gt; &#60;b&#62;",
    f"<a href='javascript:{_DO}'>click</a>",
    f"javascript:{_DO}",
    f"[click](javascript:{_DO}) ![x](https://evil.example/x.png) **bold** # title | a | b |",
    f"$\\href{{javascript:{_DO}}}{{x}}$ $$\\require{{html}}$$ \\(x\\) \\[x\\] \\begin{{equation}}x\\end{{equation}}",
    "\x00<\x00script\x00>\x00 <scr\x00ipt> \ufeff<b>",
)
TERMINAL = (
    "\x1b[2J\x1b[H all is well",  # clears the screen
    "\x1b]0;title\x07\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\",  # a title, a link that leads elsewhere
    "\x1b]52;c;cm0gLXJmIH4K\x07\x1bP+q544e\x1b\\",  # writes the clipboard, asks the terminal to answer
    "\x9b2J\x9d0;title\x9c\x90q\x9c",  # the same by C1 controls
    "refused\rrenewed\x08\x08\x7f\x0b\x0c",  # overwrites what stood there
    "\x07\x05\x0e\x0f",  # bell, answerback, another character set
    "gnp\u202eexe.\u2066x\u2069\u200f\u061c",  # turns the direction of writing
    "a\u200bb\u200dc\u2060d\ufeffe\xadf\u180e\U000e0041",  # cannot be seen
    "one\u2028two\u2029three\x85four",  # breaks the line, for some
)
TEXTS = (*MARKUP, *TERMINAL)
ALL = " ".join(TEXTS)
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e0fff]"
)


def harmful(text):
    """Characters that a terminal acts on, or that hide or turn what stands beside them."""
    return sorted(set(FORBIDDEN.findall(text)))
