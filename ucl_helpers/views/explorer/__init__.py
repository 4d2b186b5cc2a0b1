"""The explorer: a connection and its renewal to click through, in JupyterLab, Notebook 7 and Voilà.

::

    from ucl_helpers.views.explorer import explore

    explore(connection)

What it shows lies on disk and at UCL, nothing in the page: whoever closes the tab, in the middle of a renewal too, and
opens it again finds all that was there, and goes on. Nothing in it revokes or forgets; only *Practise* begins its own
practice connection anew, if that is damaged or belongs to a sandbox that is gone.

Voilà asks for no password by default, so every user of the machine can press the buttons. Start it with ``--token``.

It is a layer of its own, above all the others but `cli`, since it shows all of them.
"""

from ucl_helpers.extras import missing_for

try:
    from ucl_helpers.views.explorer.page import Explorer, explore
except ModuleNotFoundError as error:  # ipywidgets
    raise missing_for(error, "lab") from None

__all__ = ["Explorer", "explore"]
