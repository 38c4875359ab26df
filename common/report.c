#include "common/report.h"
#include "common/report_account.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCHEMA_VERSION 1

/*
 * With -J, what err(3) said last, so that it can be said in JSON too; a signal handler never comes
 * here.
 */
static char last_error[512];

static void print_string(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		/*
		 * A host's name may hold any byte: as a number it is valid JSON whatever it means.
		 */
		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

/* stderr in JSON mode: all goes to fd 2 as ever, and the last line is kept. */
static ssize_t keep_error(void *cookie, const char *text, size_t len)
{
	char *newline;
	size_t have;

	(void)cookie;
	/* A line may come in pieces: a new one begins behind the old one's end. */
	newline = strchr(last_error, '\n');
	if (newline)
		last_error[0] = '\0';
	have = strlen(last_error);
	if (have < sizeof(last_error) - 1)
		snprintf(last_error + have, sizeof(last_error) - have, "%.*s", (int)len, text);
	return write(STDERR_FILENO, text, len);
}

static void print_error(void)
{
	flockfile(stderr);
	last_error[strcspn(last_error, "\n")] = '\0';
	printf("{\"event\":\"error\",\"program\":");
	print_string(program_invocation_short_name);
	printf(",\"message\":");
	print_string(last_error);
	printf("}\n");
	last_error[0] = '\0';
	funlockfile(stderr);
}

static void print_error_at_exit(int status, void *unused)
{
	(void)unused;
	/* For good: no other thread may write into the line, or behind it, from here on. */
	flockfile(stdout);
	if ((status == 1 || status == 2) && last_error[0])
		print_error();
}

/* Else a socket would get the number of a standard stream, and what is printed would be sent. */
static void keep_standard_streams(void)
{
	if (fcntl(STDOUT_FILENO, F_GETFD) < 0)
		errx(1, "stdout is closed");
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		int null = fd;

		/* open() gives the lowest number that is free. */
		if (fcntl(fd, F_GETFD) < 0)
			null = open("/dev/null", O_RDWR);
		if (null != fd)
			err(1, "/dev/null");
	}
}

void report_open(int argc, char **argv)
{
	cookie_io_functions_t io = {.write = keep_error};
	bool json = false;
	FILE *tee;

	keep_standard_streams();
	/* Any word that may mean -J will do: this is for errors of the command line itself. */
	for (int i = 1; i < argc; i++)
		json |= (strlen(argv[i]) > 2 && !strncmp(argv[i], "--json", strlen(argv[i]))) ||
			(argv[i][0] == '-' && argv[i][1] != '-' && strchr(argv[i], 'J'));
	if (!json)
		return;
	tee = fopencookie(NULL, "w", io);
	if (!tee)
		err(1, "stderr");
	setvbuf(tee, NULL, _IOLBF, 0);
	stderr = tee;
	on_exit(print_error_at_exit, NULL);
}

/* A report that could not be written is a failure, not a success with nothing to say. */
static void finish(void)
{
	if (fflush(stdout) || ferror(stdout))
		err(1, "stdout");
}

void report_ready(const struct options *o, const char *address, int port, int protocol)
{
	const char *program = program_invocation_short_name;

	if (o->json) {
		printf("{\"event\":\"ready\",\"program\":\"%s\",\"pid\":%d,\"address\":\"%s\",",
			program, (int)getpid(), address);
		if (port >= 0)
			printf("\"port\":%d}\n", port);
		else
			printf("\"port\":null,\"protocol\":%d}\n", protocol);
	} else if (port >= 0) {
		printf("%s: ready at %s, port %d\n", program, address, port);
	} else {
		printf("%s: ready at %s, protocol %d\n", program, address, protocol);
	}
	finish();
}

void report_queue(const struct options *o, const struct queue_report *queue)
{
	if (o->json) {
		printf("{\"event\":\"queue\",\"asked\":%u,\"backlog\":%u,\"waiting\":%u,",
			queue->asked, queue->backlog, queue->waiting);
		if (queue->peer)
			printf("\"accepted\":\"%s\",\"port\":%u}\n", queue->peer, queue->port);
		else
			printf("\"accepted\":null,\"port\":null}\n");
	} else {
		if (queue->peer)
			printf("accepted %s port %u; ", queue->peer, queue->port);
		printf("%u wait to be accepted (asked for a backlog of %u, the kernel keeps %u)\n",
			queue->waiting, queue->asked, queue->backlog);
	}
	finish();
}

void report_reply(
	const struct options *o, uint16_t flow, uint64_t seq, uint32_t bytes, int64_t rtt_ns)
{
	char flow_text[16] = "";

	if (o->quiet)
		return;
	if (o->flows > 1)
		snprintf(flow_text, sizeof(flow_text), " flow=%u", flow);
	if (o->json)
		printf("{\"event\":\"reply\",\"flow\":%u,\"seq\":%" PRIu64 ",\"bytes\":%" PRIu32
		       ",\"rtt_ns\":%" PRId64 "}\n",
			flow, seq, bytes, rtt_ns);
	else
		printf("%" PRIu32 " bytes from %s:%s seq=%" PRIu64 " time=%.3f ms\n", bytes,
			o->host, flow_text, seq, (double)rtt_ns / 1e6);
	finish();
}

void facts_add(struct facts *f, const char *name, int64_t value)
{
	if (f->n < FACTS_MAX)
		f->fact[f->n++] = (struct fact){.name = name, .value = value};
}

static void print_fact(const struct fact *f)
{
	printf("\"%s\":", f->name);
	if (f->text[0])
		print_string(f->text);
	else
		printf("%" PRId64, f->value);
}

/* flow is -1 for a socket that serves all flows. */
static void print_facts(const struct facts *f, int flow, bool first)
{
	printf(flow < 0 ? "%s{\"flow\":null" : "%s{\"flow\":%d", first ? "" : ",", flow);
	if (f->group)
		printf(",\"%s\":{", f->group);
	for (size_t i = 0; i < f->n; i++) {
		if (i || !f->group)
			putchar(',');
		print_fact(&f->fact[i]);
	}
	printf(f->group ? "}}" : "}");
}

/* Times read better in milliseconds: rtt_ns 1500000 becomes rtt 1.500 ms. */
static void text_fact(const struct fact *f, const char *before)
{
	size_t len = strlen(f->name);

	if (f->text[0])
		printf("%s %s %s", before, f->name, f->text);
	else if (len > 3 && !strcmp(f->name + len - 3, "_ns"))
		printf("%s %.*s %.3f ms", before, (int)len - 3, f->name, (double)f->value / 1e6);
	else
		printf("%s %s %" PRId64, before, f->name, f->value);
}

static void text_facts(const struct facts *f)
{
	if (f->n)
		printf("kernel:");
	for (size_t i = 0; i < f->n; i++) {
		text_fact(&f->fact[i], i ? "," : "");
	}
	if (f->n)
		putchar('\n');
}

static void print_number(const char *name, uint64_t value)
{
	printf(",\"%s\":%" PRIu64, name, value);
}

static void print_time(const char *name, int64_t ns)
{
	if (ns == SAMPLES_NONE)
		printf("\"%s\":null", name);
	else
		printf("\"%s\":%" PRId64, name, ns);
}

static void print_samples(const char *name, const struct samples_summary *s)
{
	const struct {
		const char *name;
		int64_t ns;
	} all[] = {{"min", s->min}, {"mean", s->mean}, {"p50", s->p50}, {"p90", s->p90},
		{"p99", s->p99}, {"max", s->max}};

	printf(",\"%s\":{", name);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (i)
			putchar(',');
		print_time(all[i].name, all[i].ns);
	}
	putchar('}');
}

static void text_samples(const char *name, const struct samples_summary *s)
{
	const int64_t all[] = {s->min, s->mean, s->p50, s->p90, s->p99, s->max};

	printf("%s min/mean/p50/p90/p99/max = ", name);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (i)
			putchar('/');
		if (all[i] == SAMPLES_NONE)
			putchar('-');
		else
			printf("%.3f", (double)all[i] / 1e6);
	}
	printf(" ms\n");
}

/* Nobody told the run and no message did: it is not known. */
static void print_run(uint16_t run)
{
	if (run)
		print_number("run", run);
	else
		printf(",\"run\":null");
}

/* The summary of a program of which a part has failed has the error before it. */
static void begin_summary(const char *ended, bool failed)
{
	if (failed && last_error[0])
		print_error();
	printf("{\"event\":\"summary\",\"schema_version\":%d,\"program\":\"%s\",\"ended\":\"%s\"",
		SCHEMA_VERSION, program_invocation_short_name, ended);
}

/* The kernel's figures of every flow that has some, and of the socket that serves all. */
static void print_kernel(const struct facts *all, const struct flow_report *flows, size_t n)
{
	bool first = true;

	printf(",\"kernel\":[");
	if (all && all->n) {
		print_facts(all, -1, true);
		first = false;
	}
	for (size_t i = 0; i < n; i++) {
		if (!flows[i].facts.n)
			continue;
		print_facts(&flows[i].facts, (int)i, first);
		first = false;
	}
	putchar(']');
}

/*
 * Adds up what the flows of a client or a sender counted; connect_ns is the slowest, -1 if none
 * connected. Their
 * samples move into the sum.
 */
static struct flow_report sum_flows(struct flow_report *flows, size_t n)
{
	struct flow_report sum = {.connect_ns = -1};

	for (size_t i = 0; i < n; i++) {
		struct flow_report *f = &flows[i];

		sum.scheduled += f->scheduled;
		sum.sent += f->sent;
		sum.refused += f->refused;
		sum.bytes += f->bytes;
		sum.received += f->received;
		sum.duplicates += f->duplicates;
		sum.late += f->late;
		sum.foreign += f->foreign;
		sum.corrupt += f->corrupt;
		sum.alien += f->alien;
		sum.unreachable += f->unreachable;
		sum.outstanding += f->outstanding;
		sum.failed = sum.failed || f->failed;
		sum.gone = sum.gone || f->gone;
		if (f->connect_ns > sum.connect_ns)
			sum.connect_ns = f->connect_ns;
		samples_merge(&sum.rtt, &f->rtt);
		samples_merge(&sum.sent_late, &f->sent_late);
		samples_free(&f->rtt);
		samples_free(&f->sent_late);
	}
	return sum;
}

static void print_connect(int64_t connect_ns)
{
	putchar(',');
	print_time("connect_ns", connect_ns < 0 ? SAMPLES_NONE : connect_ns);
}

/* Not every name of a fate is an error: only these are worth a word when they happen. */
static void text_oddities(const struct flow_report *f)
{
	const struct {
		const char *name;
		uint64_t n;
	} all[] = {{"outstanding", f->outstanding}, {"unreachable", f->unreachable},
		{"refused", f->refused}, {"late", f->late}, {"foreign", f->foreign},
		{"corrupt", f->corrupt}, {"alien", f->alien}, {"reset", f->reset}};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].n)
			printf(", %" PRIu64 " %s", all[i].n, all[i].name);
	putchar('\n');
}

int report_client(const struct options *o, const char *ended, struct flow_report *flows, size_t n)
{
	struct flow_report sum = sum_flows(flows, n);
	struct samples_summary rtt, late;
	uint64_t lost = sum.sent - sum.received - sum.outstanding;

	samples_summarize(&sum.rtt, lost, &rtt);
	samples_summarize(&sum.sent_late, 0, &late);
	if (o->json) {
		begin_summary(sum.gone ? "closed" : ended, sum.failed);
		print_run(o->run);
		print_number("scheduled", sum.scheduled);
		print_number("sent", sum.sent);
		print_number("refused", sum.refused);
		print_number("received", sum.received);
		print_number("lost", lost);
		print_number("outstanding", sum.outstanding);
		print_number("unreachable", sum.unreachable);
		print_number("duplicates", sum.duplicates);
		print_number("late", sum.late);
		print_number("foreign", sum.foreign);
		print_number("corrupt", sum.corrupt);
		print_number("alien", sum.alien);
		print_connect(sum.connect_ns);
		print_samples("rtt_ns", &rtt);
		print_samples("sent_late_ns", &late);
		printf(",\"flows\":[");
		for (size_t i = 0; i < n; i++)
			printf("%s{\"flow\":%zu,\"sent\":%" PRIu64 ",\"refused\":%" PRIu64
			       ",\"received\":%" PRIu64 ",\"lost\":%" PRIu64 "}",
				i ? "," : "", i, flows[i].sent, flows[i].refused, flows[i].received,
				flows[i].sent - flows[i].received - flows[i].outstanding);
		putchar(']');
		print_kernel(NULL, flows, n);
		printf("}\n");
	} else {
		printf("--- %s to %s ---\n%" PRIu64 " sent, %" PRIu64 " received, %" PRIu64
		       " lost, %" PRIu64 " duplicates",
			program_invocation_short_name, o->host, sum.sent, sum.received, lost,
			sum.duplicates);
		text_oddities(&sum);
		text_samples("round trip", &rtt);
		if (n == 1)
			text_facts(&flows[0].facts);
	}
	finish();
	samples_free(&sum.rtt);
	samples_free(&sum.sent_late);
	return sum.failed ? 1 : lost || sum.refused || sum.gone ? 3 : 0;
}

int report_server(const struct options *o, const char *ended, const struct flow_report *all)
{
	if (o->json) {
		begin_summary(ended, false);
		print_number("requests", all->requests);
		print_number("replies", all->replies);
		print_number("refused", all->refused);
		print_number("corrupt", all->corrupt);
		print_number("alien", all->alien);
		print_number("foreign", all->foreign);
		print_number("connections", all->connections);
		print_number("resets", all->reset);
		print_kernel(&all->facts, NULL, 0);
		printf("}\n");
	} else {
		printf("--- %s ---\n%" PRIu64 " requests, %" PRIu64 " replies",
			program_invocation_short_name, all->requests, all->replies);
		if (all->connections)
			printf(", %" PRIu64 " connections", all->connections);
		text_oddities(all);
		text_facts(&all->facts);
	}
	finish();
	return 0;
}

int report_sender(const struct options *o, const char *ended, struct flow_report *flows, size_t n)
{
	struct flow_report sum = sum_flows(flows, n);
	struct samples_summary late;

	samples_summarize(&sum.sent_late, 0, &late);
	if (o->json) {
		begin_summary(sum.gone ? "closed" : ended, sum.failed);
		print_run(o->run);
		print_number("scheduled", sum.scheduled);
		print_number("sent", sum.sent);
		print_number("refused", sum.refused);
		print_number("bytes", sum.bytes);
		print_connect(sum.connect_ns);
		print_samples("sent_late_ns", &late);
		printf(",\"flows\":[");
		for (size_t i = 0; i < n; i++)
			printf("%s{\"flow\":%zu,\"scheduled\":%" PRIu64 ",\"sent\":%" PRIu64
			       ",\"refused\":%" PRIu64 "}",
				i ? "," : "", i, flows[i].scheduled, flows[i].sent,
				flows[i].refused);
		putchar(']');
		print_kernel(NULL, flows, n);
		printf("}\n");
	} else {
		printf("--- %s to %s ---\n%" PRIu64 " scheduled, %" PRIu64 " sent, %" PRIu64
		       " bytes",
			program_invocation_short_name, o->host, sum.scheduled, sum.sent, sum.bytes);
		text_oddities(&sum);
		text_samples("behind schedule", &late);
		if (n == 1)
			text_facts(&flows[0].facts);
	}
	finish();
	samples_free(&sum.sent_late);
	return sum.failed ? 1 : sum.sent < sum.scheduled || sum.gone ? 3 : 0;
}

int report_receiver(const struct options *o, const char *ended, const struct flow_report *all,
	struct flow_report *flows, size_t n)
{
	struct tally **tallies = calloc(n, sizeof(struct tally *));
	struct account account;
	bool missing;

	if (!tallies)
		err(1, "%zu flows", n);
	for (size_t i = 0; i < n; i++)
		tallies[i] = flows[i].tally;
	tally_account(tallies, n, &account);
	missing = account.lost > 0; /* ACCOUNT_NONE is below */
	if (o->json) {
		begin_summary(ended, false);
		print_run(o->run);
		printf(",\"account\":");
		report_account_json(stdout, &account);
		print_number("corrupt", all->corrupt);
		print_number("alien", all->alien);
		print_number("foreign", all->foreign);
		print_number("resets", all->reset);
		printf(",\"flows\":[");
		for (size_t i = 0; i < n; i++) {
			struct account one;

			printf("%s{\"flow\":%zu,\"account\":", i ? "," : "", i);
			tally_account(&tallies[i], 1, &one);
			report_account_json(stdout, &one);
			account_free(&one);
			putchar('}');
		}
		putchar(']');
		print_kernel(&all->facts, flows, n);
		printf("}\n");
	} else {
		printf("--- %s ---\n", program_invocation_short_name);
		report_account_text(stdout, &account);
		if (all->corrupt || all->alien || all->foreign || all->reset) {
			printf("set aside");
			text_oddities(all);
		}
		text_facts(&all->facts);
		if (n == 1)
			text_facts(&flows[0].facts);
	}
	finish();
	account_free(&account);
	free(tallies);
	return missing ? 3 : 0;
}

FILE *log_open(const struct options *o, const char *columns)
{
	FILE *log;

	if (!o->log)
		return NULL;
	log = fopen(o->log, "we");
	if (!log)
		errx(2, "--log '%s': %s; allowed is a file that can be written", o->log,
			strerror(errno));
	fprintf(log, "%s\n", columns);
	return log;
}

void log_sent(FILE *log, uint16_t flow, uint64_t seq, int64_t due_ns, int64_t sent_ns,
	uint32_t bytes, const char *verdict)
{
	if (log)
		fprintf(log, "%u,%" PRIu64 ",%" PRId64 ",%" PRId64 ",%" PRIu32 ",%s\n", flow, seq,
			due_ns, sent_ns, bytes, verdict);
}

void log_received(FILE *log, uint16_t flow, uint64_t seq, int64_t due_ns, int64_t sent_ns,
	int64_t received_ns, uint32_t bytes, const char *verdict)
{
	char received[24] = "";

	if (!log)
		return;
	if (received_ns >= 0)
		snprintf(received, sizeof(received), "%" PRId64, received_ns);
	fprintf(log, "%u,%" PRIu64 ",%" PRId64 ",%" PRId64 ",%s,%" PRIu32 ",%s\n", flow, seq,
		due_ns, sent_ns, received, bytes, verdict);
}

void log_close(FILE *log, const char *name)
{
	/* Both: an earlier row may have failed while the last one went out. */
	if (log && (ferror(log) | fclose(log)))
		errx(1, "--log '%s': not all rows could be written", name);
}
