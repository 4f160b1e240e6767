"""State that a process has once and all bizs share: changes are kept from a biz, which is told, as is its time zone."""
