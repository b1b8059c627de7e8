"""What a child process of the registry does first: it takes its limits, and ends when the registry does."""

import resource

from services.grpckit.parent import end_with_parent


def set_limits(
    *,
    memory_bytes: int | None = None,
    data_bytes: int | None = None,
    cpu_s: int | None = None,
    file_bytes: int | None = None,
    open_files: int | None = None,
) -> None:
    """Limits this process for good; None is without a limit. It also leaves no core, and ends with its parent.

    Args:
        memory_bytes: Address space. Native code reserves more of it than it uses.
        data_bytes: Private memory: as `memory_bytes`, without files that are mapped.
        cpu_s: Processor time in seconds; a signal ends the process then, and no handler keeps it from it.
        file_bytes: Largest file that is written; 0: none.
        open_files: Most files open at once.
    """
    end_with_parent()
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_DATA, data_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, open_files),
    ):
        if value is not None:
            resource.setrlimit(limit, (value, value))
