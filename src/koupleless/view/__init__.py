"""What a biz sees of the process, and what it may not touch.

That is environment, arguments, logging, warnings, configuration, registries and settings of the standard library.
Each view answers by context: the base sees what it always saw, a biz sees its own. A view is a facet on the biz's scope
and knows no other room; nothing here decides when a biz comes or goes, and nothing here undoes what a biz registered
(that is ``ownership``). Called by ``container``; biz code never imports it, it uses ``os``, ``sys`` and ``logging``.
"""
