"""A notebook that is open in JupyterLab or Notebook 7, asked by way of its own model; and one that Voilà shows."""

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Locator, Page
from watched import Watched

IS_OPEN = "name => window.jupyterapp?.shell?.currentWidget?.context?.path === name"
IS_READY = """async () => {
  await jupyterapp.restored;
  const { context } = jupyterapp.shell.currentWidget;
  await context.ready;
  await context.sessionContext.ready;
  await context.sessionContext.session.kernel.info;
}"""
# A cell that runs before JupyterLab has restored the kernel's widgets may show "Click to show javascript error."
HAS_WIDGETS = """async () => {
  const { rendermime } = jupyterapp.shell.currentWidget.content;
  const renderer = rendermime.createRenderer("application/vnd.jupyter.widget-view+json");
  const manager = await renderer._manager.promise;  // it stands nowhere else
  if (!manager.restoredStatus) await new Promise(done => manager.restored.connect(done));
}"""
# The menu's command returns at the first cell that raises, while the kernel still answers for the cells after it.
# The kernel answers in order, so its answer to a question asked now comes after all of those.
RUN_ALL = """async () => {
  await jupyterapp.commands.execute("notebook:run-all-cells");
  await jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.requestKernelInfo();
  await new Promise(done => setTimeout(done));  // what waited for those answers has run
}"""
CELLS = "() => Array.from(jupyterapp.shell.currentWidget.content.model.cells, cell => cell.toJSON())"
SCROLL = "number => jupyterapp.shell.currentWidget.content.scrollToItem(number)"
IN_VOILA = """() => {
  const cells = document.getElementById("rendered_cells");
  return cells?.style.display === "" && !cells.querySelector('script[type="application/vnd.voila.cell-output+json"]');
}"""  # what a cell shows stands in a script until it is drawn


@dataclass(frozen=True)
class Opened:
    """A notebook in JupyterLab or Notebook 7, its kernel ready, the widgets that the kernel has restored."""

    page: Page
    watched: Watched

    @classmethod
    def when_ready(cls, page: Page, watched: Watched, name: str) -> "Opened":
        page.wait_for_function(IS_OPEN, arg=name)
        page.evaluate(IS_READY)
        page.evaluate(HAS_WIDGETS)
        return cls(page, watched)

    def run_all(self) -> list[dict[str, Any]]:
        """Run every cell as the menu does; returns all cells once the last has ended, as nbformat has them."""
        self.page.evaluate(RUN_ALL)
        return self.cells()

    def cells(self) -> list[dict[str, Any]]:
        return self.page.evaluate(CELLS)

    def output(self, number: int) -> Locator:
        """What a cell shows, counted as in :meth:`cells`, in sight."""
        self.page.evaluate(SCROLL, number)
        return self.page.locator(f'.jp-Cell[data-windowed-list-index="{number}"] .jp-Cell-outputWrapper')


def errors_in(cells: list[dict[str, Any]]) -> list[str]:
    """The errors that code cells show, and the cells that did not run, in a line each."""
    found = []
    for number, cell in enumerate(cells):
        if cell["cell_type"] != "code":
            continue
        found += [
            f"cell {number}: {one['ename']}: {one['evalue']}"
            for one in cell["outputs"]
            if one["output_type"] == "error"
        ]
        if not cell["execution_count"]:
            found.append(f"cell {number} did not run")
    return found
