/*
 * The raw sender: numbered messages on a fixed schedule, one way. It waits for nobody, so what the
 * path does to one message does not shift the next.
 */
#include "common/addr.h"
#include "common/clock.h"
#include "common/message.h"
#include "common/options.h"
#include "common/report.h"
#include "common/schedule.h"
#include "common/stop.h"
#include "raw/packet.h"

#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
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
	uint8_t buf[MESSAGE_MAX_BYTES];
	int fd;

	/* Step 1: make a socket. Messages go out as packets of a protocol without a header of
	 * its own. */
	fd = socket(AF_INET, SOCK_RAW, PACKET_PROTOCOL);
	if (fd < 0)
		err(1, "socket");

	/* Step 2: take an address of our own, if we are told to. */
	if (o->bind) {
		struct addr own = addr_resolve(o->bind, 0, AF_INET);

		if (bind(fd, addr_sa(&own), own.len))
			err(1, "bind to %s", o->bind);
	}

	/* Step 3: reach the receiver. Its address is noted, nothing is sent: this cannot fail
	 * for want of a receiver. */
	r->connect_ns = clock_now_ns();
	if (connect(fd, addr_sa(&flow->receiver), flow->receiver.len))
		return give_up(flow, fd);
	r->connect_ns = clock_now_ns() - r->connect_ns;

	/* Step 4: send each message when it is due. */
	schedule.start_ns = clock_now_ns();
	for (; (o->count == 0 || m.seq < o->count) && !*flow->stop; m.seq++) {
		const char *verdict = "sent";

		if (!schedule_wait(&schedule, m.seq, flow->stop, &m.due_ns, &m.sent_ns))
			break;
		message_encode(buf, &m);
		r->scheduled++;
		if (send(fd, buf, m.length, 0) < 0) {
			/* No room, or no route. An earlier one's error is for a read. */
			if (errno == EMSGSIZE)
				err(1, "send of %u bytes", m.length);
			if (!r->refused++)
				warn("send to %s", o->host);
			verdict = "refused";
		} else {
			r->sent++;
			r->bytes += m.length;
		}
		schedule_late(&schedule, &r->sent_late, m.due_ns, m.sent_ns);
		log_sent(flow->log, flow->index, m.seq, m.due_ns, m.sent_ns, m.length, verdict);
	}

	/* Step 5: see what the kernel knows, and close. Of what became of a packet it knows
	 * nothing. */
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
	options_parse(&o, argc, argv, OPTIONS_SENDER,
		"sends numbered messages to a raw receiver on a fixed schedule");
	receiver = addr_resolve(o.host, 0, AF_INET);
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
