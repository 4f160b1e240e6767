"""Recorders and sweeps for registries of the interpreter, one kind of registration a file.

A registration with a way back is recorded, or swept when the biz leaves. For a registration without a way back, a
trampoline is registered, which is emptied. Settings of the whole process, signals among them, are guarded in
`koupleless.view`.
"""
