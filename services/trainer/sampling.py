"""Samples the devices and the process of an attempt once a second, beside the training."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence

from services.trainer.devices import DeviceReading, ProcessReading, Sampler
from services.trainer.events import EventLog
from tuneforge.v1 import events_pb2

_SAMPLE_S = 1.0
_FIRST_SAMPLE_S = 0.2


class Sampling:
    """Samples, and syncs the spool, while entered."""

    def __init__(self, log: EventLog, indices: Sequence[int]) -> None:
        """Prepares.

        Args:
            log: Takes the samples.
            indices: Of the attempt's accelerators, as `DeviceInfo.index`.
        """
        self._log = log
        self._indices = tuple(indices)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="sampling", daemon=True)
        self._last = events_pb2.DeviceMetrics()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def energy(self) -> Mapping[str, float]:
        """Returns what the attempt has taken as figures of its outcome, in joules; once the sampling is over."""
        last = self._last
        found = {}
        devices = [each.energy_joules for each in last.devices if each.HasField("energy_joules")]
        if devices and len(devices) == len(last.devices):
            found["gpu_energy_joules"] = sum(devices)
        if last.HasField("energy_joules"):
            found["cpu_energy_joules"] = last.energy_joules
        return found

    def _sample(self) -> None:
        sampler = Sampler(self._indices)
        try:
            # The first one early, so that a run of a second has one too.
            is_over = self._done.wait(_FIRST_SAMPLE_S)
            while True:
                self._last = device_metrics(sampler.read_process(), sampler.read_devices())
                try:
                    self._log.emit(self._last)
                    self._log.sync()
                except OSError as error:  # a full disk; the run itself will say so when it matters
                    sys.stderr.write(f"a sample was not written: {error}\n")
                if is_over:
                    return
                # The last sample is taken when the work is over, so that the energy is that of the whole attempt.
                is_over = self._done.wait(_SAMPLE_S)
        finally:
            sampler.close()


def device_metrics(process: ProcessReading, devices: Sequence[DeviceReading]) -> events_pb2.DeviceMetrics:
    """Returns the event of a sample; what a sensor did not tell stays unset."""
    return events_pb2.DeviceMetrics(
        devices=[
            events_pb2.DeviceSample(
                index=each.index,
                utilization_percent=each.utilization_percent,
                memory_used_bytes=each.memory_used_bytes,
                memory_total_bytes=each.memory_total_bytes,
                power_watts=each.power_watts,
                temperature_celsius=each.temperature_celsius,
                compute_clock_mhz=each.compute_clock_mhz,
                memory_clock_mhz=each.memory_clock_mhz,
                throttle_reasons=[
                    events_pb2.ThrottleReason.Value(f"THROTTLE_REASON_{reason}") for reason in each.throttle_reasons
                ],
                energy_joules=each.energy_joules,
                is_slice=each.is_slice,
            )
            for each in devices
        ],
        cpu_percent=process.cpu_percent,
        memory_bytes=process.memory_bytes,
        memory_peak_bytes=process.memory_peak_bytes,
        host_energy_joules=process.host_energy_joules,
        energy_joules=process.energy_joules,
    )
