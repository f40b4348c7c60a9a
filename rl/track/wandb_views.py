"""A dashboard at W&B, laid out by its own library: a saved view of the project's workspace, and a report."""

import wandb
import wandb_workspaces.reports.v2 as reports
import wandb_workspaces.workspaces as workspaces
from wandb.errors import term
from wandb_workspaces.expr import FilterExpr

from rl.core.errors import TallyError, first_line
from rl.track.content import AXIS
from rl.track.dashboard import Dashboard, Panel


def put_online(dashboard: Dashboard) -> list[str]:
    """Saves the workspace and the report; returns where they are.

    Raises:
        TallyError: W&B does not take them.
    """
    term.termsetup(wandb.Settings(silent=True), None)
    try:
        entity = wandb.Api().default_entity
        workspace = _workspace(dashboard, entity).save()
        report = _report(dashboard, entity).save()
    except Exception as error:  # those of the library and of its three ways to the server have no base of their own
        fix = "see that the runs are uploaded: python -m rl.sync RUN; then lay out the dashboard again"
        raise TallyError(f"W&B does not take the dashboard: {first_line(error)}", fix=fix) from None
    return [workspace.url, report.url]


def _workspace(dashboard: Dashboard, entity: str | None) -> workspaces.Workspace:
    return workspaces.Workspace(
        entity=entity,
        project=dashboard.project,
        name=dashboard.name,
        sections=[
            workspaces.Section(name=section.name, panels=[_panel(panel) for panel in section.panels], is_open=at == 0)
            for at, section in enumerate(dashboard.sections)
        ],
        settings=workspaces.WorkspaceSettings(x_axis=AXIS),
        runset_settings=workspaces.RunsetSettings(
            filters=_filters(dashboard), groupby=[workspaces.Config(name) for name in dashboard.compared_by]
        ),
    )


def _report(dashboard: Dashboard, entity: str | None) -> reports.Report:
    runset = reports.Runset(
        entity=entity,
        project=dashboard.project,
        name=dashboard.name,
        filters=_filters(dashboard),
        groupby=[f"config.{name}" for name in dashboard.compared_by],
    )
    charts = [panel for panel in dashboard.sections[0].panels if not panel.table]
    grid = reports.PanelGrid(runsets=[runset], panels=[_panel(panel) for panel in charts])
    claims = [
        block
        for heading, texts in dashboard.claims.items()
        for block in (reports.H2(text=heading), reports.UnorderedList(items=texts))
    ]
    blocks = [reports.P(text=dashboard.answer), reports.H2(text=dashboard.sections[0].name), grid, *claims]
    return reports.Report(entity=entity, project=dashboard.project, title=dashboard.name, blocks=blocks)


def _filters(dashboard: Dashboard) -> list[FilterExpr]:
    """Only the runs that it is about: another group may have runs of the same names."""
    group = [] if dashboard.group is None else [workspaces.Metric("Group") == dashboard.group]
    return [*group, workspaces.Metric("Name").isin(dashboard.runs)]


def _panel(panel: Panel) -> reports.LinePlot | reports.WeavePanelSummaryTable:
    if panel.table:
        return reports.WeavePanelSummaryTable(table_name=panel.table)
    return reports.LinePlot(
        title=panel.title,
        x=AXIS,
        y=list(panel.metrics),
        metric_regex=panel.pattern or None,
        groupby_rangefunc="minmax",
    )
