"""What people read: the differences between documents, and the tables at a glance."""
