/*
 * account: judges a trace without a network: loss, duplicates, order, delay and its variation, from
 * a CSV file, by the same rules as a receiver's own account (tally). It has no twin: there is no
 * socket in it.
 */
#include "common/options.h"
#include "common/report.h"
#include "common/report_account.h"
#include "common/tally.h"

#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum column { FLOW, SEQ, DUE, SENT, RECEIVED, BYTES, VERDICT, N_COLUMNS };
static const char *const column_names[N_COLUMNS] = {
	"flow", "seq", "due_ns", "sent_ns", "received_ns", "bytes", "verdict"};

#define FIELDS_MAX 64

struct row {
	uint64_t seq;
	int64_t due_ns, sent_ns, received_ns;
	size_t line;
	uint32_t flow, bytes;
	bool lost;
};

struct trace {
	const char *name;
	size_t line;			/* that is being read, from 1 */
	enum column fields[FIELDS_MAX]; /* what stands where; N_COLUMNS: of no interest */
	size_t n_fields;
	struct row *rows;
	size_t n, room;
	bool arrivals_only; /* a receiver's log: what is not in it may have been sent */
};

struct order {
	const char *file;
	uint64_t count, first;
	int64_t wait_ns; /* below 0: none */
	unsigned int threshold;
	bool first_told, two_clocks, json, quiet;
};

/* One flow of the trace and what came of it. */
struct flow {
	uint32_t number;
	struct tally *tally;
	uint64_t alien;
};

static void help(void)
{
	printf("account: judges a trace: loss, duplicates, order, delay\n\n"
	       "usage: account [option ...] FILE.csv      (- is the standard input)\n\n"
	       "  -c, --count N            messages that each flow was sent, numbers 0 to N - 1\n"
	       "  -W, --wait TIME          later than this is lost; without it, nothing is late\n"
	       "      --first N            the number of a flow's first message, instead of 0\n"
	       "      --threshold DT       of the reorder density, 1 to 1000, instead of 8\n"
	       "      --two-clocks         sent_ns and received_ns were read off two clocks\n"
	       "  -q, --quiet              the sum of all flows only\n"
	       "  -J, --json               one JSON object instead of text\n"
	       "  -h, --help               this text\n"
	       "      --version            the version\n\n"
	       "The columns are seq,sent_ns,received_ns, or named by the first line, in any order: "
	       "these three,\n"
	       "and flow, due_ns, bytes, verdict if there are any; others are passed over. An "
	       "empty received_ns\n"
	       "is a message that was lost. The order of arrival is that of received_ns, then of "
	       "the lines.\n"
	       "Without -c a trace is taken to list all that was sent, from its lowest number to "
	       "its highest;\n"
	       "but a receiver's --log lists what arrived, and without -c its losses are not "
	       "known.\n"
	       "Times on the command line take ns, us, ms, s, min.\n"
	       "Exit: 0 all well, 1 failed, 2 usage or a bad line, 3 messages are missing.\n");
}

static struct order read_options(int argc, char **argv)
{
	static const struct option longs[] = {{"count", required_argument, NULL, 'c'},
		{"wait", required_argument, NULL, 'W'}, {"first", required_argument, NULL, 'f'},
		{"threshold", required_argument, NULL, 't'}, {"two-clocks", no_argument, NULL, '2'},
		{"quiet", no_argument, NULL, 'q'}, {"json", no_argument, NULL, 'J'},
		{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0}};
	struct order o = {.wait_ns = -1, .threshold = TALLY_THRESHOLD};
	uint64_t number;

	opterr = 0;
	for (;;) {
		int at = optind, letter = getopt_long(argc, argv, ":c:W:qJh", longs, NULL);
		if (letter == -1)
			break;
		switch (letter) {
		case 'c':
			if (!options_number(optarg, 1, TALLY_MAX, &o.count))
				errx(2, "-c '%s' (--count): allowed is 1 to %" PRIu64, optarg,
					TALLY_MAX);
			break;
		case 'W':
			if (!options_duration(optarg, 0, INT64_C(86400000000000), &o.wait_ns))
				errx(2,
					"-W '%s' (--wait): allowed is 0 to 24h, with ns, us, ms, "
					"s, min, h",
					optarg);
			break;
		case 'f':
			if (!options_number(optarg, 0, UINT64_MAX, &o.first))
				errx(2, "--first '%s': allowed is 0 to %" PRIu64, optarg,
					UINT64_MAX);
			o.first_told = true;
			break;
		case 't':
			if (!options_number(optarg, 1, TALLY_THRESHOLD_MAX, &number))
				errx(2, "--threshold '%s': allowed is 1 to %d", optarg,
					TALLY_THRESHOLD_MAX);
			o.threshold = (unsigned int)number;
			break;
		case '2':
			o.two_clocks = true;
			break;
		case 'q':
			o.quiet = true;
			break;
		case 'J':
			o.json = true;
			break;
		case 'h':
			help();
			exit(0);
		case 'V':
			printf("account (socklab) %s\n", SOCKLAB_VERSION);
			exit(0);
		case ':':
			errx(2, "%s: a value is missing; --help says what is allowed",
				argv[optind - 1]);
		default:
			errx(2, "%s: not an option of this program; --help lists them",
				argv[at < argc ? at : argc - 1]);
		}
	}
	if (optind == argc)
		errx(2, "FILE: missing; allowed is the name of a CSV file, or - for the standard "
			"input");
	o.file = argv[optind++];
	if (optind < argc)
		errx(2, "'%s': one argument too many; --help says what is allowed", argv[optind]);
	return o;
}

/*
 * The one line for what the trace has wrong; `value` may hold anything at all, so it is shown with
 * care.
 */
static _Noreturn void bad_value(
	const struct trace *t, const char *column, const char *value, const char *allowed)
{
	char shown[41];

	snprintf(shown, sizeof(shown), "%s", value);
	for (char *c = shown; *c; c++)
		if (!isprint((unsigned char)*c))
			*c = '?';
	errx(2, "%s:%zu: %s '%s': allowed is %s", t->name, t->line, column, shown, allowed);
}

/* Cuts the line at its commas; returns how many fields there are, at most FIELDS_MAX + 1. */
static size_t split(char *line, char *fields[FIELDS_MAX])
{
	size_t n = 0;

	for (char *next = line; next; line = next) {
		next = strchr(line, ',');
		if (next)
			*next++ = '\0';
		if (n == FIELDS_MAX)
			return FIELDS_MAX + 1;
		fields[n++] = line;
	}
	return n;
}

static bool has_column(const struct trace *t, enum column column)
{
	for (size_t i = 0; i < t->n_fields; i++)
		if (t->fields[i] == column)
			return true;
	return false;
}

/*
 * The first line names the columns, unless it begins with a number: then they are the three that a
 * trace must have.
 */
static bool read_header(struct trace *t, char **fields, size_t n)
{
	static const enum column needed[] = {SEQ, SENT, RECEIVED};

	if (isdigit((unsigned char)fields[0][0])) {
		t->n_fields = sizeof(needed) / sizeof(needed[0]);
		memcpy(t->fields, needed, sizeof(needed));
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		enum column c = FLOW;

		while (c < N_COLUMNS && strcmp(fields[i], column_names[c]) != 0)
			c++;
		if (c < N_COLUMNS && has_column(t, c))
			bad_value(t, "column", fields[i], "each once");
		t->fields[i] = c;
		t->n_fields = i + 1;
	}
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (!has_column(t, needed[i]))
			bad_value(t, "columns", fields[0],
				"a first line that names seq, sent_ns and received_ns (or none, "
				"and just these)");
	return true;
}

static int64_t time_value(const struct trace *t, enum column column, const char *text)
{
	uint64_t magnitude;

	if (!options_number(text + (*text == '-'), 0, (uint64_t)TALLY_TIME_MAX - 1, &magnitude))
		bad_value(t, column_names[column], text,
			"whole nanoseconds below 2305843009213693952, either side of 0");
	return *text == '-' ? -(int64_t)magnitude : (int64_t)magnitude;
}

static void take(struct trace *t, struct row *r, enum column column, const char *text)
{
	uint64_t number = 0;

	switch (column) {
	case FLOW:
		if (!options_number(text, 0, UINT32_MAX, &number))
			bad_value(t, "flow", text, "0 to 4294967295");
		r->flow = (uint32_t)number;
		break;
	case SEQ:
		if (!options_number(text, 0, UINT64_MAX, &r->seq))
			bad_value(t, "seq", text, "0 to 18446744073709551615");
		break;
	case DUE:
		if (*text)
			r->due_ns = time_value(t, column, text);
		break;
	case SENT:
		if (*text)
			r->sent_ns = time_value(t, column, text);
		break;
	case RECEIVED:
		r->lost = !*text;
		if (*text)
			r->received_ns = time_value(t, column, text);
		break;
	case BYTES:
		if (*text && !options_number(text, 0, UINT32_MAX, &number))
			bad_value(t, "bytes", text, "0 to 4294967295");
		r->bytes = (uint32_t)number;
		break;
	case VERDICT:
		if (!strcmp(text, "first") || !strcmp(text, "duplicate") || !strcmp(text, "late"))
			t->arrivals_only = true;
		else if (strcmp(text, "reply") != 0 && strcmp(text, "lost") != 0)
			bad_value(t, "verdict", text, "first, duplicate, late, reply, lost");
		break;
	case N_COLUMNS:
	default:
		break;
	}
}

static void read_row(struct trace *t, char **fields, size_t n)
{
	struct row r = {.due_ns = TALLY_NO_TIME, .sent_ns = TALLY_NO_TIME, .line = t->line};

	if (n != t->n_fields)
		errx(2, "%s:%zu: %zu%s fields: allowed is %zu, as many as there are columns",
			t->name, t->line, n > FIELDS_MAX ? (size_t)FIELDS_MAX : n,
			n > FIELDS_MAX ? " and more" : "", t->n_fields);
	for (size_t i = 0; i < n; i++)
		take(t, &r, t->fields[i], fields[i]);
	if (!r.lost && r.sent_ns == TALLY_NO_TIME)
		bad_value(t, "sent_ns", "", "a time, for what was received");
	if (t->n == t->room) {
		t->room = t->room ? 2 * t->room : 1024;
		t->rows = realloc(t->rows, t->room * sizeof(*t->rows));
		if (!t->rows)
			err(1, "%s: %zu lines", t->name, t->room);
	}
	t->rows[t->n++] = r;
}

static void read_trace(struct trace *t, FILE *in)
{
	static const char byte_order_mark[] = "\xef\xbb\xbf";
	char *line = NULL, *fields[FIELDS_MAX];
	size_t room = 0, n;
	ssize_t len;

	while ((len = getline(&line, &room, in)) != -1) {
		char *start = line;

		t->line++;
		if (t->line == 1 && !strncmp(line, byte_order_mark, 3))
			start += 3;
		if (strlen(line) != (size_t)len)
			bad_value(t, "line", line, "text without NUL bytes");
		start[strcspn(start, "\r\n")] = '\0';
		if (!*start)
			continue;
		n = split(start, fields);
		if (!t->n_fields) {
			if (n > FIELDS_MAX)
				bad_value(t, "columns", fields[0], "at most 64");
			if (read_header(t, fields, n))
				continue;
		}
		read_row(t, fields, n);
	}
	if (ferror(in))
		err(1, "%s", t->name);
	if (!t->n_fields)
		errx(2, "%s: empty: allowed is one line for each message: seq,sent_ns,received_ns",
			t->name);
	free(line);
}

/* By flow, then in the order of arrival, and what was lost at the end. */
static int compare_rows(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	if (x->flow != y->flow)
		return x->flow < y->flow ? -1 : 1;
	if (x->lost != y->lost)
		return x->lost ? 1 : -1;
	if (!x->lost && x->received_ns != y->received_ns)
		return x->received_ns < y->received_ns ? -1 : 1;
	return x->line < y->line ? -1 : x->line > y->line;
}

/*
 * How many messages the n rows of a flow say were sent, and from which number on; 0 where they do
 * not say.
 */
static uint64_t sent_by_rows(
	const struct trace *t, const struct row *rows, size_t n, uint64_t *first, bool first_told)
{
	uint64_t low = UINT64_MAX, high = 0;

	for (size_t i = 0; i < n; i++) {
		low = rows[i].seq < low ? rows[i].seq : low;
		high = rows[i].seq > high ? rows[i].seq : high;
	}
	if (t->arrivals_only || !n)
		return 0;
	if (!first_told)
		*first = low;
	if (high < *first)
		return 0;
	if (high - *first >= TALLY_MAX)
		errx(2,
			"%s: flow %" PRIu32 ": numbers from %" PRIu64 " to %" PRIu64
			": allowed are %" PRIu64 " messages; -c says how many there are",
			t->name, rows[0].flow, *first, high, TALLY_MAX);
	return high - *first + 1;
}

static struct flow judge_flow(
	const struct order *o, const struct trace *t, const struct row *rows, size_t n)
{
	uint64_t first = o->first, expected = o->count;
	struct flow f = {.number = n ? rows[0].flow : 0};

	if (!expected)
		expected = sent_by_rows(t, rows, n, &first, o->first_told);
	f.tally = tally_new(expected, o->wait_ns);
	tally_set_threshold(f.tally, o->threshold);
	for (size_t i = 0; i < n && !rows[i].lost; i++) {
		struct arrival a = {.seq = rows[i].seq - first,
			.due_ns = rows[i].due_ns,
			.sent_ns = rows[i].sent_ns,
			.received_ns = rows[i].received_ns,
			.bytes = rows[i].bytes,
			.same_clock = !o->two_clocks};

		/*
		 * A number below the first wraps to one far beyond the last, and is alien like
		 * those.
		 */
		if (tally_add(f.tally, &a) == TALLY_ALIEN)
			f.alien++;
	}
	return f;
}

/* Whether messages are missing. */
static bool print_flow(
	const struct order *o, const struct flow *f, const struct account *a, bool only)
{
	if (o->json && !o->quiet) {
		printf("{\"flow\":%" PRIu32 ",\"account\":", f->number);
		report_account_json(stdout, a);
		putchar('}');
	} else if (!o->quiet && !only) {
		printf("\nflow %" PRIu32 "\n", f->number);
		report_account_text(stdout, a);
	}
	return a->lost != ACCOUNT_NONE && a->lost;
}

static void print_sum(const struct order *o, const struct account *a, uint64_t alien)
{
	if (o->json) {
		printf("{\"event\":\"summary\",\"schema_version\":1,\"program\":\"account\","
		       "\"ended\":\"closed\","
		       "\"alien\":%" PRIu64 ",\"account\":",
			alien);
		report_account_json(stdout, a);
		printf(",\"flows\":[");
		return;
	}
	report_account_text(stdout, a);
	if (alien)
		printf("%-11s%" PRIu64 " with numbers that do not belong here\n", "alien", alien);
}

/* Prints everything. Returns the exit status. */
static int print_flows(const struct order *o, const struct flow *flows, size_t n)
{
	struct tally **tallies = calloc(n, sizeof(struct tally *));
	struct account sum, a;
	bool missing = false;
	uint64_t alien = 0;

	if (!tallies)
		err(1, "%zu flows", n);
	for (size_t i = 0; i < n; i++) {
		tallies[i] = flows[i].tally;
		alien += flows[i].alien;
	}
	tally_account(tallies, n, &sum);
	print_sum(o, &sum, alien);
	if (n == 1)
		missing = print_flow(o, flows, &sum, true);
	for (size_t i = 0; n > 1 && i < n; i++) {
		if (i && o->json && !o->quiet)
			putchar(',');
		tally_account(&tallies[i], 1, &a);
		missing |= print_flow(o, &flows[i], &a, false);
		account_free(&a);
	}
	if (o->json)
		printf("]}\n");
	account_free(&sum);
	free(tallies);
	return missing ? 3 : 0;
}

int main(int argc, char **argv)
{
	struct trace t = {0};
	struct flow *flows;
	struct order o;
	size_t n = 0;
	FILE *in;
	int status;

	report_open(argc, argv);
	o = read_options(argc, argv);
	in = strcmp(o.file, "-") != 0 ? fopen(o.file, "r") : stdin;
	t.name = in == stdin ? "standard input" : o.file;
	if (!in)
		errx(2, "FILE '%s': %s; allowed is a CSV file that can be read", o.file,
			strerror(errno));
	read_trace(&t, in);
	if (in != stdin)
		fclose(in);
	if (t.n)
		qsort(t.rows, t.n, sizeof(*t.rows), compare_rows);
	flows = calloc(t.n + 1, sizeof(*flows));
	if (!flows)
		err(1, "%zu flows", t.n + 1);
	for (size_t from = 0, to = 0; to < t.n || !n; from = to) {
		while (to < t.n && t.rows[to].flow == t.rows[from].flow)
			to++;
		flows[n++] = judge_flow(&o, &t, t.rows + from, to - from);
	}
	free(t.rows);
	status = print_flows(&o, flows, n);
	for (size_t i = 0; i < n; i++)
		tally_free(flows[i].tally);
	free(flows);
	/* A full disk or a closed pipe is a failure, not an account. */
	if (fflush(stdout) || ferror(stdout))
		err(1, "stdout");
	return status;
}
