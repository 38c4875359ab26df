#include "common/tally.h"

#include <err.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * A set of numbers below TALLY_MAX, in chunks that are made when the first of their numbers comes:
 * a sender that counts from 0 costs a bit a message, and one that jumps about costs what TALLY_MAX
 * allows and no more.
 */
#define CHUNK_BITS  65536
#define CHUNK_WORDS (CHUNK_BITS / 64)

struct seq_set {
	uint64_t **chunks;
	size_t n_chunks;
};

/*
 * A first copy. The clock is not here: what matters is whether all of a flow's are of one (clocks).
 */
struct copy {
	uint32_t seq; /* below TALLY_MAX */
	uint32_t bytes;
	int64_t due_ns, sent_ns, received_ns;
};

struct tally {
	uint64_t expected;
	int64_t wait_ns;
	unsigned int threshold;
	struct seq_set arrived, doubled;
	struct copy *copies; /* in the order of arrival */
	size_t n, room;
	uint64_t duplicates, replicated, late;
	bool same_clock, other_clock; /* whether one was met that has one clock, two clocks */
};

/* What the flows have in common while their account is made. */
struct work {
	struct account *out;
	int64_t *due, *sent; /* all delays so far */
	size_t n_due, n_sent;
	uint64_t *bursts;
	size_t n_bursts;
	uint64_t displaced[2 * TALLY_THRESHOLD_MAX + 1];
	long double extent, late_time, byte_offset, gaps, free_runs; /* sums */
	long double ipdv, ipdv_abs;
	bool size_missing;
};

/*
 * Nobody asks for 0 bytes here, but an account of nothing would; and no account is worth going on
 * without.
 */
static void *need(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	if (!p)
		err(1, "an account of %zu messages", n);
	return p;
}

/* Puts seq in; false if it was there. */
static bool set_add(struct seq_set *set, uint64_t seq)
{
	size_t chunk = (size_t)(seq / CHUNK_BITS), word = (size_t)(seq % CHUNK_BITS / 64);
	uint64_t bit = UINT64_C(1) << seq % 64;

	if (chunk >= set->n_chunks) {
		uint64_t **more = realloc(set->chunks, (chunk + 1) * sizeof(*more));

		if (!more)
			err(1, "an account of %zu messages", (chunk + 1) * CHUNK_BITS);
		memset(more + set->n_chunks, 0, (chunk + 1 - set->n_chunks) * sizeof(*more));
		set->chunks = more;
		set->n_chunks = chunk + 1;
	}
	if (!set->chunks[chunk])
		set->chunks[chunk] = need(CHUNK_WORDS, sizeof(uint64_t));
	if (set->chunks[chunk][word] & bit)
		return false;
	set->chunks[chunk][word] |= bit;
	return true;
}

static void set_free(struct seq_set *set)
{
	for (size_t i = 0; i < set->n_chunks; i++)
		free(set->chunks[i]);
	free(set->chunks);
}

struct tally *tally_new(uint64_t expected, int64_t wait_ns)
{
	struct tally *t;

	if (expected > TALLY_MAX)
		errx(2, "%llu messages in a flow: allowed is at most %llu",
			(unsigned long long)expected, (unsigned long long)TALLY_MAX);
	t = need(1, sizeof(*t));
	t->expected = expected;
	t->wait_ns = wait_ns < 0 ? ACCOUNT_NONE : wait_ns;
	t->threshold = TALLY_THRESHOLD;
	return t;
}

void tally_free(struct tally *t)
{
	if (!t)
		return;
	set_free(&t->arrived);
	set_free(&t->doubled);
	free(t->copies);
	free(t);
}

void tally_set_threshold(struct tally *t, unsigned int threshold)
{
	if (threshold < 1)
		threshold = 1;
	t->threshold = threshold > TALLY_THRESHOLD_MAX ? TALLY_THRESHOLD_MAX : threshold;
}

static bool in_range(int64_t ns)
{
	return ns > -TALLY_TIME_MAX && ns < TALLY_TIME_MAX;
}

enum tally_verdict tally_add(struct tally *t, const struct arrival *a)
{
	/*
	 * The range keeps the difference of two delays within 64 bits: a forged time can spoil a
	 * figure but no more.
	 */
	if (a->seq >= (t->expected ? t->expected : TALLY_MAX) || !in_range(a->sent_ns) ||
		!in_range(a->received_ns) || (a->due_ns != TALLY_NO_TIME && !in_range(a->due_ns)))
		return TALLY_ALIEN;
	if (t->wait_ns != ACCOUNT_NONE && a->same_clock &&
		a->received_ns - a->sent_ns > t->wait_ns) {
		t->late++;
		return TALLY_LATE;
	}
	if (!set_add(&t->arrived, a->seq)) {
		t->duplicates++;
		t->replicated += set_add(&t->doubled, a->seq);
		return TALLY_DUPLICATE;
	}
	if (t->n == t->room) {
		t->room = t->room ? 2 * t->room : 64;
		t->copies = realloc(t->copies, t->room * sizeof(*t->copies));
		if (!t->copies)
			err(1, "an account of %zu messages", t->room);
	}
	t->copies[t->n++] = (struct copy){.seq = (uint32_t)a->seq,
		.bytes = a->bytes,
		.due_ns = a->due_ns,
		.sent_ns = a->sent_ns,
		.received_ns = a->received_ns};
	if (a->same_clock)
		t->same_clock = true;
	else
		t->other_clock = true;
	return TALLY_FIRST;
}

const char *tally_verdict_name(enum tally_verdict verdict)
{
	static const char *const names[] = {"first", "duplicate", "late", "alien"};

	return names[verdict];
}

bool tally_complete(const struct tally *t)
{
	return t->expected && t->n == t->expected;
}

uint64_t tally_received(const struct tally *t)
{
	return t->n;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int compare_i64(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/*
 * The flow by number instead of by arrival: seq in the high half, place in the order of arrival in
 * the low, so that one sort of plain integers does it.
 */
static uint64_t *sort_by_seq(const struct tally *t)
{
	uint64_t *by_seq = need(t->n, sizeof(*by_seq));

	for (size_t i = 0; i < t->n; i++)
		by_seq[i] = (uint64_t)t->copies[i].seq << 32 | i;
	qsort(by_seq, t->n, sizeof(*by_seq), compare_u64);
	return by_seq;
}

static size_t place(uint64_t entry)
{
	return (size_t)(uint32_t)entry;
}

static uint32_t number(uint64_t entry)
{
	return (uint32_t)(entry >> 32);
}

static void spread_add(struct account_spread *s, long double *sum, int64_t value)
{
	if (!s->count || value > s->max)
		s->max = value;
	s->count++;
	*sum += (long double)value;
}

static void spread_close(struct account_spread *s, long double sum)
{
	s->mean = s->count ? (double)(sum / (long double)s->count) : (double)NAN;
	if (!s->count)
		s->max = ACCOUNT_NONE;
}

/*
 * A Fenwick tree of bytes by rank: how many bytes have arrived whose rank is r or more. Ranks count
 * from 0.
 */
static void tree_add(uint64_t *tree, size_t n, size_t rank, uint64_t bytes)
{
	for (size_t i = n - rank; i <= n; i += i & -i)
		tree[i - 1] += bytes;
}

static uint64_t tree_sum_from(const uint64_t *tree, size_t n, size_t rank)
{
	uint64_t sum = 0;

	for (size_t i = n - rank; i > 0; i -= i & -i)
		sum += tree[i - 1];
	return sum;
}

/*
 * RFC 4737. The first earlier arrival with a greater number (from which the extent counts) is
 * always one that raised the maximum, so a list of these, ascending by both place and number, is
 * searched by halves.
 */
static size_t first_greater(
	const struct copy *copies, const uint32_t *raisers, size_t n, uint32_t seq)
{
	size_t low = 0;

	while (low < n) {
		size_t mid = low + (n - low) / 2;

		if (copies[raisers[mid]].seq > seq)
			n = mid;
		else
			low = mid + 1;
	}
	return low;
}

/*
 * 4.5: a discontinuity is an arrival that some reordered message's extent counts from; gaps lie
 * between them.
 */
static void account_gaps(struct work *w, const uint32_t *raisers, const bool *broken, size_t n)
{
	size_t last = n;

	for (size_t i = 0; i < n; i++) {
		if (!broken[i])
			continue;
		if (last < n)
			spread_add(&w->out->gaps, &w->gaps, (int64_t)raisers[i] - raisers[last]);
		last = i;
	}
}

/*
 * 5.3: n-reordered is what comes behind n messages in a row that are all greater. How many there
 * are is how far back the nearest smaller one lies, which a stack of ever greater numbers keeps at
 * hand.
 */
static void account_n_reordering(struct work *w, const struct tally *t)
{
	uint32_t *stack = need(t->n, sizeof(*stack));
	size_t depth = 0;

	for (size_t i = 0; i < t->n; i++) {
		size_t run;

		while (depth && t->copies[stack[depth - 1]].seq > t->copies[i].seq)
			depth--;
		run = depth ? i - stack[depth - 1] - 1 : i;
		stack[depth++] = (uint32_t)i;
		w->out->n_reordered[run < TALLY_N_MAX ? run : TALLY_N_MAX]++;
	}
	free(stack);
}

static void account_order(struct work *w, const struct tally *t, const uint64_t *by_seq)
{
	struct account *out = w->out;
	uint32_t *raisers = need(t->n, sizeof(*raisers)), *rank = need(t->n, sizeof(*rank));
	uint64_t *tree = need(t->n, sizeof(*tree));
	bool *broken = need(t->n, sizeof(*broken));
	uint64_t next_expected = 0, run = 0;
	size_t n_raisers = 0;

	for (size_t i = 0; i < t->n; i++)
		rank[place(by_seq[i])] = (uint32_t)i;
	for (size_t i = 0; i < t->n; i++) {
		const struct copy *c = &t->copies[i];

		w->size_missing |= !c->bytes;
		if (c->seq >= next_expected) { /* 3.3: in order */
			next_expected = (uint64_t)c->seq + 1;
			raisers[n_raisers++] = (uint32_t)i;
			run++;
		} else {
			size_t from = first_greater(t->copies, raisers, n_raisers, c->seq);

			broken[from] = true;
			out->reordered++;
			spread_add(&out->extent, &w->extent, (int64_t)(i - raisers[from]));
			spread_add(&out->late_time_ns, &w->late_time,
				c->received_ns - t->copies[raisers[from]].received_ns);
			spread_add(&out->byte_offset, &w->byte_offset,
				(int64_t)tree_sum_from(tree, t->n, rank[i]));
			spread_add(&out->free_runs, &w->free_runs, (int64_t)run);
			run = 0;
		}
		tree_add(tree, t->n, rank[i], c->bytes);
	}
	account_gaps(w, raisers, broken, n_raisers);
	account_n_reordering(w, t);
	free(raisers);
	free(rank);
	free(tree);
	free(broken);
}

/*
 * RFC 5236. Each arrival gets a receive index; its displacement is that minus its number. The index
 * leaves out every number that is lost, which here means: not among those that have had an index,
 * nor among this arrival and the DT behind it. What arrives after its number was left out, or is
 * displaced by more than DT, gets no index.
 */
static void account_density(struct work *w, const struct tally *t, const uint64_t *by_seq)
{
	enum { WAITED_FOR, HAD_AN_INDEX, LEFT_OUT };
	unsigned char *state = need(t->n, sizeof(*state));
	int64_t dt = t->threshold;
	uint64_t index = 0;
	size_t next = 0; /* in by_seq: the first number that is not below the index */

	for (size_t i = 0; i < t->n; i++) {
		int64_t displacement;

		if (state[i] == LEFT_OUT)
			continue;
		/*
		 * This comes to an end: at this arrival's own number; or if the index is beyond
		 * that already, at a number that came early and took an index below itself.
		 */
		while (next < t->n) {
			size_t at = place(by_seq[next]);

			index = number(by_seq[next]) > index ? number(by_seq[next]) : index;
			if (state[at] == HAD_AN_INDEX)
				break;
			if (at <= i + t->threshold && state[at] == WAITED_FOR)
				break;
			state[at] = LEFT_OUT;
			next++;
		}
		displacement = (int64_t)index - t->copies[i].seq;
		if (displacement < -dt || displacement > dt) {
			state[i] = LEFT_OUT;
			continue;
		}
		w->displaced[displacement + dt]++;
		w->out->density_total++;
		state[i] = HAD_AN_INDEX;
		index++;
		if (next < t->n && number(by_seq[next]) < index)
			next++;
	}
	free(state);
}

/* Between two that arrived lie the lost; before the first and behind the last as well. */
static void account_bursts(struct work *w, const struct tally *t, const uint64_t *by_seq)
{
	uint64_t next = 0;

	for (size_t i = 0; i <= t->n; i++) {
		uint64_t seq = i < t->n ? number(by_seq[i]) : t->expected;

		if (seq > next)
			w->bursts[w->n_bursts++] = seq - next;
		next = seq + 1;
	}
}

/*
 * Delay without the question of clocks: a difference of two of these is right whatever the clocks'
 * offset.
 */
static int64_t transit(const struct copy *c)
{
	return c->received_ns - c->sent_ns;
}

/* RFC 3393 with the selection function "consecutive numbers, both arrived". */
static void account_ipdv(struct work *w, const struct tally *t, const uint64_t *by_seq)
{
	for (size_t i = 1; i < t->n; i++) {
		int64_t ns;

		if (number(by_seq[i]) != number(by_seq[i - 1]) + 1)
			continue;
		ns = transit(&t->copies[place(by_seq[i])]) -
		     transit(&t->copies[place(by_seq[i - 1])]);
		if (!w->out->ipdv.count || ns < w->out->ipdv.min_ns)
			w->out->ipdv.min_ns = ns;
		if (!w->out->ipdv.count || ns > w->out->ipdv.max_ns)
			w->out->ipdv.max_ns = ns;
		w->out->ipdv.count++;
		w->ipdv += (long double)ns;
		w->ipdv_abs += fabsl((long double)ns);
	}
}

/* RFC 3550 6.4.1: J += (|D| - J) / 16, from 0, over first copies in the order of arrival. */
static double jitter(const struct tally *t)
{
	double j = 0;

	if (t->n < 2)
		return (double)NAN;
	for (size_t i = 1; i < t->n; i++) {
		int64_t d = transit(&t->copies[i]) - transit(&t->copies[i - 1]);

		j += (fabs((double)d) - j) / 16;
	}
	return j;
}

/*
 * The rank counts from 1 over all, and the lost stand behind the samples: ceil(all * thousandths /
 * 1000).
 */
static int64_t nearest_rank(const int64_t *sorted, size_t n, uint64_t all, uint64_t thousandths)
{
	uint64_t rank = (all * thousandths + 999) / 1000;

	return rank >= 1 && rank <= n ? sorted[rank - 1] : ACCOUNT_NONE;
}

static double mean(const int64_t *ns, size_t n)
{
	long double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (long double)ns[i];
	return n ? (double)(sum / (long double)n) : (double)NAN;
}

/*
 * *d of n sorted delays and of those lost that are known of; `problem` says why these are no delays
 * at all.
 */
static void account_delay(struct account_delay *d, const int64_t *sorted, size_t n,
	const struct account *a, const char *problem)
{
	uint64_t lost = a->lost == ACCOUNT_NONE ? 0 : (uint64_t)a->lost, all = n + lost;

	*d = (struct account_delay){.min_ns = ACCOUNT_NONE,
		.mean_ns = (double)NAN,
		.p50_ns = ACCOUNT_NONE,
		.p90_ns = ACCOUNT_NONE,
		.p99_ns = ACCOUNT_NONE,
		.p99_9_ns = ACCOUNT_NONE,
		.max_ns = ACCOUNT_NONE};
	d->censored = lost > 0;
	if (!a->received)
		d->reason = "no message arrived in time";
	else if (problem)
		d->reason = problem;
	else if (n != a->received)
		d->reason = n ? "not every message says when it was due"
			      : "no message says when it was due";
	else if (sorted[0] < 0)
		d->reason = "received before it was sent: the clocks are not one";
	if (d->reason)
		return;
	if (a->lost == ACCOUNT_NONE)
		d->reason = "the count was not told: lost messages are not among the samples";
	d->samples = n;
	d->min_ns = sorted[0];
	d->mean_ns = mean(sorted, n);
	d->p50_ns = nearest_rank(sorted, n, all, 500);
	d->p90_ns = nearest_rank(sorted, n, all, 900);
	d->p99_ns = nearest_rank(sorted, n, all, 990);
	d->p99_9_ns = nearest_rank(sorted, n, all, 999);
	d->max_ns = nearest_rank(sorted, n, all, 1000);
}

/* RFC 5481 4.2: the same samples, from the smallest. */
static void account_pdv(struct account *a, const int64_t *sorted, size_t n)
{
	uint64_t all = n + (a->lost == ACCOUNT_NONE ? 0 : (uint64_t)a->lost);
	int64_t p50 = nearest_rank(sorted, n, all, 500), p99 = nearest_rank(sorted, n, all, 990),
		max = nearest_rank(sorted, n, all, 1000);

	long double sum = 0;

	/* Summed from the smallest on: with the clocks far apart, the mean would drown it. */
	for (size_t i = 0; i < n; i++)
		sum += (long double)(sorted[i] - sorted[0]);
	a->pdv.count = n;
	a->pdv.mean_ns = (double)(sum / (long double)n);
	a->pdv.p50_ns = p50 == ACCOUNT_NONE ? p50 : p50 - sorted[0];
	a->pdv.p99_ns = p99 == ACCOUNT_NONE ? p99 : p99 - sorted[0];
	a->pdv.max_ns = max == ACCOUNT_NONE ? max : max - sorted[0];
}

static void close_bursts(struct work *w)
{
	struct account *a = w->out;
	long double sum = 0;

	qsort(w->bursts, w->n_bursts, sizeof(*w->bursts), compare_u64);
	a->burst_lengths = need(w->n_bursts, sizeof(*a->burst_lengths));
	for (size_t i = 0; a->lost != ACCOUNT_NONE && i < w->n_bursts; i++) {
		int64_t length = (int64_t)w->bursts[i];

		spread_add(&a->bursts, &sum, length);
		if (!a->n_burst_lengths || a->burst_lengths[a->n_burst_lengths - 1].value != length)
			a->burst_lengths[a->n_burst_lengths++].value = length;
		a->burst_lengths[a->n_burst_lengths - 1].count++;
	}
	spread_close(&a->bursts, sum);
}

static double ratio(uint64_t part, uint64_t whole)
{
	return whole ? (double)part / (double)whole : (double)NAN;
}

static void close_order(struct work *w)
{
	struct account *a = w->out;

	a->reordered_ratio = ratio(a->reordered, a->received);
	spread_close(&a->extent, w->extent);
	spread_close(&a->late_time_ns, w->late_time);
	if (w->size_missing)
		a->byte_offset.count = 0;
	spread_close(&a->byte_offset, w->byte_offset);
	spread_close(&a->gaps, w->gaps);
	spread_close(&a->free_runs, w->free_runs);
	/*
	 * Until here each was counted under its greatest n; n-reordered is (n - 1)-reordered as
	 * well.
	 */
	for (unsigned int n = TALLY_N_MAX; n > 1; n--)
		a->n_reordered[n - 1] += a->n_reordered[n];
	a->n_reordered[0] = 0;
	while (a->n_reordered_max < TALLY_N_MAX && a->n_reordered[a->n_reordered_max + 1])
		a->n_reordered_max++;
	a->density = need(2 * (size_t)a->threshold + 1, sizeof(*a->density));
	for (size_t i = 0; a->threshold && i <= 2 * (size_t)a->threshold; i++)
		if (w->displaced[i])
			a->density[a->n_density++] =
				(struct account_count){(int64_t)i - a->threshold, w->displaced[i]};
}

/* Fills in what adds up; the rest of *a is as for one flow of which nothing is known. */
static void account_counts(struct account *a, struct tally *const flows[], size_t n)
{
	uint64_t replicated = 0;

	a->flows = n;
	a->expected = 0;
	a->waiting_time_ns = flows[0]->wait_ns;
	a->threshold = flows[0]->threshold;
	for (size_t i = 0; i < n; i++) {
		const struct tally *t = flows[i];

		a->received += t->n;
		a->duplicates += t->duplicates;
		a->late += t->late;
		replicated += t->replicated;
		if (!t->expected || a->expected == ACCOUNT_NONE)
			a->expected = ACCOUNT_NONE;
		else
			a->expected += (int64_t)t->expected;
		if (t->wait_ns != a->waiting_time_ns)
			a->waiting_time_ns = ACCOUNT_NONE;
		if (t->threshold != a->threshold)
			a->threshold = 0;
	}
	a->lost = ACCOUNT_NONE;
	a->loss_ratio = (double)NAN;
	if (a->expected != ACCOUNT_NONE) {
		a->lost = a->expected - (int64_t)a->received;
		a->loss_ratio = ratio((uint64_t)a->lost, (uint64_t)a->expected);
	}
	a->duplicate_fraction = ratio(a->duplicates, a->received);
	a->replicated_rate = ratio(replicated, a->received);
}

void tally_account(struct tally *const flows[], size_t n, struct account *out)
{
	struct work *w = need(1, sizeof(*w));
	bool other_clock = false, mixed = false;
	const char *problem = NULL;

	memset(out, 0, sizeof(*out));
	account_counts(out, flows, n);
	w->out = out;
	w->due = need(out->received, sizeof(*w->due));
	w->sent = need(out->received, sizeof(*w->sent));
	w->bursts = need(
		out->received + n, sizeof(*w->bursts)); /* one before each, one behind the last */
	for (size_t i = 0; i < n; i++) {
		const struct tally *t = flows[i];
		uint64_t *by_seq = sort_by_seq(t);

		account_order(w, t, by_seq);
		if (out->threshold)
			account_density(w, t, by_seq);
		if (out->lost != ACCOUNT_NONE)
			account_bursts(w, t, by_seq);
		account_ipdv(w, t, by_seq);
		for (size_t j = 0; j < t->n; j++) {
			const struct copy *c = &t->copies[j];

			w->sent[w->n_sent++] = transit(c);
			if (c->due_ns != TALLY_NO_TIME)
				w->due[w->n_due++] = c->received_ns - c->due_ns;
		}
		mixed |= t->same_clock && t->other_clock;
		other_clock |= t->other_clock;
		free(by_seq);
	}
	if (other_clock)
		problem = "sent and received are read off two clocks";
	qsort(w->due, w->n_due, sizeof(*w->due), compare_i64);
	qsort(w->sent, w->n_sent, sizeof(*w->sent), compare_i64);
	account_delay(&out->from_due, w->due, w->n_due, out, problem);
	account_delay(&out->from_sent, w->sent, w->n_sent, out, problem);
	out->jitter_ns = (double)NAN;
	if (mixed) { /* the clocks' offset does not cancel */
		out->ipdv.count = 0;
	} else if (n == 1 && out->received) {
		out->jitter_ns = jitter(flows[0]);
		account_pdv(out, w->sent, w->n_sent);
	}
	if (out->ipdv.count) {
		out->ipdv.mean_ns = (double)(w->ipdv / (long double)out->ipdv.count);
		out->ipdv.mean_abs_ns = (double)(w->ipdv_abs / (long double)out->ipdv.count);
	}
	close_order(w);
	close_bursts(w);
	free(w->due);
	free(w->sent);
	free(w->bursts);
	free(w);
}

void account_free(struct account *a)
{
	free(a->density);
	free(a->burst_lengths);
	a->density = NULL;
	a->burst_lengths = NULL;
}
