"""What people read: tables, plots and the environment of a result."""
