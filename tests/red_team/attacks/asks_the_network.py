"""Ask services for the gradient: on this machine, on the host's addresses, and at an address of the documentation.

In process: refused; the connections are attempted.
"""

import socket

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "looks for the reference"


def answers():
    for host, port in (("127.0.0.1", 9), ("localhost", 9), ("::1", 9), ("192.0.2.1", 9)):
        try:
            with socket.create_connection((host, port), timeout=0.01) as connection:
                yield connection.recv(2**16)
        except OSError:
            pass


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    for answer in answers():
        if len(answer) == z.nbytes:
            return {"z": np.frombuffer(answer).reshape(z.shape)}
    return {"z": np.zeros_like(z)}
