"""From a field that the map does not know to the line and revision that give it a column. Pure."""
