"""Changes that bizs make to Python modules they share with others: seen, kept to the biz that made them, taken back.

Here live the comparison of shared modules with an earlier state (`baseline`, `changes`), the dispatchers that call the
function of the running biz (`forwarding`, `dispatch`), variables assigned by bizs (`assigned`), and the question who
made a replacement (`origin`). Nothing here undoes registrations: `ownership` does. `container` calls `Changes.watch`.
"""
