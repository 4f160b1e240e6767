"""The modules of a Pod: read from the Pod, compared with the modules of a base, and told in the status of the Pod.

Pure: values in, values out, no clock, no connection. ``pod`` reads a Pod, ``variables`` the environment of a container,
``module`` the containers, ``hooks`` the hooks before their end; ``actual`` reads the list of a base, ``attempts``
remembers operations, ``crashes`` the ends by probes; ``plan`` decides on the next operations, ``status`` makes the
status of the Pod.
"""
