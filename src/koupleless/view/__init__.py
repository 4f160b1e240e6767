"""Show each biz its own state of the process, and keep a biz from changing the process for everybody.

Environment, arguments, logging, warnings, configuration, registries and settings of the standard library live here.
Each view answers by context: the base sees the same as ever, a biz sees its own. A view is a facet on the biz's scope
and knows no other room. No view decides when a biz comes or goes, and none undoes registrations of a biz, which is the
concern of ``ownership``. Called by ``container``; code of a biz never imports views, but uses ``os``, ``sys`` and
``logging``.
"""
