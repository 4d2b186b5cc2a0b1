"""Show a connection and its renewal to click through, in JupyterLab, Notebook 7 and Voilà.

::

    from ucl_helpers.views.explorer import explore

    explore(connection)

The state that it shows is on disk and at UCL, not in the page. You can close the tab at any time, in the middle of a
renewal too, and continue when you open it again. Nothing in it revokes or removes a connection. Only *Practise*
replaces its own practice connection, if that is damaged or belongs to a sandbox that is gone.

Voilà asks for no password by default, so every user of the machine can press the buttons. Start it with ``--token``.

It is a separate layer above all others except `cli`, because it shows all of them.
"""

from ucl_helpers.extras import missing_for

try:
    from ucl_helpers.views.explorer.page import Explorer, explore
except ModuleNotFoundError as error:  # ipywidgets
    raise missing_for(error, "lab") from None

__all__ = ["Explorer", "explore"]
