"""The care for single bases: one steward keeps the Node of a base, and the Pods there, in step with the base.

``cluster`` is the part of the API server needed by a steward, ``objects`` and ``events`` are this part, ``knowledge``
is the last news of the base, ``relay`` passes news on between controllers, ``questions`` fetches the news,
``farewells`` runs the hooks of leaving Pods, and ``steward`` is the care itself. A steward works for the controller
that leads the Node, and knows nothing of other bases.
"""
