"""The limit of this process's address space."""

import resource

NEEDED = 4 << 30  # bytes of address space for the libraries, their threads, and a small model


def check_address_space() -> None:
    """Raise ValueError if the address space of this process is limited (`ulimit -v`) to too little for the libraries.

    With less, a library aborts the process when an allocation fails, so that nothing can be said any more.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < NEEDED:
        raise ValueError(
            f"The memory of this process is limited to {limit / 2**30:.1f} GiB of address space, but rqrec needs at "
            f"least {NEEDED >> 30} GiB, and more for large data. Raise the limit: ulimit -v {NEEDED >> 10}."
        )
