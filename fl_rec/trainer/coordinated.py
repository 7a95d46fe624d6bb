"""The trainer of a job with a coordinator: a client tells how it fared, and does what it is told."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from fl_rec.coordinator.messages import (
    FINISH,
    JOIN,
    STATES,
    ClientReport,
    Decision,
    Device,
    Field,
    check_fields,
)
from fl_rec.coordinator.wire import decode_report, encode
from fl_rec.errors import ConfigError, RunError
from fl_rec.evaluation.metrics import EpochMetrics
from fl_rec.job.check import Job
from fl_rec.runs import activity
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.roles import Role
from fl_rec.secure import Tls, is_insecure, require_safe
from fl_rec.trainer.fl_trainer import FLTrainer

log = logging.getLogger(__name__)


class CoordinatedTrainer(FLTrainer):
    """One role of a job with a coordinator: the coordinator, a parameter server or a worker.

    A worker reports before the first epoch and after each one. Those who wait, or have finished, keep in step: they
    synchronise and evaluate, since Paddle's barriers need every worker.

    Attributes, for those who override a step of `run_worker`:
        decision: what this client does in the present epoch.
    """

    @classmethod
    def play(cls, job: Job, role: Role, run: RunDirectory) -> None:
        if not role.coordinator_endpoints:
            raise ConfigError(
                f"{cls.__name__} needs a coordinator. Received: none. Start the job with --coordinator_num=1, or use "
                "fl_rec.trainer.FLTrainer and tools/static_fl_trainer.py, which need none."
            )
        if role.kind == "coordinator":
            from fl_rec.coordinator.checkpoints import Checkpoints
            from fl_rec.coordinator.process import coordinate

            address = role.coordinator_endpoints[0]
            # Where workers are, the first of them writes the strategy's part of a checkpoint too.
            kept = None if role.own_workers else Checkpoints(job.config.runner, run, job.checksum)
            coordinate(job.config, run, address, role.num_workers, *((kept.decided,) if kept else ()))
        else:
            super().play(job, role, run)

    def __init__(self, job: Job, role: Role, run: RunDirectory) -> None:
        super().__init__(job, role, run)
        if role.kind == "worker":
            from fl_rec.coordinator.client import CoordinatorClient
            from fl_rec.coordinator.process import awaited_token_of, token_of

            settings, endpoint = self.config.coordinator, role.coordinator_endpoints[0]
            tls = Tls.of(self.config.tls, f"client-{role.index}")
            require_safe(endpoint, tls, is_insecure(), "the coordinator")
            self._device = settings.client(role.index)
            token = partial(token_of, run, role.index)
            if not role.is_here(endpoint):
                token = partial(awaited_token_of, run, role.index, self.config.runner.start_timeout)
            self._client = CoordinatorClient(
                endpoint,
                token,
                settings.max_message_bytes,
                # A round's last report may come round_timeout after the first, and the strategy may take as long.
                answer_timeout=2 * settings.round_timeout + 10,
                compression=self.config.runner.compress_report,
                tls=tls,
            )
            self._lost = False
            self._bytes = (0, 0)
            self._report: ClientReport | None = None
            self.decision = Decision()

    # -- the steps of a worker ---------------------------------------------------------------------------------

    def run_worker(self) -> None:
        """Asks what to do in the first epoch, and goes on epoch by epoch."""
        # Until its first word, a coordinator may take as long to come up as everybody else.
        if self.decision.next_state != FINISH:  # as it may be in a run that is resumed
            self._ask(self._report or self.client_report(None), self.config.runner.start_timeout)
        if self._go_on():
            super().run_worker()

    def train_epoch(self, epoch: int, local_epochs: float = 1.0) -> EpochMetrics:
        """As it was decided, on the device that the client is taken to be.

        Returns:
            as without a coordinator. With devices to emulate, `seconds` are what it would have taken there.
        """
        decision = self.decision
        if decision.next_state != JOIN:
            return super().train_epoch(epoch, 0)
        self.student.listen(decision.extra)
        self.learning_rate_factor = decision.learning_rate_factor
        start, processor = time.perf_counter(), time.process_time()
        before = self.runtime.bytes_exchanged()
        metrics = super().train_epoch(epoch, local_epochs * decision.local_epochs)
        if not self.config.coordinator.clients:
            return metrics
        # The processor's time, since ten clients share this machine's cores, and a device of its own would not.
        seconds = self._device.slow_down * (time.process_time() - processor)
        if self._device.bandwidth is not None:
            seconds += (sum(self.runtime.bytes_exchanged()) - sum(before)) / self._device.bandwidth
        activity.doing(f"taking as long for epoch {epoch} as the emulated device")
        time.sleep(max(0.0, seconds - (time.perf_counter() - start)))
        return replace(metrics, seconds=seconds)

    def report(self, metrics: EpochMetrics) -> list[EpochMetrics]:
        """Tells the other workers and the coordinator, whose answer becomes `decision`.

        Raises:
            RunError: the coordinator refused the report; or is lost, and coordinator.on_coordinator_loss is stop.
        """
        self._report = None if self.decision.next_state == FINISH else self.client_report(metrics)
        everyone = super().report(metrics)
        if self._report is not None:
            self._ask(self._report, self.config.coordinator.coordinator_timeout)
        return everyone

    def state(self) -> dict[str, np.ndarray]:
        """The report that comes next, as it travels; none if the client has finished."""
        return {} if self._report is None else {"report": np.frombuffer(encode(self._report), np.uint8)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        if "report" in state:
            self._report = decode_report(state["report"].tobytes())
        else:
            self.decision = Decision(FINISH)

    def apply(self, everyone: Sequence[EpochMetrics]) -> bool:
        """Goes on until every client has finished."""
        return self._go_on()

    def report_fields(self, metrics: EpochMetrics) -> Mapping[str, Field]:
        """Your own fields of a report, as declared in coordinator.report_fields: numbers or small arrays.

        Args:
            metrics: this client's epoch.
        """
        return {}

    # -- what the steps stand on -------------------------------------------------------------------------------

    def client_report(self, metrics: EpochMetrics | None) -> ClientReport:
        """What the coordinator is told.

        Args:
            metrics: this client's epoch; None before the first.
        """
        device = self._device
        bandwidth = math.inf if device.bandwidth is None else device.bandwidth
        sent, received = self.runtime.bytes_exchanged()
        report = ClientReport(
            client=self.role.index,
            round=0,
            shard_rows=self.shard_rows,
            device=Device(device.type, 1 / device.slow_down, bandwidth),
            bytes_sent=sent - self._bytes[0],
            bytes_received=received - self._bytes[1],
        )
        self._bytes = (sent, received)
        declared = self.config.coordinator.report_fields
        report = replace(report, extra=self.student.fingerprint(declared))
        if metrics is None:
            return report
        logits = self.student.logits(self.net, metrics.epoch, declared)
        report = replace(
            report,
            round=metrics.epoch,
            rows=metrics.rows,
            seconds=metrics.seconds if metrics.rows else 0.0,
            train_loss=metrics.train_loss,
            train_auc=metrics.train_auc,
            test_auc=metrics.test_auc,
            hr=metrics.hit_rate,
            ndcg=metrics.ndcg,
            test_users=metrics.test_users,
            extra={**report.extra, **logits, **self.report_fields(metrics)},
        )
        check_fields(report, declared)
        return report

    def pull_dense(self) -> dict[str, np.ndarray]:
        """The dense parameters as the servers hold them: name -> float32 array."""
        return self.exchange.servers.pull_dense()

    def _ask(self, report: ClientReport, timeout: float) -> None:
        from fl_rec.coordinator.client import CoordinatorLost

        settings = self.config.coordinator
        activity.doing(f"waiting for the coordinator's decision of round {report.round}")
        try:
            # Whoever has gone on without it only looks whether it is back.
            self.decision = self._client.report(report, 0 if self._lost else timeout)
            if self._lost:
                self._tell(f"the coordinator is back in round {report.round}")
            self._lost = False
        except CoordinatorLost as err:
            if settings.on_coordinator_loss == "stop":
                raise RunError(
                    f"{err} As coordinator.on_coordinator_loss=stop, the run ends in round {report.round}; the model "
                    f"of the last epoch is in {self.model_folder}. Its log is coordinator.0, and "
                    f"fl-rec coordinator {self.run_directory.path} starts it again while a run lives."
                ) from err
            if not self._lost:
                self._tell(f"{err} Going on without it: all train (coordinator.on_coordinator_loss=continue).")
            self._lost, self.decision = True, Decision()

    def _tell(self, text: str) -> None:
        log.warning("%s", text)
        if self.role.is_first_here:
            self.run_directory.append_table(f"note: {text}")

    def _go_on(self) -> bool:
        state = np.array([STATES.index(self.decision.next_state)], np.float64)
        everyone = self.runtime.gather(state, "every client's decision")
        return bool(np.any(everyone != STATES.index(FINISH)))
