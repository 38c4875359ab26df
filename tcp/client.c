/*
 * The TCP client: asks, waits for the echo, times it.
 */
#include "common/addr.h"
#include "common/book.h"
#include "common/clock.h"
#include "common/options.h"
#include "common/report.h"
#include "common/schedule.h"
#include "common/stop.h"
#include "tcp/kernel.h"
#include "tcp/stream.h"

#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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
	bool gone; /* the connection is */
};

/*
 * Waits for the reply, at most the waiting time. Returns whether it came; what else comes is
 * counted.
 */
static bool await_reply(struct flow *flow, struct stream *in, const struct asked *asked)
{
	int64_t now_ns = asked->m.sent_ns;
	const uint8_t *reply;

	while (now_ns - asked->m.sent_ns <= flow->o->wait_ns && !*flow->stop) {
		ssize_t n = stream_read(in, &reply);

		now_ns = clock_now_ns();
		if (n > 0 && book_reply(asked, reply, (size_t)n, now_ns))
			return true;
		if (n == 0)
			errno = ECONNRESET; /* the end of the stream: no error, but too soon */
		if (n <= 0 && errno != EAGAIN && errno != EINTR) {
			warn("%s", flow->o->host);
			flow->gone = true;
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
	struct stream in = {.fd = -1};
	int fd, on = 1;

	/* Step 1: make a socket. Messages go out as a stream of bytes, all of them and in order. */
	fd = socket(flow->server.storage.ss_family, SOCK_STREAM, 0);
	if (fd < 0)
		err(1, "socket");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		err(1, "SO_RCVTIMEO");
	/*
	 * Else a message waits until the one before it is acknowledged (Nagle, RFC 9293 section
	 * 3.7.4).
	 */
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)))
		err(1, "TCP_NODELAY");

	/* Step 2: take an address of our own, if we are told to. */
	if (o->bind) {
		struct addr own = addr_resolve(o->bind, 0, flow->server.storage.ss_family);

		if (bind(fd, addr_sa(&own), own.len))
			err(1, "bind to %s", o->bind);
	}

	/* Step 3: reach the server. A SYN goes out, and this returns one round trip later, with
	 * its answer. */
	r->connect_ns = clock_now_ns();
	if (connect(fd, addr_sa(&flow->server), flow->server.len) && !*flow->stop)
		err(1, "connect to %s", o->host);
	r->connect_ns = clock_now_ns() - r->connect_ns;
	in.fd = fd;

	/* Step 4: ask, each time when it is due, and wait for the reply. */
	schedule.start_ns = clock_now_ns();
	for (; (o->count == 0 || m->seq < o->count) && !*flow->stop && !flow->gone; m->seq++) {
		if (!schedule_wait(&schedule, m->seq, flow->stop, &m->due_ns, &m->sent_ns))
			break;
		message_encode(buf, m);
		r->scheduled++;
		if (!stream_write(fd, buf, m->length, flow->stop)) {
			/* The connection is gone, and with it every message to come. */
			r->refused++;
			break;
		}
		r->sent++;
		schedule_late(&r->sent_late, m->due_ns, m->sent_ns);
		if (!await_reply(flow, &in, &asked))
			log_received(flow->log, flow->index, m->seq, m->due_ns, m->sent_ns, -1,
				m->length, "lost");
	}

	/* Step 5: see what the kernel knows, and close. The server reads the end of the stream. */
	tcp_kernel(fd, &r->facts);
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
	options_parse(&o, argc, argv, OPTIONS_CLIENT OPTIONS_PORT,
		"asks a TCP server, waits for the echo, times it");
	server = addr_resolve(o.host, o.port, o.family);
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
