/*
 * The TCP sender: numbered messages on a fixed schedule, one way. It waits for nobody, until the
 * kernel has no more room for what the path holds up: then a write blocks, and the schedule shows
 * it.
 */
#include "common/addr.h"
#include "common/clock.h"
#include "common/message.h"
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
	const atomic_bool *stop;
	struct addr receiver;
	FILE *log;
	struct flow_report *report;
};

/*
 * Reads until the other side has closed too, which it does when it has everything; at most the
 * waiting time. Returns false when the connection was reset: then something may not have arrived.
 */
static bool await_end(int fd, int64_t wait_ns, const atomic_bool *stop)
{
	int64_t until_ns = clock_now_ns() + wait_ns;
	uint8_t byte;

	while (clock_now_ns() < until_ns && !*stop) {
		ssize_t n = recv(fd, &byte, sizeof(byte), 0);

		if (n == 0)
			return true;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return false;
	}
	return true;
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
	struct message m = {.length = o->size,
		.clock_id = clock_id(),
		.flow = (uint32_t)o->run << 16 | flow->index,
		.kind = MESSAGE_DATA};
	struct schedule schedule = {.interval_ns = o->interval_ns};
	struct timeval timeout = stop_timeout(STOP_TIMEOUT_NS);
	uint8_t buf[MESSAGE_MAX_BYTES];
	int fd, on = 1;

	/* Step 1: make a socket. Messages go out as a stream of bytes, all of them and in order. */
	fd = socket(flow->receiver.storage.ss_family, SOCK_STREAM, 0);
	if (fd < 0)
		err(1, "socket");
	/*
	 * Else a message waits until the one before it is acknowledged (Nagle, RFC 9293 section
	 * 3.7.4).
	 */
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)))
		err(1, "TCP_NODELAY");

	/* Step 2: take an address of our own, if we are told to. */
	if (o->bind) {
		struct addr own = addr_resolve(o->bind, 0, flow->receiver.storage.ss_family);

		if (bind(fd, addr_sa(&own), own.len))
			err(1, "bind to %s", o->bind);
	}

	/* Step 3: reach the receiver. A SYN goes out, and this returns one round trip later,
	 * with its answer. */
	r->connect_ns = clock_now_ns();
	if (connect(fd, addr_sa(&flow->receiver), flow->receiver.len))
		return give_up(flow, fd);
	r->connect_ns = clock_now_ns() - r->connect_ns;
	/*
	 * Not before: connect() would come back with EINPROGRESS and leave the handshake to itself.
	 */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) ||
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)))
		err(1, "SO_RCVTIMEO, SO_SNDTIMEO");

	/* Step 4: send each message when it is due. Sent is what the kernel has taken, not what
	 * has arrived. */
	schedule.start_ns = clock_now_ns();
	for (; (o->count == 0 || m.seq < o->count) && !*flow->stop && !r->gone; m.seq++) {
		const char *verdict = "sent";

		if (!schedule_wait(&schedule, m.seq, flow->stop, &m.due_ns, &m.sent_ns))
			break;
		message_encode(buf, &m);
		r->scheduled++;
		if (!stream_write(fd, buf, m.length, flow->stop)) {
			/* The connection is gone, and with it every message to come. */
			if (!*flow->stop)
				warn("send to %s", o->host);
			r->gone = !*flow->stop;
			r->refused++;
			verdict = "refused";
		} else {
			r->sent++;
			r->bytes += m.length;
		}
		schedule_late(&schedule, &r->sent_late, m.due_ns, m.sent_ns);
		log_sent(flow->log, flow->index, m.seq, m.due_ns, m.sent_ns, m.length, verdict);
	}

	/* Step 5: see what the kernel knows, and close. The receiver reads the end, and we wait
	 * until all has arrived. */
	shutdown(fd, SHUT_WR);
	r->gone = !await_end(fd, o->wait_ns, flow->stop) || r->gone;
	tcp_kernel(fd, &r->facts);
	close(fd);
	return NULL;
}

int main(int argc, char **argv)
{
	struct options o = {.count = 100,
		.interval_ns = CLOCK_NS_PER_SECOND / 100,
		.size = 100,
		.wait_ns = 5 * CLOCK_NS_PER_SECOND,
		.flows = 1};
	const atomic_bool *stop;
	struct flow_report *reports;
	struct flow *flows;
	struct addr receiver;
	int status;
	FILE *log;

	report_open(argc, argv);
	options_parse(&o, argc, argv, OPTIONS_SENDER OPTIONS_PORT,
		"sends numbered messages to a TCP receiver on a fixed schedule");
	receiver = addr_resolve(o.host, o.port, o.family);
	log = log_open(&o, LOG_SENT_COLUMNS);
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
			.receiver = receiver,
			.log = log,
			.report = &reports[i]};
		errno = pthread_create(&flows[i].thread, NULL, run_flow, &flows[i]);
		if (errno)
			err(1, "thread %u", i);
	}
	for (uint16_t i = 0; i < o.flows; i++)
		stop_join(flows[i].thread);
	status = report_sender(&o, *stop ? "signal" : "count", reports, o.flows);
	log_close(log, o.log);
	free(reports);
	free(flows);
	return status;
}
