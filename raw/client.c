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
	const volatile sig_atomic_t *stop;
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
		if (n >= 0) {
			payload = packet_payload(buf, (size_t)n, &len);
			if (payload && book_reply(asked, payload, len, now_ns))
				return true;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR) {
			/*
			 * ENOPROTOOPT: an ICMP error came instead of a reply. Nobody has that
			 * protocol.
			 */
			warn("%s", flow->o->host);
			return false;
		}
	}
	return false;
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
	struct timeval patience = stop_patience(o->wait_ns);
	struct schedule schedule = {.interval_ns = o->interval_ns};
	uint8_t buf[MESSAGE_MAX_BYTES];
	int fd;

	/* Step 1: make a socket. Messages go out as packets of a protocol without a header of
	 * its own. */
	fd = socket(AF_INET, SOCK_RAW, PACKET_PROTOCOL);
	if (fd < 0)
		err(1, "socket");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		err(1, "SO_RCVTIMEO");

	/* Step 2: take an address of our own, if we are told to. */
	if (o->bind) {
		struct addr own = addr_resolve(o->bind, 0, AF_INET);

		if (bind(fd, addr_sa(&own), own.len))
			err(1, "bind to %s", o->bind);
	}

	/* Step 3: reach the server. Its address is noted, nothing is sent; packets from
	 * elsewhere no longer reach us. */
	r->connect_ns = clock_now_ns();
	if (connect(fd, addr_sa(&flow->server), flow->server.len))
		err(1, "connect to %s", o->host);
	r->connect_ns = clock_now_ns() - r->connect_ns;

	/* Step 4: ask, each time when it is due, and wait for the reply. */
	schedule.start_ns = clock_now_ns();
	for (; (o->count == 0 || m->seq < o->count) && !*flow->stop; m->seq++) {
		if (!schedule_wait(&schedule, m->seq, flow->stop, &m->due_ns, &m->sent_ns))
			break;
		message_encode(buf, m);
		r->scheduled++;
		if (send(fd, buf, m->length, 0) < 0) {
			/*
			 * The error of an earlier packet is handed over here, and this one is not
			 * sent.
			 */
			if (errno == EMSGSIZE)
				err(1, "send of %u bytes", m->length);
			r->refused++;
			continue;
		}
		r->sent++;
		schedule_late(&r->sent_late, m->due_ns, m->sent_ns);
		if (!await_reply(flow, fd, &asked))
			log_received(flow->log, flow->index, m->seq, m->due_ns, m->sent_ns, -1,
				m->length, "lost");
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
	const volatile sig_atomic_t *stop;
	struct flow_report *reports;
	struct flow *flows;
	struct addr server;
	FILE *log;

	report_open(argc, argv);
	options_parse(
		&o, argc, argv, OPTIONS_CLIENT, "asks a raw server, waits for the echo, times it");
	server = addr_resolve(o.host, 0, AF_INET);
	log = log_open(&o, LOG_RECEIVED_COLUMNS);
	stop = stop_on_signals();
	if (!o.run)
		o.run = (uint16_t)(1 + clock_now_ns() / 1000 % UINT16_MAX);
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
	stop_leave_to_threads();
	for (uint16_t i = 0; i < o.flows; i++)
		pthread_join(flows[i].thread, NULL);
	log_close(log, o.log);
	return report_client(&o, *stop ? "signal" : "count", reports, o.flows);
}
