"""Offering objects to, and using objects of, the base and other modules of the same process. Public API for biz code.

Here live the offers of each owner (``offers``, ``registry``), the bizs that answer (``directory``), and the references
that find an object again at every use (``reference``, ``use``). Starting, stopping or moving bizs, copying values, and
transports do not belong here. ``container`` withdraws the offers of a biz and publishes the bizs; base and biz code
call the functions below.

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
