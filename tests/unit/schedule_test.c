/* schedule, samples and clock: due times that do not move, and exact percentiles. */
#include "common/clock.h"
#include "common/schedule.h"
#include "tests/unit/check.h"

static const atomic_bool go = 0, stopped = 1;

static void due_times_are_absolute(void)
{
	struct schedule s = {.start_ns = 1000, .interval_ns = 10};

	int64_t due_ns = 0, sent_ns = 0;

	CHECK_EQ(schedule_due_ns(&s, 0), 1000);
	/* However late we are when we ask, nothing moves. */
	CHECK(schedule_wait(&s, 3, &go, &due_ns, &sent_ns));
	CHECK_EQ(due_ns, 1030);
	CHECK(sent_ns > due_ns);
	CHECK_EQ(schedule_due_ns(&s, UINT64_MAX), INT64_MAX);
	CHECK(!schedule_wait(&s, UINT64_MAX, &stopped, &due_ns, &sent_ns));
	s.interval_ns = 0;
	CHECK(schedule_wait(&s, 3, &go, &due_ns, &sent_ns));
	CHECK_EQ(due_ns, sent_ns);
}

static void lateness_is_kept(void)
{
	struct schedule s = {.interval_ns = 10};
	struct samples late = {0};

	schedule_late(&s, &late, 100, 130);
	schedule_late(&s, &late, 100, 90);
	CHECK_EQ(late.n, 2);
	CHECK(late.ns[0] == 30 && late.ns[1] == 0);
	s.interval_ns = 0;
	schedule_late(&s, &late, 100, 130);
	CHECK_EQ(late.n, 2);
	samples_free(&late);
}

/* Nearest rank, by hand: of 10 samples p50 is the 5th, p90 the 9th, p99 the 10th. */
static void percentiles_are_nearest_rank(void)
{
	struct samples s = {0}, more = {0};
	struct samples_summary got;

	for (int64_t i = 10; i >= 6; i--)
		samples_add(&s, i * 10);
	for (int64_t i = 1; i <= 5; i++)
		samples_add(&more, i * 10);
	samples_merge(&s, &more);
	samples_summarize(&s, 0, &got);
	CHECK_EQ(got.min, 10);
	CHECK_EQ(got.mean, 55);
	CHECK_EQ(got.p50, 50);
	CHECK_EQ(got.p90, 90);
	CHECK_EQ(got.p99, 100);
	CHECK_EQ(got.max, 100);
	/* One lost stands at infinity: of 11, p90 is the 10th, and p99 and max are the lost one. */
	samples_summarize(&s, 1, &got);
	CHECK_EQ(got.p50, 60);
	CHECK_EQ(got.p90, 100);
	CHECK_EQ(got.p99, SAMPLES_NONE);
	CHECK_EQ(got.max, SAMPLES_NONE);
	samples_free(&s);
	samples_free(&more);
	samples_summarize(&s, 3, &got);
	CHECK_EQ(got.min, SAMPLES_NONE);
	CHECK_EQ(got.p50, SAMPLES_NONE);
}

static void the_clock_goes_forward_and_sleeps(void)
{
	int64_t before = clock_now_ns();

	CHECK(clock_sleep_until(before + 2000000, &go));
	CHECK(clock_now_ns() >= before + 2000000);
	CHECK(!clock_sleep_until(before + 3600 * CLOCK_NS_PER_SECOND, &stopped));
	CHECK(clock_id() != 0);
	CHECK_EQ(clock_id(), clock_id());
}

int main(void)
{
	due_times_are_absolute();
	lateness_is_kept();
	percentiles_are_nearest_rank();
	the_clock_goes_forward_and_sleeps();
	return check_failures != 0;
}
