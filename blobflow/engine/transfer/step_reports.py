"""How steps go: recorded in their states, and told to who watches the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from blobflow.engine.plan.step_images import StepImages
from blobflow.engine.plan.steps import Attach, Backup, Copy, Mount, Put, Step
from blobflow.engine.transfer.step_states import StepStates
from blobflow.errors import BlobflowError, EngineLost, StorageError
from blobflow.events import Observer, StepDone, StepFailed, StepStarted
from blobflow.oci import Descriptor

StepOutcome = Literal["done", "refused", "fell back"]


class StepReports:
    """Of one transfer. `after_failure` is called when a step has failed."""

    def __init__(
        self,
        states: StepStates,
        images: StepImages,
        observe: Observer,
        after_failure: Callable[[], None],
    ) -> None:
        self._states = states
        self._images = images
        self._observe = observe
        self._after_failure = after_failure

    def began(self, number: int, worker: str = "") -> None:
        """A step began; `worker`: who does it, if not this process."""
        step = self._states.step(number)
        kind, content = describe_step(step)
        image = self._images.source(number)
        self._observe(
            StepStarted(number, kind, content.digest, str(step.target), content.size, image, worker)
        )

    def ended(self, number: int, outcome: StepOutcome = "done") -> None:
        """A step ended, and did not fail."""
        if outcome == "refused":
            self._states.refused(number)
            return
        step = self._states.step(number)
        kind, content = describe_step(step)
        self._observe(StepDone(number, kind, content.digest, str(step.target), content.size))
        self._states.done(number, fell_back=outcome == "fell back")

    def failed(self, number: int, error: BlobflowError) -> None:
        """A step failed."""
        if not isinstance(error, StorageError | EngineLost):  # they are neither side, and name themselves
            error.side = error.side or "target"
        step = self._states.step(number)
        kind, content = describe_step(step)
        self._observe(StepFailed(number, kind, content.digest, str(step.target), str(error)))
        self._states.failed(number, error)
        self._after_failure()


def describe_step(step: Step) -> tuple[str, Descriptor]:
    """A step's kind, as events and messages name it, and what it moves."""
    match step:
        case Copy():
            return "copy", step.blob
        case Mount():
            return "mount", step.blob
        case Put():
            return "put", step.manifest
        case Attach():
            return "attach", Descriptor("", step.subject, 0)
        case Backup():
            return "backup", step.manifest
