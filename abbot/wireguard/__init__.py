"""WireGuard devices: `device` says what they are, `plan` what to change, `userspace` and `kernel` do it.

Which backend serves a device is chosen by `backends`, per device.
"""
