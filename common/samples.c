#include "common/samples.h"

#include <err.h>
#include <stdlib.h>
#include <string.h>

static void make_room(struct samples *s, size_t more)
{
	if (s->n + more <= s->room)
		return;
	s->room = 2 * (s->n + more) + 64;
	s->ns = realloc(s->ns, s->room * sizeof(*s->ns));
	if (!s->ns)
		err(1, "%zu samples", s->room);
}

void samples_add(struct samples *s, int64_t ns)
{
	if (s->n >= SAMPLES_MAX)
		return;
	make_room(s, 1);
	s->ns[s->n++] = ns;
}

void samples_merge(struct samples *s, const struct samples *more)
{
	if (!more->n)
		return;
	make_room(s, more->n);
	memcpy(s->ns + s->n, more->ns, more->n * sizeof(*s->ns));
	s->n += more->n;
}

void samples_free(struct samples *s)
{
	free(s->ns);
	*s = (struct samples){0};
}

static int ascending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/*
 * The smallest sample that at least percent of all are not above: rank ceil(percent / 100 * all),
 * from 1.
 */
static int64_t nearest_rank(const struct samples *s, uint64_t all, uint64_t percent)
{
	uint64_t rank = (all * percent + 99) / 100;

	return rank >= 1 && rank <= s->n ? s->ns[rank - 1] : SAMPLES_NONE;
}

void samples_summarize(struct samples *s, uint64_t lost, struct samples_summary *summary)
{
	uint64_t all = s->n + lost;
	double sum = 0;

	if (s->n)
		qsort(s->ns, s->n, sizeof(*s->ns), ascending);
	for (size_t i = 0; i < s->n; i++)
		sum += (double)s->ns[i];
	summary->min = s->n ? s->ns[0] : SAMPLES_NONE;
	summary->mean = s->n ? (int64_t)(sum / (double)s->n) : SAMPLES_NONE;
	summary->p50 = nearest_rank(s, all, 50);
	summary->p90 = nearest_rank(s, all, 90);
	summary->p99 = nearest_rank(s, all, 99);
	summary->max = nearest_rank(s, all, 100);
}
