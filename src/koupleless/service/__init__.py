"""Offering objects to, and using objects of, the base and other modules of the same process. Public API for biz code.

What lives here: who offers what (``registry``) and the handles that find it again at every use (``reference``). What
may not: starting, stopping or knowing states of bizs, copying values, any transport. ``container`` withdraws what a biz
offered; base and biz code call the functions below.

>>> registration = offer({"hello": "bonjour"}, name="dictionary")
>>> dictionary = use("dictionary")
>>> dictionary["hello"]
'bonjour'
>>> registration.withdraw()
"""

from koupleless.errors import ServiceError
from koupleless.service.api import offer, use, use_all
from koupleless.service.offers import Registration
from koupleless.service.reference import ServiceReference

__all__ = ["Registration", "ServiceError", "ServiceReference", "offer", "use", "use_all"]
