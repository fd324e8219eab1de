"""What people read: the reporting views, what a dry run foresees, tables on a terminal."""
