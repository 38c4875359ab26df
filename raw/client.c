/*
 * The raw client: asks, waits for the echo, times it.
 */
#include "common/addr.h"
#include "common/book.h"
#include "common/clock.h"
#include "common/options.h"
#include "common/report.h"
#include "common/schedule.h"
#include "common/stop.h"
#include "raw/kernel.h"
#include "raw/packet.h"

#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

struct flow {
	pthread_t thread;
	uint16_t index;
	const struct options *o;
	const atomic_bool *stop;
	struct addr server;
	FILE *log;
	struct flow_report *report;
};

/*
 * Waits for the reply, at most the waiting time. Returns whether it came; what else comes is
 * counted.
 */
static bool await_reply(const struct flow *flow, int fd, const struct asked *asked)
{
	int64_t now_ns = asked->m.sent_ns;
	uint8_t buf[PACKET_HEADER_BYTES + MESSAGE_MAX_BYTES];
	const uint8_t *payload;
	size_t len;

	while (now_ns - asked->m.sent_ns <= flow->o->wait_ns && !*flow->stop) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);

		now_ns = clock_now_ns();
		payload = packet_payload(buf, n > 0 ? (size_t)n : 0, &len);
		if (n >= 0 && book_reply(asked, payload, len, now_ns))
			return true;
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			/*
			 * ENOPROTOOPT: an ICMP error came instead of a reply. Nobody has that
			 * protocol.
			 */
			if (!flow->report->unreachable++)
				warn("%s", flow->o->host);
			return false;
		}
	}
	return false;
}

/* There is nobody to talk to. Other flows may fare better, and what they did is still reported. */
static void *give_up(const struct flow *flow, int fd)
{
	if (!*flow->stop)
		warn("connect to %s", flow->o->host);
	flow->report->failed = !*flow->stop;
	flow->report->connect_ns = -1;
	close(fd);
	return NULL;
}

static void *run_flow(void *arg)
{
	struct flow *flow = arg;
	const struct options *o = flow->o;
	struct flow_report *r = flow->report;
	struct asked asked = {.o = o,
		.r = r,
		.log = flow->log,
		.m = {.length = o->size,
			.clock_id = clock_id(),
			.flow = (uint32_t)o->run << 16 | flow->index,
			.kind = MESSAGE_REQUEST}};
	struct message *m = &asked.m;
	struct timeval timeout = stop_timeout(o->wait_ns);
	struct schedule schedule = {.interval_ns = o->interval_ns};
	uint8_t buf[MESSAGE_MAX_BYTES];
	int fd;

	/* Step 1: make a socket. Messages go out as packets of a protocol without a header of
	 * its own. */
	fd = socket(AF_INET, SOCK_RAW, PACKET_PROTOCOL);
	if (fd < 0)
		err(1, "socket");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)))
		err(1, "SO_RCVTIMEO");

	/* Step 2: take an address of our own, if we are told to. */
	if (o->bind) {
		struct addr own = addr_resolve(o->bind, 0, AF_INET);

		if (bind(fd, addr_sa(&own), own.len))
			err(1, "bind to %s", o->bind);
	}

	/* Step 3: reach the server. Its address is noted, nothing is sent; what comes from
	 * elsewhere from now on is not for us. */
	r->connect_ns = clock_now_ns();
	if (connect(fd, addr_sa(&flow->server), flow->server.len))
		return give_up(flow, fd);
	r->connect_ns = clock_now_ns() - r->connect_ns;

	/* Step 4: ask, each time when it is due, and wait for the reply. */
	schedule.start_ns = clock_now_ns();
	for (; (o->count == 0 || m->seq < o->count) && !*flow->stop; m->seq++) {
		if (!schedule_wait(&schedule, m->seq, flow->stop, &m->due_ns, &m->sent_ns))
			break;
		message_encode(buf, m);
		r->scheduled++;
		if (send(fd, buf, m->length, 0) < 0) {
			/* No room, or no route. An earlier one's error is for a read. */
			if (errno == EMSGSIZE)
				err(1, "send of %u bytes", m->length);
			if (!r->refused++)
				warn("send to %s", o->host);
			continue;
		}
		r->sent++;
		schedule_late(&schedule, &r->sent_late, m->due_ns, m->sent_ns);
		if (!await_reply(flow, fd, &asked))
			book_unanswered(&asked, *flow->stop);
	}

	/* Step 5: see what the kernel knows, and close. The server never learns of it. */
	raw_kernel(fd, &r->facts);
	close(fd);
	return NULL;
}

int main(int argc, char **argv)
{
	struct options o = {.count = 10,
		.interval_ns = CLOCK_NS_PER_SECOND,
		.size = 64,
		.wait_ns = CLOCK_NS_PER_SECOND,
		.flows = 1};
	const atomic_bool *stop;
	struct flow_report *reports;
	struct flow *flows;
	struct addr server;
	int status;
	FILE *log;

	report_open(argc, argv);
	options_parse(
		&o, argc, argv, OPTIONS_CLIENT, "asks a raw server, waits for the echo, times it");
	server = addr_resolve(o.host, 0, AF_INET);
	log = log_open(&o, LOG_RECEIVED_COLUMNS);
	stop = stop_on_signals();
	if (!o.run)
		o.run = message_new_run(clock_now_ns());
	flows = calloc(o.flows, sizeof(*flows));
	reports = calloc(o.flows, sizeof(*reports));
	if (!flows || !reports)
		err(1, "%u flows", o.flows);
	for (uint16_t i = 0; i < o.flows; i++) {
		flows[i] = (struct flow){.index = i,
			.o = &o,
			.stop = stop,
			.server = server,
			.log = log,
			.report = &reports[i]};
		reports[i].tally = tally_new(o.count, o.wait_ns);
		errno = pthread_create(&flows[i].thread, NULL, run_flow, &flows[i]);
		if (errno)
			err(1, "thread %u", i);
	}
	for (uint16_t i = 0; i < o.flows; i++)
		stop_join(flows[i].thread);
	status = report_client(&o, *stop ? "signal" : "count", reports, o.flows);
	log_close(log, o.log);
	for (uint16_t i = 0; i < o.flows; i++)
		tally_free(reports[i].tally);
	free(reports);
	free(flows);
	return status;
}
