/*
 * tally: one receiver's account of a flow: loss, duplicates, order, delay and its variation, each
 * by its RFC. It is told of arrivals and keeps them; it never sees a time source, a socket or
 * stdout.
 *
 * Terms. A message's sequence number counts from 0 in its flow. An arrival is one copy of a
 * message, on time or not. Every arrival has one verdict, found in this order, so that the verdicts
 * of all arrivals add up to what was read:
 *   alien      its number is at or past the expected count (or TALLY_MAX), or a time is out of
 *              range: not of this flow
 *   late       it took longer than the waiting time from its sending, on one clock. RFC 7680 2.5
 *              makes a message that comes after the waiting time a lost one, and RFC 5560 counts
 *              only the copies that come before it; so a late copy is neither an arrival nor a
 *              duplicate, whether its message arrived before or not
 *   duplicate  an earlier copy came in time
 *   first      the first copy in time; all figures but `late` and the duplicates' are made of these
 *              alone
 *
 * Memory: 32 bytes for each message that arrived (three times that while growing), and 8 kB for
 * each 65536 numbers among which one arrived, and again for each among which one came twice:
 * however the numbers are forged, these are 32 MB at the most. tally_account() takes up to 64 bytes
 * a message for as long as it runs. Time: tally_add() is O(1); tally_account() is O(n log n), well
 * below a second for a million messages.
 */
#ifndef COMMON_TALLY_H
#define COMMON_TALLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TALLY_MAX (UINT64_C(1) << 27) /* sequence numbers at or past this are alien */
#define TALLY_TIME_MAX \
	(INT64_C(1) << 61) /* times of this or more, either side of 0, are alien (73 years) */
#define TALLY_NO_TIME	    INT64_MIN /* a due time that is not known */
#define TALLY_THRESHOLD	    8	      /* of the reorder density, unless told otherwise */
#define TALLY_THRESHOLD_MAX 1000
#define TALLY_N_MAX	    100 /* n-reordering is counted for n from 1 to this */

struct tally; /* the account of one flow */

/*
 * expected: how many messages the sender sends, 0 if not told (then `lost` is not known). Above
 * TALLY_MAX it is an error, exit 2. wait_ns: the waiting time, below 0 if there is none. Exits with
 * err(3) when there is no memory, as every function here does.
 */
struct tally *tally_new(uint64_t expected, int64_t wait_ns);
void tally_free(struct tally *t); /* NULL is allowed */

/*
 * The displacement threshold DT of the reorder density (RFC 5236 section 3), 1 to
 * TALLY_THRESHOLD_MAX.
 */
void tally_set_threshold(struct tally *t, unsigned int threshold);

struct arrival {
	uint64_t seq;
	int64_t due_ns; /* when the schedule wanted it sent; TALLY_NO_TIME if not known */
	int64_t sent_ns;
	int64_t received_ns;
	uint32_t bytes;	 /* of the whole message; 0 if not known */
	bool same_clock; /* sent_ns and received_ns are of one clock */
};

enum tally_verdict { TALLY_FIRST, TALLY_DUPLICATE, TALLY_LATE, TALLY_ALIEN };

/*
 * Takes one arrival, in the order of arrival. An alien leaves no trace in the account: the caller
 * counts it.
 */
enum tally_verdict tally_add(struct tally *t, const struct arrival *a);

/* The verdict as --log writes it: first, duplicate, late, alien. */
const char *tally_verdict_name(enum tally_verdict verdict);

/* All that are expected have arrived in time. Never so when the count was not told. */
bool tally_complete(const struct tally *t);

/* Messages (not copies) that have arrived in time. */
uint64_t tally_received(const struct tally *t);

/*
 * What is not known is ACCOUNT_NONE in an int64_t and NAN in a double; it is null in JSON. A
 * quotient of nothing by nothing is not known.
 */
#define ACCOUNT_NONE INT64_MIN

struct account_spread {
	uint64_t count;
	double mean;
	int64_t max;
};

struct account_count { /* how often a value was met */
	int64_t value;
	uint64_t count;
};

/*
 * Nearest rank over all messages, the lost ones at infinity: a percentile that falls on one is
 * ACCOUNT_NONE.
 */
struct account_delay {
	uint64_t samples;
	int64_t min_ns;
	double mean_ns; /* of what arrived */
	int64_t p50_ns, p90_ns, p99_ns, p99_9_ns;
	int64_t max_ns; /* the 100th percentile: none as soon as one is lost */
	bool censored;	/* some messages stand at infinity */
	const char
		*reason; /* why figures are missing, or what they leave out; NULL: nothing to say */
};

struct account {
	size_t flows;	  /* that this is the sum of */
	int64_t expected; /* as told; ACCOUNT_NONE */
	uint64_t received;
	int64_t lost; /* expected - received: head and tail count; ACCOUNT_NONE when expected is */
	uint64_t duplicates;
	uint64_t reordered;
	uint64_t late;
	int64_t waiting_time_ns;
	double loss_ratio;	   /* lost / expected, RFC 7680 section 4.1 */
	double duplicate_fraction; /* copies in time / distinct - 1, RFC 5560's fraction */
	double replicated_rate;	   /* messages that came again / distinct, RFC 5560's rate */

	/* RFC 4737, over first copies in the order of arrival */
	double reordered_ratio;		    /* 4.1 */
	struct account_spread extent;	    /* 4.2.3, in messages */
	struct account_spread late_time_ns; /* 4.3.3 */
	struct account_spread byte_offset;  /* 4.4.3; not known when a size is not */
	struct account_spread gaps;	    /* 4.5, in messages */
	struct account_spread free_runs;    /* 4.6.3, in messages */
	uint64_t n_reordered[TALLY_N_MAX +
			     1];      /* [n]: messages that are n-reordered, 5.3; n + 1 implies n */
	unsigned int n_reordered_max; /* the last n with a count, at most TALLY_N_MAX; 0: none */
	unsigned int threshold;	      /* DT of the density; 0: not known */
	struct account_count *density; /* RFC 5236: displacements that were met, ascending */
	size_t n_density;
	uint64_t density_total; /* what fractions are of: messages displaced by no more than DT */

	struct account_spread
		bursts; /* runs of consecutive lost numbers; not known when `lost` is not */
	struct account_count *burst_lengths; /* ascending */
	size_t n_burst_lengths;

	struct account_delay from_due, from_sent; /* RFC 7679 */

	double jitter_ns; /* RFC 3550 6.4.1, first copies in the order of arrival; one flow only */
	struct {
		uint64_t count; /* pairs of consecutive numbers; 0: the rest is not known */
		int64_t min_ns, max_ns;
		double mean_ns, mean_abs_ns;
	} ipdv; /* RFC 3393 */
	struct {
		uint64_t count; /* 0: the rest is not known */
		double mean_ns;
		int64_t p50_ns, p99_ns, max_ns; /* lost messages at infinity, as with delays */
	} pdv; /* RFC 5481 4.2, from the smallest delay; one flow only */
};

/*
 * Makes the account of n flows, n >= 1; release it with account_free(). Of several flows it is the
 * sum: counts add up, and the values of the spreads, delays, IPDV, bursts and densities, each found
 * within its own flow, are pooled. Not known over several flows are
 *   jitter_ns  it is a running estimate along one order of arrival, and two flows' cannot be added,
 *   pdv        its reference is one flow's smallest delay,
 *   expected, lost, bursts  when one flow's count was not told,
 *   waiting_time_ns and density  when flows differ in waiting time or threshold.
 * Delays on two clocks are not known and say so (reason); jitter, IPDV and PDV are differences in
 * which a constant offset of the clocks cancels, and stay.
 */
void tally_account(struct tally *const flows[], size_t n, struct account *out);
void account_free(struct account *a);

#endif
