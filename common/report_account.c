#include "common/report_account.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

static void json_int(FILE *out, const char *name, int64_t value)
{
	if (value == ACCOUNT_NONE)
		fprintf(out, "\"%s\":null", name);
	else
		fprintf(out, "\"%s\":%" PRId64, name, value);
}

/* As few digits as read back as the very same number. */
static void json_num(FILE *out, const char *name, double value)
{
	char text[32];

	if (!isfinite(value)) {
		fprintf(out, "\"%s\":null", name);
		return;
	}
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, value);
		if (strtod(text, NULL) >= value && strtod(text, NULL) <= value)
			break;
	}
	fprintf(out, "\"%s\":%s", name, text);
}

static void json_spread(FILE *out, const char *name, const struct account_spread *s, bool count)
{
	fprintf(out, "\"%s\":{", name);
	if (count)
		fprintf(out, "\"count\":%" PRIu64 ",", s->count);
	json_num(out, "mean", s->mean);
	fputc(',', out);
	json_int(out, "max", s->max);
	fputc('}', out);
}

static void json_order(FILE *out, const struct account *a)
{
	fprintf(out, "\"order\":{");
	json_num(out, "reordered_ratio", a->reordered_ratio);
	fputc(',', out);
	json_spread(out, "extent", &a->extent, false);
	fputc(',', out);
	json_spread(out, "late_time_ns", &a->late_time_ns, false);
	fputc(',', out);
	json_spread(out, "byte_offset", &a->byte_offset, false);
	fputc(',', out);
	json_spread(out, "gaps", &a->gaps, true);
	fputc(',', out);
	json_spread(out, "free_runs", &a->free_runs, true);
	fprintf(out, ",\"n_reordered\":[");
	for (unsigned int n = 1; n <= a->n_reordered_max; n++)
		fprintf(out, "%s{\"n\":%u,\"count\":%" PRIu64 "}", n > 1 ? "," : "", n,
			a->n_reordered[n]);
	fprintf(out, "],\"density\":");
	if (!a->threshold) {
		fprintf(out, "null}");
		return;
	}
	fprintf(out, "{\"threshold\":%u,\"values\":[", a->threshold);
	for (size_t i = 0; i < a->n_density; i++) {
		fprintf(out, "%s{\"displacement\":%" PRId64 ",", i ? "," : "", a->density[i].value);
		json_num(out, "fraction", (double)a->density[i].count / (double)a->density_total);
		fputc('}', out);
	}
	fprintf(out, "]}}");
}

static void json_bursts(FILE *out, const struct account *a)
{
	if (a->lost == ACCOUNT_NONE) {
		fprintf(out,
			"\"bursts\":{\"count\":null,\"mean\":null,\"max\":null,\"lengths\":null}");
		return;
	}
	fprintf(out, "\"bursts\":{\"count\":%" PRIu64 ",", a->bursts.count);
	json_num(out, "mean", a->bursts.mean);
	fputc(',', out);
	json_int(out, "max", a->bursts.max);
	fprintf(out, ",\"lengths\":[");
	for (size_t i = 0; i < a->n_burst_lengths; i++)
		fprintf(out, "%s{\"length\":%" PRId64 ",\"count\":%" PRIu64 "}", i ? "," : "",
			a->burst_lengths[i].value, a->burst_lengths[i].count);
	fprintf(out, "]}");
}

static void json_delay(FILE *out, const char *name, const struct account_delay *d)
{
	fprintf(out, "\"%s\":{\"samples\":%" PRIu64 ",", name, d->samples);
	json_int(out, "min", d->min_ns);
	fputc(',', out);
	json_num(out, "mean", d->mean_ns);
	fputc(',', out);
	json_int(out, "p50", d->p50_ns);
	fputc(',', out);
	json_int(out, "p90", d->p90_ns);
	fputc(',', out);
	json_int(out, "p99", d->p99_ns);
	fputc(',', out);
	json_int(out, "p99_9", d->p99_9_ns);
	fputc(',', out);
	json_int(out, "max", d->max_ns);
	fprintf(out, ",\"censored\":%s,\"reason\":", d->censored ? "true" : "false");
	if (d->reason)
		fprintf(out, "\"%s\"}", d->reason); /* plain text of tally's own */
	else
		fprintf(out, "null}");
}

static void json_jitter(FILE *out, const struct account *a)
{
	fprintf(out, "\"jitter_ns\":{");
	json_num(out, "rfc3550", a->jitter_ns);
	fprintf(out, ",\"ipdv\":");
	if (a->ipdv.count) {
		fputc('{', out);
		json_int(out, "min", a->ipdv.min_ns);
		fputc(',', out);
		json_num(out, "mean", a->ipdv.mean_ns);
		fputc(',', out);
		json_int(out, "max", a->ipdv.max_ns);
		fputc(',', out);
		json_num(out, "mean_abs", a->ipdv.mean_abs_ns);
		fputc('}', out);
	} else {
		fprintf(out, "null");
	}
	fprintf(out, ",\"pdv\":");
	if (a->pdv.count) {
		fputc('{', out);
		json_num(out, "mean", a->pdv.mean_ns);
		fputc(',', out);
		json_int(out, "p50", a->pdv.p50_ns);
		fputc(',', out);
		json_int(out, "p99", a->pdv.p99_ns);
		fputc(',', out);
		json_int(out, "max", a->pdv.max_ns);
		fputc('}', out);
	} else {
		fprintf(out, "null");
	}
	fputc('}', out);
}

void report_account_json(FILE *out, const struct account *a)
{
	fputc('{', out);
	json_int(out, "expected", a->expected);
	fprintf(out, ",\"received\":%" PRIu64 ",", a->received);
	json_int(out, "lost", a->lost);
	fprintf(out, ",\"duplicates\":%" PRIu64 ",\"reordered\":%" PRIu64 ",\"late\":%" PRIu64 ",",
		a->duplicates, a->reordered, a->late);
	json_int(out, "waiting_time_ns", a->waiting_time_ns);
	fputc(',', out);
	json_num(out, "loss_ratio", a->loss_ratio);
	fputc(',', out);
	json_num(out, "duplicate_fraction", a->duplicate_fraction);
	fputc(',', out);
	json_num(out, "replicated_rate", a->replicated_rate);
	fputc(',', out);
	json_order(out, a);
	fputc(',', out);
	json_bursts(out, a);
	fputc(',', out);
	json_delay(out, "delay_from_due_ns", &a->from_due);
	fputc(',', out);
	json_delay(out, "delay_from_sent_ns", &a->from_sent);
	fputc(',', out);
	json_jitter(out, a);
	fputc('}', out);
}

/* One unit throughout, as ping has it, so that columns can be compared. */
static double ms(double ns)
{
	return ns / 1e6;
}

/* A percentile that falls on a lost message is no number at all. */
static void text_ms(FILE *out, const char *name, int64_t ns)
{
	if (ns == ACCOUNT_NONE)
		fprintf(out, "  %s lost", name);
	else
		fprintf(out, "  %s %.3f", name, ms((double)ns));
}

static void text_delay(FILE *out, const char *name, const struct account_delay *d)
{
	fprintf(out, "%-11s", name);
	if (!d->samples) {
		fprintf(out, "not known: %s\n", d->reason);
		return;
	}
	fprintf(out, "min %.3f  mean %.3f", ms((double)d->min_ns), ms(d->mean_ns));
	text_ms(out, "p50", d->p50_ns);
	text_ms(out, "p90", d->p90_ns);
	text_ms(out, "p99", d->p99_ns);
	text_ms(out, "p99.9", d->p99_9_ns);
	text_ms(out, "max", d->max_ns);
	fprintf(out, " ms%s%s%s\n", d->reason ? " (" : "", d->reason ? d->reason : "",
		d->reason ? ")" : "");
}

static void text_loss(FILE *out, const struct account *a)
{
	fprintf(out, "%-11s", "messages");
	if (a->lost == ACCOUNT_NONE)
		fprintf(out, "%" PRIu64 " received, lost not known (the count was not told)",
			a->received);
	else
		fprintf(out,
			"%" PRId64 " expected, %" PRIu64 " received, %" PRId64 " lost (%.3g %%)",
			a->expected, a->received, a->lost, a->expected ? 100 * a->loss_ratio : 0.0);
	fprintf(out, ", %" PRIu64 " duplicates", a->duplicates);
	if (a->waiting_time_ns != ACCOUNT_NONE)
		fprintf(out, ", %" PRIu64 " late (over %.3f ms)", a->late,
			ms((double)a->waiting_time_ns));
	else if (a->late)
		fprintf(out, ", %" PRIu64 " late", a->late);
	fputc('\n', out);
	if (a->lost != ACCOUNT_NONE && a->lost)
		fprintf(out, "%-11s%" PRIu64 " bursts of loss, mean %.3g, longest %" PRId64 "\n",
			"", a->bursts.count, a->bursts.mean, a->bursts.max);
}

/* Never the ratio alone: one message that came early tags all that it overtook. */
static void text_order(FILE *out, const struct account *a)
{
	fprintf(out, "%-11s%" PRIu64 " reordered", "order", a->reordered);
	if (!a->reordered) {
		fputc('\n', out);
		return;
	}
	fprintf(out, " (%.3g %%), extent mean %.3g max %" PRId64 ", late by mean %.3f max %.3f ms",
		100 * a->reordered_ratio, a->extent.mean, a->extent.max, ms(a->late_time_ns.mean),
		ms((double)a->late_time_ns.max));
	if (a->byte_offset.count)
		fprintf(out, ", up to %" PRId64 " bytes held", a->byte_offset.max);
	fprintf(out, "\n%-11sn-reordered", "");
	for (unsigned int n = 1; n <= 3; n++)
		fprintf(out, "  %u: %" PRIu64, n, a->n_reordered[n]);
	fprintf(out, "  greatest n: %u%s\n", a->n_reordered_max,
		a->n_reordered_max == TALLY_N_MAX ? " or more" : "");
}

void report_account_text(FILE *out, const struct account *a)
{
	text_loss(out, a);
	text_order(out, a);
	text_delay(out, "from due", &a->from_due);
	text_delay(out, "from sent", &a->from_sent);
	fprintf(out, "%-11s", "jitter");
	if (a->flows > 1)
		fprintf(out, "by flow only");
	else if (isfinite(a->jitter_ns))
		fprintf(out, "%.3f ms (RFC 3550)", ms(a->jitter_ns));
	else
		fprintf(out, "not known");
	if (a->ipdv.count)
		fprintf(out, ", from one to the next mean %.3f max %.3f ms",
			ms(a->ipdv.mean_abs_ns), ms((double)a->ipdv.max_ns));
	fputc('\n', out);
}
