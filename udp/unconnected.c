/*
 * Unconnected: a UDP client that never calls connect(). It names the server with every sendto() and
 * asks with every recvfrom() who sent what came. It has no twin, because it is one half of a
 * comparison that only datagrams allow: an ICMP error that answers its datagram reaches this host's
 * kernel, which does not hand it over, since the socket has no one peer of which it would speak.
 * That is Linux's choice: RFC 1122 section 4.1.3.3 asks for every error to be passed on, and
 * IP_RECVERR (man 7 ip) makes it so. So this client waits its whole time where the connected one is
 * told at once.
 */
#include "common/addr.h"
#include "common/book.h"
#include "common/clock.h"
#include "common/options.h"
#include "common/report.h"
#include "common/schedule.h"
#include "common/stop.h"
#include "udp/kernel.h"

#include <err.h>
#include <errno.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static bool same_address(const struct addr *a, const struct addr *b)
{
	char one[ADDR_TEXT_BYTES], other[ADDR_TEXT_BYTES];

	return !strcmp(addr_text(a, one), addr_text(b, other));
}

/*
 * Waits for the reply, at most the waiting time. Returns whether it came; what else comes is
 * counted.
 */
static bool await_reply(
	int fd, const struct asked *asked, const struct addr *server, const atomic_bool *stop)
{
	int64_t now_ns = asked->m.sent_ns;
	uint8_t buf[MESSAGE_MAX_BYTES];

	while (now_ns - asked->m.sent_ns <= asked->o->wait_ns && !*stop) {
		struct addr from = {.len = sizeof(from.storage)};
		ssize_t n = recvfrom(fd, buf, sizeof(buf), 0, addr_sa(&from), &from.len);

		now_ns = clock_now_ns();
		/* Anybody may send to this socket: who it was is for us to look at. */
		if (n >= 0 && !same_address(&from, server))
			asked->r->foreign++;
		else if (n >= 0 && book_reply(asked, buf, (size_t)n, now_ns))
			return true;
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			if (!asked->r->unreachable++)
				warn("%s", asked->o->host);
			return false;
		}
	}
	return false;
}

int main(int argc, char **argv)
{
	struct options o = {.count = 10,
		.interval_ns = CLOCK_NS_PER_SECOND,
		.size = 64,
		.wait_ns = CLOCK_NS_PER_SECOND,
		.flows = 1};
	struct flow_report r = {.connect_ns = -1};
	struct asked asked = {
		.o = &o, .r = &r, .m = {.clock_id = clock_id(), .kind = MESSAGE_REQUEST}};
	struct message *m = &asked.m;
	struct schedule schedule;
	const atomic_bool *stop;
	struct timeval timeout;
	uint8_t buf[MESSAGE_MAX_BYTES];
	struct addr server;
	int fd;

	report_open(argc, argv);
	options_parse(&o, argc, argv, "HcisWpqJlr46",
		"asks a UDP server without connect(), waits for the echo, times it");
	server = addr_resolve(o.host, o.port, o.family);
	asked.log = log_open(&o, LOG_RECEIVED_COLUMNS);
	timeout = stop_timeout(o.wait_ns);
	stop = stop_on_signals();
	if (!o.run)
		o.run = message_new_run(clock_now_ns());
	r.tally = tally_new(o.count, o.wait_ns);
	m->length = o.size;
	m->flow = (uint32_t)o.run << 16;

	/* Step 1: make a socket. It gets an address of its own with the first sendto(). */
	fd = socket(server.storage.ss_family, SOCK_DGRAM, 0);
	if (fd < 0)
		err(1, "socket");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)))
		err(1, "SO_RCVTIMEO");

	/* Step 2: ask, each time when it is due, and wait for the reply. */
	schedule = (struct schedule){clock_now_ns(), o.interval_ns};
	for (; o.count == 0 || m->seq < o.count; m->seq++) {
		if (!schedule_wait(&schedule, m->seq, stop, &m->due_ns, &m->sent_ns))
			break;
		message_encode(buf, m);
		r.scheduled++;
		if (sendto(fd, buf, m->length, 0, addr_sa(&server), server.len) < 0) {
			if (!r.refused++)
				warn("send to %s", o.host);
			continue;
		}
		r.sent++;
		schedule_late(&schedule, &r.sent_late, m->due_ns, m->sent_ns);
		if (!await_reply(fd, &asked, &server, stop))
			book_unanswered(&asked, *stop);
	}

	/* Step 3: see what the kernel knows, and close. */
	udp_kernel(fd, &r.facts);
	close(fd);
	log_close(asked.log, o.log);
	return report_client(&o, *stop ? "signal" : "count", &r, 1);
}
