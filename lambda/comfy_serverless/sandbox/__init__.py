"""Untrusted bytes are decoded here: in a process of their own, with limits. Knows no job, no AWS, and owners by name.

`Sandbox` (`sandbox.py`) is what the rest of the program sees. The modules of checks (`images`, `masks`,
`model_headers`) run in the child (`child.py`) only, and may load what decodes: nothing else here imports them.
`embedded` decodes nothing: it also runs where there is no child.
"""
