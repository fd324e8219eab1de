"""Everything that the reporting schema holds, in the order in which it is made.

A new view or function has its line here.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from etl.map import SHIPPED
from etl.report.as_of import personas_as_of
from etl.report.attached import attached_views
from etl.report.casts import CASTS
from etl.report.changes import changes, changes_functions
from etl.report.dictionary import dictionary_view, drift_view
from etl.report.distinct import configurations_view, prompts_view
from etl.report.history import persona_history, prompt_history, shared_histories
from etl.report.ledger import rejections_view, run_items_view, runs_view, value_issues_view
from etl.report.present import freshness_view, personas_view

if TYPE_CHECKING:
    from etl.map import Map
    from etl.report.functions import Function
    from etl.report.views import View


def called_by_views() -> tuple[Function, ...]:
    """The functions that views call: made before those."""
    return (*CASTS, *changes_functions())


def all_views(the_map: Map = SHIPPED) -> tuple[View, ...]:
    """Every view of this release. Which there are does not hang on the map, their columns do."""
    views = (
        personas_view(the_map),
        *attached_views(the_map),
        prompts_view(),
        configurations_view(the_map),
        runs_view(),
        run_items_view(),
        value_issues_view(),
        rejections_view(),
        freshness_view(),
        persona_history(the_map),
        prompt_history(),
        *shared_histories(the_map),
        changes(),
        drift_view(the_map),
    )
    return (*views, dictionary_view(the_map, views))


@cache
def view_names() -> tuple[str, ...]:
    """The names of this release's views. Writing their queries to know them takes 20 ms."""
    return tuple(view.name for view in all_views())


def reading_views(the_map: Map = SHIPPED) -> tuple[Function, ...]:
    """The functions that read views: made after those."""
    return (personas_as_of(the_map),)


def all_functions() -> tuple[Function, ...]:
    """Every function of this release."""
    return (*called_by_views(), *reading_views())
