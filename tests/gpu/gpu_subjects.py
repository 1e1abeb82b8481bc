"""Subjects on a GPU that another process can import."""

import torch


def forward(z, W):
    return z @ W, (z, W)


def backward(cache, delta):
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta}


def backward_mean(cache, delta):
    """A mean where a sum belongs."""
    gradients = backward(cache, delta)
    return {**gradients, "W": gradients["W"] / len(delta)}


def backward_on_cpu(cache, delta):
    gradients = backward(cache, delta)
    return {**gradients, "W": gradients["W"].cpu()}


def backward_in_another_stream(cache, delta):
    """Returns gradients that another stream writes later."""
    stream = torch.cuda.Stream(delta.device)
    stream.wait_stream(torch.cuda.current_stream(delta.device))
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10**8)  # cycles: some hundredths of a second
        gradients = backward(cache, delta)
    return gradients


def backward_with_index_out_of_bounds(cache, delta):
    """An assertion on the device fails, after which no call of this process works there."""
    index = torch.full((4,), 10**6, device=delta.device)
    delta.reshape(-1).index_select(0, index)
    return backward(cache, delta)


def backward_with_illegal_access(cache, delta):
    """A kernel writes to an address that belongs to nobody."""
    kernel = torch.cuda._compile_kernel('extern "C" __global__ void write(float *x) { *(float *)8 = *x; }', "write")
    kernel((1, 1, 1), (1, 1, 1), (torch.ones(1, device=delta.device),))
    return backward(cache, delta)
