"""Many cuts of several networks, to choose one by what it costs and what it loses."""
