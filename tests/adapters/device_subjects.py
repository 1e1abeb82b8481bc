"""Subjects on the stand-in device that another process can import."""

import standin_device

standin_device.install()


def forward(z, W):
    return z @ W, (z, W)


def backward(cache, delta):
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta}


def backward_with_illegal_access(cache, delta):
    """Launches a kernel whose error shows when the device is synchronised."""
    standin_device.CALLS.pending = "CUDA error: an illegal memory access was encountered"
    return backward(cache, delta)


def backward_with_invalid_launch(cache, delta):
    """An error after which the device goes on."""
    standin_device.CALLS.pending = "CUDA error: invalid configuration argument"
    return backward(cache, delta)


def backward_in_another_stream(cache, delta):
    """Returns gradients before they are there."""
    gradients = backward(cache, delta)
    returned = {n: g * 0 for n, g in gradients.items()}
    for n, g in gradients.items():
        standin_device.CALLS.queue.append(lambda n=n, g=g: returned[n].copy_(g))
    return returned


def backward_with_process(cache, delta):
    """Says in its gradient in which process it runs."""
    import os

    return {n: g * 0 + os.getpid() for n, g in backward(cache, delta).items()}
