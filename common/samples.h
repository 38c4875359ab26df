/*
 * samples: a heap of measured times, kept whole, so that percentiles are exact and not estimates.
 * It never sees where they come from.
 */
#ifndef COMMON_SAMPLES_H
#define COMMON_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

struct samples {
	int64_t *ns;
	size_t n, room;
};

/*
 * Start with an empty struct ({0}). Exits with err(3) when there is no memory. After SAMPLES_MAX
 * (128 MB) nothing more is taken in: what is said is then said of the first so many.
 */
#define SAMPLES_MAX (1 << 24)
void samples_add(struct samples *s, int64_t ns);

/* Adds all of more to s. */
void samples_merge(struct samples *s, const struct samples *more);

void samples_free(struct samples *s);

/* What is to be said of a heap; SAMPLES_NONE where there is no such number. */
#define SAMPLES_NONE INT64_MIN
struct samples_summary {
	int64_t min, mean, p50, p90, p99, max;
};

/*
 * Nearest rank over all n samples and `lost` further ones that stand at infinity: with 2 % lost
 * there is no p99, and one lost leaves no max (RFC 7679 section 5 give the lost an
 * infinite delay). The mean is of what arrived. Sorts s.
 */
void samples_summarize(struct samples *s, uint64_t lost, struct samples_summary *summary);

#endif
