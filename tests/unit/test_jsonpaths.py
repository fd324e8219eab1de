"""Paths of the map, as Postgres asks for them."""

from __future__ import annotations

from etl.store.jsonpaths import jsonpath, jsonpath_of_lack


def test_a_path_leads_through_names_and_elements():
    assert jsonpath("name") == '$."name"'
    assert jsonpath("shareLinks[].type") == '$."shareLinks"[*]."type"'
    assert jsonpath('["odd \\"key\\""].x') == '$."odd \\"key\\""."x"'


def test_of_an_array_that_is_filled_from_the_array_itself_is_meant():
    assert jsonpath("displayTags[]") == '$."displayTags"'


def test_what_lacks_is_asked_step_by_step():
    assert jsonpath_of_lack("name") == '$ ? (!exists(@."name"))'
    assert jsonpath_of_lack("brain.mood") == (
        '$ ? (!exists(@."brain") ||'
        ' exists(@."brain" ? (@.type() == "object" && (!exists(@."mood")))))'
    )
