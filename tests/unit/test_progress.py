"""Who does not get on is named."""

from attachd.progress import Progress


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def _progress() -> tuple[Progress, Clock]:
    clock = Clock()
    return Progress(clock), clock


def test_nobody_is_stalled_before_anybody_runs() -> None:
    assert _progress()[0].stalled() == []


def test_a_task_has_all_its_time_from_when_it_was_announced() -> None:
    progress, clock = _progress()
    progress.reporter("pull", 60.0)
    clock.seconds = 60.0
    assert progress.stalled() == []
    clock.seconds = 60.1
    assert progress.stalled() == ["pull"]


def test_a_report_gives_a_task_all_its_time_again() -> None:
    progress, clock = _progress()
    report = progress.reporter("pull", 60.0)
    clock.seconds = 100.0
    report()
    assert progress.stalled() == []
    clock.seconds = 160.5
    assert progress.stalled() == ["pull"]


def test_tasks_are_judged_each_by_its_own_limit_and_named_in_order() -> None:
    progress, clock = _progress()
    for task, limit in (("pull", 30.0), ("journal", 20.0), ("room", 100.0)):
        progress.reporter(task, limit)
    clock.seconds = 50.0
    assert progress.stalled() == ["journal", "pull"]


def test_a_task_that_is_done_need_not_report_and_may_begin_again() -> None:
    progress, clock = _progress()
    report = progress.reporter("pull", 30.0)
    progress.done("pull")
    progress.done("pull")
    clock.seconds = 1000.0
    assert progress.stalled() == []
    report()
    clock.seconds = 1031.0
    assert progress.stalled() == ["pull"]
