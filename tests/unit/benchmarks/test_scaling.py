"""The autoscaling policies' arithmetic, and what must be true of every simulated endpoint."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import pytest

from benchmarks.scaling.chart import Curve, chart, round_step
from benchmarks.scaling.policies import (
    HIGH_PERIODS,
    LOW_PERIODS,
    PERIOD_S,
    Autoscaler,
    FromZero,
    Policy,
    Reading,
    TargetTracking,
    backlog_per_instance,
    capacity_for,
)
from benchmarks.scaling.simulation import Load, Outcome, Simulation


def both(*, maximum: int = 10, minimum: int = 0, target: float = 5.0, step_cooldown_s: float = 300.0) -> Autoscaler:
    policies: list[Policy] = [TargetTracking(target=target), FromZero(cooldown_s=step_cooldown_s)]
    return Autoscaler(policies, minimum=minimum, maximum=maximum)


def tracking(*, maximum: int = 10, out_cooldown_s: float = 60.0, in_cooldown_s: float = 300.0) -> Autoscaler:
    policy = TargetTracking(target=5.0, out_cooldown_s=out_cooldown_s, in_cooldown_s=in_cooldown_s)
    return Autoscaler([policy], maximum=maximum)


def decisions(scaler: Autoscaler, backlogs: list[int], *, capacity: int, in_service: int | None = None) -> list[int]:
    """What is decided, period after period, where instances start at once unless `in_service` says otherwise."""
    decided = []
    for number, backlog in enumerate(backlogs, start=1):
        serving = capacity if in_service is None else in_service
        capacity = scaler.decide(Reading(number * PERIOD_S, backlog, serving, capacity))
        decided.append(capacity)
    return decided


def simulate(load: Load, scaler: Autoscaler, *, start_s: float = 360.0, minimum: int = 0) -> Outcome:
    return Simulation(load, scaler, start_s=start_s, minimum=minimum).run()


class TestTargetTracking:
    def test_with_no_instance_the_whole_backlog_counts_as_one_instances(self) -> None:
        assert backlog_per_instance(7, 0) == 7
        assert backlog_per_instance(7, 2) == 3.5

    @pytest.mark.parametrize(("backlog", "in_service", "wanted"), [(0, 3, 0), (5, 1, 1), (6, 1, 2), (50, 4, 10)])
    def test_the_capacity_is_what_brings_the_backlog_of_each_to_the_target(
        self, backlog: int, in_service: int, wanted: int
    ) -> None:
        assert capacity_for(backlog_per_instance(backlog, in_service), in_service, target=5) == wanted

    def test_it_scales_out_when_the_backlog_has_been_high_for_three_periods(self) -> None:
        assert decisions(tracking(), [50] * HIGH_PERIODS, capacity=1) == [1, 1, 10]

    def test_a_backlog_at_the_target_is_not_high(self) -> None:
        assert set(decisions(tracking(), [5] * 30, capacity=1)) == {1}

    def test_one_low_period_between_high_ones_begins_the_count_anew(self) -> None:
        assert set(decisions(tracking(), [50, 50, 1, 50, 50], capacity=1)) == {1}

    def test_it_scales_to_zero_when_the_backlog_has_been_empty_for_fifteen_periods(self) -> None:
        decided = decisions(tracking(), [0] * LOW_PERIODS, capacity=4)
        assert decided[:-1] == [4] * (LOW_PERIODS - 1)
        assert decided[-1] == 0

    def test_during_the_cooldown_after_scaling_out_only_a_larger_capacity_is_taken(self) -> None:
        decided = decisions(tracking(out_cooldown_s=600), [20, 20, 20, 20, 35], capacity=1, in_service=1)
        assert decided == [1, 1, 4, 4, 7]

    def test_during_the_cooldown_after_scaling_in_nothing_more_is_taken_away(self) -> None:
        backlogs = [15] * LOW_PERIODS + [5] * 5
        decided = decisions(tracking(in_cooldown_s=300), backlogs, capacity=9)
        assert decided[LOW_PERIODS - 1 :] == [3, 3, 3, 3, 3, 1]

    def test_scaling_out_does_not_wait_for_the_cooldown_of_scaling_in(self) -> None:
        backlogs = [15] * LOW_PERIODS + [60] * HIGH_PERIODS
        decided = decisions(tracking(in_cooldown_s=3600), backlogs, capacity=9)
        assert decided[-4:] == [3, 3, 3, 10]


class TestFromZero:
    def test_alone_target_tracking_never_begins_a_backlog_below_its_target(self) -> None:
        assert set(decisions(tracking(), [5] * 60, capacity=0)) == {0}

    def test_the_step_begins_it_after_one_period(self) -> None:
        assert decisions(both(), [0, 1], capacity=0) == [0, 1]

    def test_it_adds_no_second_instance_while_its_cooldown_lasts(self) -> None:
        assert set(decisions(both(step_cooldown_s=3600), [1] * 20, capacity=0, in_service=0)) == {1}

    def test_a_start_longer_than_the_cooldown_is_paid_with_a_second_instance(self) -> None:
        assert decisions(both(step_cooldown_s=120), [1, 1, 1, 1], capacity=0, in_service=0) == [1, 1, 2, 2]

    def test_it_has_no_say_while_somebody_is_in_service(self) -> None:
        assert set(decisions(both(), [3] * 60, capacity=1, in_service=1)) == {1}


class TestTogether:
    def test_the_largest_capacity_wins(self) -> None:
        decided = decisions(both(), [40, 40, 40], capacity=0, in_service=0)
        assert decided == [1, 1, 8]

    def test_never_above_the_maximum_and_never_below_the_minimum(self) -> None:
        assert decisions(both(maximum=4), [10_000] * 5, capacity=1)[-1] == 4
        assert set(decisions(both(minimum=2), [0] * 40, capacity=2)) == {2}


LOADS = [
    pytest.param(Load(jobs=400), id="burst"),
    pytest.param(Load(jobs=400, rate=0.5), id="rate"),
    pytest.param(Load(jobs=60, rate=0.02, job_s=120), id="long-jobs"),
    pytest.param(Load(jobs=1, spread=0), id="one"),
]


class TestSimulation:
    @pytest.mark.parametrize("load", LOADS)
    @pytest.mark.parametrize("seed", range(3))
    def test_every_job_ends_exactly_once_and_then_nothing_is_left(self, load: Load, seed: int) -> None:
        again = Load(jobs=load.jobs, rate=load.rate, job_s=load.job_s, spread=load.spread, seed=seed)
        outcome = simulate(again, both())
        assert outcome.ended == [1] * load.jobs
        last = outcome.series[-1]
        assert (last.backlog, last.in_service, last.capacity) == (0, 0, 0)

    def test_a_job_that_is_cut_off_by_scale_in_runs_again_and_ends_once(self) -> None:
        outcome = simulate(Load(jobs=60, rate=0.02, job_s=120), both())
        assert outcome.cut > 0
        assert outcome.ended == [1] * 60

    @pytest.mark.parametrize("load", LOADS)
    def test_what_is_paid_is_at_least_what_was_executed(self, load: Load) -> None:
        outcome = simulate(load, both())
        assert outcome.instance_s >= outcome.busy_s
        assert outcome.busy_s >= sum(load.durations()) - 1e-6

    @pytest.mark.parametrize("load", LOADS)
    def test_never_more_instances_than_allowed(self, load: Load) -> None:
        assert simulate(load, both(maximum=3)).most_instances <= 3

    def test_more_instances_are_never_slower(self) -> None:
        load = Load(jobs=2000)
        ends = [simulate(load, both(maximum=maximum)).last_end_s for maximum in (1, 2, 4, 8, 16)]
        assert ends == sorted(ends, reverse=True)
        assert ends[0] > ends[-1]

    def test_a_longer_start_never_ends_sooner_nor_costs_less(self) -> None:
        outcomes = [simulate(Load(jobs=500), both(), start_s=start_s) for start_s in (0, 120, 600)]
        assert [outcome.last_end_s for outcome in outcomes] == sorted(outcome.last_end_s for outcome in outcomes)
        assert [outcome.instance_s for outcome in outcomes] == sorted(outcome.instance_s for outcome in outcomes)

    def test_without_arrivals_the_backlog_of_a_burst_only_falls(self) -> None:
        series = simulate(Load(jobs=1000), both()).series
        assert all(before.backlog >= after.backlog for before, after in itertools.pairwise(series))

    def test_the_same_seed_gives_the_same_outcome(self) -> None:
        load = Load(jobs=200, rate=0.3)
        assert simulate(load, both()).series == simulate(load, both()).series

    def test_the_mean_of_the_durations_is_what_was_asked_for(self) -> None:
        durations = Load(jobs=20_000, job_s=8, spread=0.4).durations()
        assert sum(durations) / len(durations) == pytest.approx(8, rel=0.02)


class TestChart:
    def test_it_is_an_image_with_three_panels_and_both_names(self) -> None:
        series = simulate(Load(jobs=300), both()).series
        picture = chart([Curve("a & b", series), Curve("other", series)], title="one <two>")
        texts = [element.text for element in ET.fromstring(picture).iter() if element.text]
        assert {"a & b", "other", "instances in service"} <= set(texts)
        assert picture.count("<path") == 6
        assert "prefers-color-scheme: dark" in picture

    @pytest.mark.parametrize(("least", "step"), [(0, 1), (1, 1), (1.1, 2), (2.1, 5), (30, 50), (2500, 5000)])
    def test_scales_are_marked_by_round_numbers(self, least: float, step: float) -> None:
        assert round_step(least) == step
