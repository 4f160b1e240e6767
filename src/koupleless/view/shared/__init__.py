"""State of which a process has one for all bizs: a biz is kept from changes and told so, and told of the time zone."""
