/*
 * tally: the known answers of the RFCs' own examples, and what a hostile or unlucky sender can do
 * to an account.
 */
#include "common/tally.h"
#include "tests/unit/check.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define MS INT64_C(1000000)

static bool same(double got, double wanted)
{
	return fabs(got - wanted) <= 1e-9 * fabs(wanted);
}

/*
 * A flow that sends one of 100 bytes every 20 ms, and whose arrivals are 10 ms apart in the order
 * that is given.
 */
static struct tally *arrive_in(uint64_t expected, const uint64_t *seqs, size_t n)
{
	struct tally *t = tally_new(expected, -1);

	for (size_t i = 0; i < n; i++) {
		struct arrival a = {.seq = seqs[i],
			.due_ns = (int64_t)seqs[i] * 20 * MS,
			.sent_ns = (int64_t)seqs[i] * 20 * MS,
			.received_ns = 1000 * MS + (int64_t)i * 10 * MS,
			.bytes = 100,
			.same_clock = true};

		CHECK(tally_add(t, &a) != TALLY_ALIEN);
	}
	return t;
}

static struct account account_in(uint64_t expected, const uint64_t *seqs, size_t n)
{
	struct tally *t = arrive_in(expected, seqs, n);
	struct account a;

	tally_account(&t, 1, &a);
	tally_free(t);
	return a;
}
#define ACCOUNT_IN(expected, ...)                             \
	account_in(expected, (const uint64_t[]){__VA_ARGS__}, \
		sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static void check_n_reordered(const struct account *a, const uint64_t *counts, unsigned int n)
{
	CHECK_EQ(a->n_reordered_max, n);
	for (unsigned int i = 0; i < n; i++)
		CHECK_EQ(a->n_reordered[i + 1], counts[i]);
}

static void test_one_late_message(void)
{
	static const int64_t at_ms[][2] = {{1, 68}, {2, 88}, {3, 108}, {5, 148}, {6, 168}, {7, 188},
		{8, 208}, {4, 210}, {9, 228}, {10, 248}};
	struct tally *t = tally_new(0, -1);
	struct account a;

	for (size_t i = 0; i < sizeof(at_ms) / sizeof(at_ms[0]); i++) {
		struct arrival arrival = {.seq = (uint64_t)at_ms[i][0],
			.due_ns = TALLY_NO_TIME,
			.sent_ns = (at_ms[i][0] - 1) * 20 * MS,
			.received_ns = at_ms[i][1] * MS,
			.bytes = 100,
			.same_clock = true};

		CHECK_EQ(tally_add(t, &arrival), TALLY_FIRST);
	}
	tally_account(&t, 1, &a);
	CHECK_EQ(a.reordered, 1);
	CHECK_EQ(a.extent.max, 4);
	CHECK_EQ(a.late_time_ns.max, 62 * MS);
	CHECK_EQ(a.byte_offset.max, 400);
	check_n_reordered(&a, (const uint64_t[]){1, 1, 1, 1}, 4);
	CHECK_EQ(a.free_runs.count, 1);
	CHECK_EQ(a.free_runs.max, 7);
	CHECK(same(a.jitter_ns, 9309082.03125));
	CHECK_EQ(a.from_sent.p50_ns, 68 * MS);
	CHECK_EQ(a.from_sent.max_ns, 150 * MS);
	CHECK(a.from_due.reason && a.from_due.samples == 0 && a.from_due.min_ns == ACCOUNT_NONE);
	account_free(&a);
	tally_free(t);
}

static void test_known_orders(void)
{
	struct account a = ACCOUNT_IN(0, 1, 2, 3, 4, 7, 5, 6, 8, 9, 10);

	CHECK_EQ(a.reordered, 2);
	CHECK_EQ(a.extent.max, 2);
	CHECK(same(a.extent.mean, 1.5));
	check_n_reordered(&a, (const uint64_t[]){1}, 1);
	CHECK_EQ(a.free_runs.count, 2);
	CHECK_EQ(a.free_runs.max, 5);
	CHECK(same(a.free_runs.mean, 2.5));
	account_free(&a);

	a = ACCOUNT_IN(0, 1, 2, 3, 7, 8, 9, 10, 4, 5, 6, 11);
	CHECK_EQ(a.reordered, 3);
	CHECK_EQ(a.extent.max, 6);
	CHECK(same(a.extent.mean, 5));
	check_n_reordered(&a, (const uint64_t[]){1, 1, 1, 1}, 4);
	account_free(&a);

	a = ACCOUNT_IN(0, 1, 2, 3, 6, 7, 4, 5, 8, 9, 10, 12, 13, 11, 14, 15, 16);
	CHECK_EQ(a.reordered, 3);
	CHECK_EQ(a.extent.max, 3);
	CHECK(same(a.extent.mean, 7.0 / 3));
	CHECK_EQ(a.gaps.count, 1);
	CHECK_EQ(a.gaps.max, 7);
	CHECK_EQ(a.free_runs.count, 3);
	CHECK_EQ(a.free_runs.max, 5);
	CHECK(same(a.free_runs.mean, 10.0 / 3));
	check_n_reordered(&a, (const uint64_t[]){2, 2}, 2);
	account_free(&a);

	a = ACCOUNT_IN(0, 1, 10, 5);
	CHECK_EQ(a.reordered, 1);
	CHECK_EQ(a.extent.max, 1);
	account_free(&a);
}

static void test_duplicates(void)
{
	struct account a = ACCOUNT_IN(0, 1, 1, 1, 2, 3, 3, 3, 4);

	CHECK_EQ(a.received, 4);
	CHECK_EQ(a.duplicates, 4);
	CHECK_EQ(a.reordered, 0);
	CHECK(same(a.duplicate_fraction, 1.0));
	CHECK(same(a.replicated_rate, 0.5));
	CHECK_EQ(a.lost, ACCOUNT_NONE);
	account_free(&a);

	/* A second copy of 0 far behind the first would be all the jitter that there is. */
	a = ACCOUNT_IN(0, 0, 1, 2, 0, 0);
	CHECK_EQ(a.duplicates, 2);
	CHECK(same(a.jitter_ns, 10e6 / 16 + 10e6 / 16 * 15 / 16));
	account_free(&a);
}

static void test_density(void)
{
	static const struct account_count wanted[] = {{-2, 1}, {-1, 1}, {0, 4}, {1, 1}, {2, 1}};
	struct tally *t = arrive_in(0, (const uint64_t[]){1, 4, 2, 5, 3, 6, 7, 8}, 8);
	struct account a;

	tally_set_threshold(t, 4);
	tally_account(&t, 1, &a);
	CHECK_EQ(a.threshold, 4);
	CHECK_EQ(a.density_total, 8);
	CHECK_EQ(a.n_density, 5);
	for (size_t i = 0; i < a.n_density && i < 5; i++) {
		CHECK_EQ(a.density[i].value, wanted[i].value);
		CHECK_EQ(a.density[i].count, wanted[i].count);
	}
	account_free(&a);
	tally_free(t);

	/*
	 * 1 comes five places late: within DT 4 all are displaced, beyond DT 2 it is lost and none
	 * is.
	 */
	t = arrive_in(0, (const uint64_t[]){0, 2, 3, 4, 5, 1}, 6);
	tally_set_threshold(t, 4);
	tally_account(&t, 1, &a);
	CHECK_EQ(a.n_density, 3);
	CHECK_EQ(a.density[0].value, -1);
	CHECK_EQ(a.density[0].count, 4);
	CHECK_EQ(a.density[2].value, 4);
	account_free(&a);
	tally_set_threshold(t, 2);
	tally_account(&t, 1, &a);
	CHECK_EQ(a.n_density, 1);
	CHECK_EQ(a.density[0].count, 5);
	CHECK_EQ(a.density_total, 5);
	account_free(&a);
	tally_free(t);
}

/* Of `count` messages the first copy of each comes unless `lost` says not; `doubled` come twice. */
static struct account send_many(uint64_t count, bool (*lost)(uint64_t), bool (*doubled)(uint64_t))
{
	struct tally *t = tally_new(count, -1);
	struct account a;

	for (uint64_t seq = 0; seq < count; seq++) {
		struct arrival arrival = {.seq = seq,
			.due_ns = (int64_t)seq * MS,
			.sent_ns = (int64_t)seq * MS,
			.received_ns = (int64_t)seq * MS + 5 * MS,
			.bytes = 100,
			.same_clock = true};

		if (lost(seq))
			continue;
		CHECK_EQ(tally_add(t, &arrival), TALLY_FIRST);
		if (doubled(seq))
			CHECK_EQ(tally_add(t, &arrival), TALLY_DUPLICATE);
	}
	tally_account(&t, 1, &a);
	tally_free(t);
	return a;
}

static bool none(uint64_t seq)
{
	(void)seq;
	return false;
}

static bool each_fiftieth(uint64_t seq)
{
	return seq % 50 == 7;
}

static bool other_fiftieth(uint64_t seq)
{
	return seq % 50 == 31;
}

static bool tail(uint64_t seq)
{
	return seq >= 4900;
}

static void test_loss(void)
{
	struct account a = send_many(5000, each_fiftieth, other_fiftieth);

	CHECK_EQ(a.expected, 5000);
	CHECK_EQ(a.received, 4900);
	CHECK_EQ(a.lost, 100);
	CHECK_EQ(a.duplicates, 100);
	CHECK_EQ(a.bursts.count, 100);
	CHECK_EQ(a.bursts.max, 1);
	CHECK(same(a.loss_ratio, 0.02));
	/* With 2 % lost the 98th percentile is the last that there is. */
	CHECK_EQ(a.from_sent.p90_ns, 5 * MS);
	CHECK_EQ(a.from_sent.p99_ns, ACCOUNT_NONE);
	CHECK_EQ(a.from_sent.max_ns, ACCOUNT_NONE);
	CHECK(a.from_sent.censored && !a.from_sent.reason);
	account_free(&a);

	a = send_many(5000, tail, none);
	CHECK_EQ(a.lost, 100);
	CHECK_EQ(a.duplicates, 0);
	CHECK_EQ(a.bursts.count, 1);
	CHECK_EQ(a.bursts.max, 100);
	CHECK_EQ(a.n_burst_lengths, 1);
	account_free(&a);
}

/*
 * Nearest rank: of 1007 samples 1 to 1007 the p50 is the 504th, the first that half are not above.
 */
static void test_percentiles(void)
{
	struct tally *t = tally_new(1007, -1);
	struct account a;

	for (uint64_t seq = 0; seq < 1007; seq++) {
		struct arrival arrival = {.seq = seq,
			.due_ns = 0,
			.sent_ns = 100,
			.received_ns = 100 + (int64_t)(seq * 7 % 1007) + 1,
			.bytes = 100,
			.same_clock = true};

		tally_add(t, &arrival);
	}
	CHECK(tally_complete(t));
	tally_account(&t, 1, &a);
	CHECK_EQ(a.from_sent.min_ns, 1);
	CHECK_EQ(a.from_sent.p50_ns, 504);
	CHECK_EQ(a.from_sent.p90_ns, 907);
	CHECK_EQ(a.from_sent.p99_ns, 997);
	CHECK_EQ(a.from_sent.p99_9_ns, 1006);
	CHECK_EQ(a.from_sent.max_ns, 1007);
	CHECK_EQ(a.from_due.p50_ns, 604);
	CHECK(same(a.from_sent.mean_ns, 504));
	CHECK(!a.from_sent.censored && !a.from_sent.reason);
	account_free(&a);
	tally_free(t);
}

/* 60 of 6000 come 50 places late. */
static void test_sixty_of_six_thousand(void)
{
	struct tally *t = tally_new(6000, -1);
	struct account a;

	for (int64_t slot = 0; slot < 6050; slot++) {
		for (int late = 0; late < 2; late++) {
			int64_t seq = late ? slot - 50 : slot;
			struct arrival arrival = {.seq = (uint64_t)seq,
				.due_ns = seq * MS,
				.sent_ns = seq * MS,
				.received_ns = slot * MS + MS,
				.bytes = 100,
				.same_clock = true};

			if (seq >= 0 && seq < 6000 && (seq % 100 == 13) == late)
				CHECK_EQ(tally_add(t, &arrival), TALLY_FIRST);
		}
	}
	tally_account(&t, 1, &a);
	CHECK_EQ(a.reordered, 60);
	CHECK_EQ(a.lost, 0);
	CHECK_EQ(a.from_sent.samples, 6000);
	CHECK_EQ(a.from_sent.max_ns, 51 * MS);
	CHECK_EQ(a.extent.max, 50);
	account_free(&a);
	tally_free(t);
}

static enum tally_verdict add(struct tally *t, uint64_t seq, int64_t sent_ns, int64_t received_ns)
{
	struct arrival a = {.seq = seq,
		.due_ns = sent_ns,
		.sent_ns = sent_ns,
		.received_ns = received_ns,
		.bytes = 100,
		.same_clock = true};

	return tally_add(t, &a);
}

/*
 * What comes after the waiting time is lost, whichever copy it is; what comes at its very end is
 * not.
 */
static void test_late(void)
{
	struct tally *t = tally_new(4, 10 * MS);
	struct account a;

	CHECK_EQ(add(t, 0, 0, 10 * MS), TALLY_FIRST);
	CHECK_EQ(add(t, 1, 0, 10 * MS + 1), TALLY_LATE);
	CHECK_EQ(add(t, 0, 0, 11 * MS), TALLY_LATE);
	CHECK_EQ(add(t, 2, 5 * MS, 11 * MS), TALLY_FIRST);
	CHECK_EQ(add(t, 1, 4 * MS, 12 * MS), TALLY_FIRST);
	CHECK(!tally_complete(t));
	tally_account(&t, 1, &a);
	CHECK_EQ(a.received, 3);
	CHECK_EQ(a.late, 2);
	CHECK_EQ(a.lost, 1);
	CHECK_EQ(a.duplicates, 0);
	CHECK_EQ(a.waiting_time_ns, 10 * MS);
	account_free(&a);
	tally_free(t);
}

static void test_aliens(void)
{
	struct tally *t = tally_new(3, -1);
	struct account a;

	CHECK_EQ(add(t, 3, 0, 1), TALLY_ALIEN);
	CHECK_EQ(add(t, UINT64_MAX, 0, 1), TALLY_ALIEN);
	CHECK_EQ(add(t, 0, INT64_MIN, 1), TALLY_ALIEN);
	CHECK_EQ(add(t, 0, 0, INT64_MAX), TALLY_ALIEN);
	CHECK_EQ(add(t, 0, TALLY_TIME_MAX, 1), TALLY_ALIEN);
	CHECK_EQ(tally_received(t), 0);
	/* The widest times that are let in: no difference of differences overflows. */
	CHECK_EQ(add(t, 0, TALLY_TIME_MAX - 1, 1 - TALLY_TIME_MAX), TALLY_FIRST);
	CHECK_EQ(add(t, 1, 1 - TALLY_TIME_MAX, TALLY_TIME_MAX - 1), TALLY_FIRST);
	CHECK_EQ(add(t, 2, TALLY_TIME_MAX - 1, 1 - TALLY_TIME_MAX), TALLY_FIRST);
	tally_account(&t, 1, &a);
	CHECK_EQ(a.received, 3);
	CHECK(a.from_sent.samples == 0 && a.from_sent.reason);
	account_free(&a);
	tally_free(t);

	t = tally_new(0, -1);
	CHECK_EQ(add(t, TALLY_MAX, 0, 1), TALLY_ALIEN);
	CHECK_EQ(add(t, TALLY_MAX - 1, 0, 1), TALLY_FIRST);
	CHECK(!tally_complete(t));
	tally_free(t);
}

static void test_nothing(void)
{
	struct tally *t = tally_new(10, -1);
	struct account a;

	tally_account(&t, 1, &a);
	CHECK_EQ(a.lost, 10);
	CHECK_EQ(a.bursts.count, 1);
	CHECK_EQ(a.bursts.max, 10);
	CHECK(isnan(a.reordered_ratio) && isnan(a.duplicate_fraction) && isnan(a.jitter_ns));
	CHECK(a.from_sent.censored && a.from_sent.reason);
	CHECK_EQ(a.ipdv.count + a.pdv.count, 0);
	account_free(&a);
	tally_free(t);
}

/*
 * Two clocks: no delay, and above all none below zero; but differences of delays are what they are.
 */
static void test_two_clocks(void)
{
	struct tally *t = tally_new(3, MS);
	struct account a;

	for (uint64_t seq = 0; seq < 3; seq++) {
		struct arrival arrival = {.seq = seq,
			.due_ns = 0,
			.sent_ns = 1000 * MS,
			.received_ns = (int64_t)(seq * seq) * MS};

		CHECK_EQ(tally_add(t, &arrival), TALLY_FIRST);
	}
	tally_account(&t, 1, &a);
	CHECK(a.from_sent.samples == 0 && a.from_sent.min_ns == ACCOUNT_NONE && a.from_sent.reason);
	CHECK(a.from_due.samples == 0 && a.from_due.reason);
	CHECK_EQ(a.ipdv.min_ns, MS);
	CHECK_EQ(a.ipdv.max_ns, 3 * MS);
	CHECK_EQ(a.pdv.max_ns, 4 * MS);
	account_free(&a);
	tally_free(t);

	/*
	 * One clock, it says, and a message that came before it was sent: nobody's delay is to be
	 * believed.
	 */
	t = tally_new(0, -1);
	CHECK_EQ(add(t, 0, 5, 10), TALLY_FIRST);
	CHECK_EQ(add(t, 1, 12, 11), TALLY_FIRST);
	tally_account(&t, 1, &a);
	CHECK(a.from_sent.samples == 0 && a.from_sent.reason);
	account_free(&a);
	tally_free(t);
}

static void test_sum(void)
{
	struct tally *flows[2] = {
		arrive_in(6, (const uint64_t[]){0, 1, 3, 2, 2}, 5),
		arrive_in(4, (const uint64_t[]){1, 0, 3}, 3),
	};
	struct account a;

	tally_account(flows, 2, &a);
	CHECK_EQ(a.flows, 2);
	CHECK_EQ(a.expected, 10);
	CHECK_EQ(a.received, 7);
	CHECK_EQ(a.lost, 3);
	CHECK_EQ(a.duplicates, 1);
	CHECK_EQ(a.reordered, 2);
	CHECK_EQ(a.bursts.count, 2);
	CHECK_EQ(a.bursts.max, 2);
	CHECK_EQ(a.from_sent.samples, 7);
	CHECK_EQ(a.ipdv.count, 4);
	CHECK(isnan(a.jitter_ns) && a.pdv.count == 0);
	account_free(&a);
	tally_free(flows[1]);

	flows[1] = arrive_in(0, (const uint64_t[]){1, 0, 3}, 3);
	tally_account(flows, 2, &a);
	CHECK(a.expected == ACCOUNT_NONE && a.lost == ACCOUNT_NONE && isnan(a.loss_ratio));
	CHECK_EQ(a.n_burst_lengths, 0);
	CHECK(a.from_sent.samples == 7 && !a.from_sent.censored && a.from_sent.reason);
	account_free(&a);
	tally_free(flows[0]);
	tally_free(flows[1]);
}

static long peak_kb(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_maxrss;
}

/* Numbers all over the place, each of them as dear as can be, and all of them twice. */
static void test_forged_numbers_are_cheap(void)
{
	struct tally *t = tally_new(0, -1);
	long before = peak_kb();

	for (uint64_t i = 0; i < 100000; i++) {
		uint64_t seq = i * UINT64_C(0x9e3779b97f4a7c15);

		add(t, seq % TALLY_MAX, 0, 1);
		add(t, seq % TALLY_MAX, 0, 1);
		CHECK_EQ(add(t, seq | TALLY_MAX, 0, 1), TALLY_ALIEN);
	}
	CHECK_EQ(tally_received(t), 100000);
	CHECK(peak_kb() - before < 64 * 1024);
	tally_free(t);
}

/*
 * CPU time for an account of n messages that arrive last first: the worst order for whoever looks
 * back.
 */
static double backwards(uint64_t n)
{
	struct tally *t = tally_new(n, -1);
	clock_t start = clock();
	struct account a;

	for (uint64_t i = 0; i < n; i++)
		add(t, n - 1 - i, 0, (int64_t)i);
	CHECK(tally_complete(t));
	tally_account(&t, 1, &a);
	CHECK_EQ(a.reordered, n - 1);
	CHECK_EQ(a.extent.max, n - 1);
	CHECK_EQ(a.byte_offset.max, 100 * (n - 1));
	CHECK_EQ(a.n_reordered[1], n - 1);
	CHECK_EQ(a.n_reordered_max, TALLY_N_MAX);
	account_free(&a);
	tally_free(t);
	return (double)(clock() - start);
}

/* 16 times the messages may take 16 times as long and some more, but not the square of it. */
static void test_no_square(void)
{
	double few = backwards(50000), many = backwards(800000);

	CHECK(many < 100 * few);
}

int main(void)
{
	test_one_late_message();
	test_known_orders();
	test_duplicates();
	test_density();
	test_loss();
	test_percentiles();
	test_sixty_of_six_thousand();
	test_late();
	test_aliens();
	test_nothing();
	test_two_clocks();
	test_sum();
	test_forged_numbers_are_cheap();
	test_no_square();
	return check_failures != 0;
}
