/*
 * Write, write, read: a client that sends each request in two pieces, the header first, and then
 * waits for the reply. It has no twin, because what it shows is TCP's own: Nagle's algorithm (RFC
 * 9293 section 3.7.4) holds the second piece back until the first is acknowledged, and the other
 * side, with nothing to say yet, delays that acknowledgement (RFC 9293 section 3.8.6.3). Each waits
 * for the other until the delayed-ACK timer ends it. --nodelay turns Nagle off.
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
#include <sys/time.h>
#include <unistd.h>

/*
 * Reads until the reply is there or the waiting time is over. Returns false when the connection is
 * gone.
 */
static bool await_reply(struct stream *in, const struct asked *asked, const atomic_bool *stop)
{
	const uint8_t *reply;

	while (clock_now_ns() - asked->m.sent_ns <= asked->o->wait_ns && !*stop) {
		ssize_t n = stream_read(in, &reply);

		if (n > 0 && book_reply(asked, reply, (size_t)n, clock_now_ns()))
			return true;
		if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
			continue;
		if (n == 0)
			warnx("%s: closed the connection", asked->o->host);
		else
			warn("%s", asked->o->host);
		asked->r->alien += n < 0 && errno == EBADMSG;
		asked->r->gone = true;
		book_unanswered(asked, *stop);
		return false;
	}
	book_unanswered(asked, *stop);
	return true;
}

int main(int argc, char **argv)
{
	struct options o = {.count = 10,
		.interval_ns = CLOCK_NS_PER_SECOND / 10,
		.size = 64,
		.wait_ns = CLOCK_NS_PER_SECOND,
		.flows = 1};
	struct timeval timeout = stop_timeout(STOP_TIMEOUT_NS);
	struct flow_report r = {0};
	struct asked asked = {.o = &o, .r = &r, .m = {.kind = MESSAGE_REQUEST}};
	struct message *m = &asked.m;
	struct stream in = {.fd = -1};
	struct schedule schedule;
	const atomic_bool *stop;
	uint8_t buf[MESSAGE_MAX_BYTES];
	struct addr server;
	int fd, status, on = 1;

	report_open(argc, argv);
	options_parse(&o, argc, argv, "HcisWpqJlr46" OPTIONS_NODELAY,
		"asks a TCP server in two writes, waits for the echo, times it");
	if (o.size <= MESSAGE_HEADER_BYTES)
		errx(2, "-s '%u' (--size): allowed is 49 to %d bytes, for a second piece", o.size,
			MESSAGE_MAX_BYTES);
	server = addr_resolve(o.host, o.port, o.family);
	asked.log = log_open(&o, LOG_RECEIVED_COLUMNS);
	stop = stop_on_signals();
	if (!o.run)
		o.run = message_new_run(clock_now_ns());
	r.tally = tally_new(o.count, o.wait_ns);
	m->length = o.size;
	m->clock_id = clock_id();
	m->flow = (uint32_t)o.run << 16;

	/* Step 1: make a socket, and leave Nagle's algorithm on, as it is by default, or turn it
	 * off. */
	fd = socket(server.storage.ss_family, SOCK_STREAM, 0);
	if (fd < 0)
		err(1, "socket");
	if (o.nodelay && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)))
		err(1, "TCP_NODELAY");

	/* Step 2: reach the server. */
	r.connect_ns = clock_now_ns();
	if (connect(fd, addr_sa(&server), server.len) && !*stop)
		err(1, "connect to %s", o.host);
	r.connect_ns = clock_now_ns() - r.connect_ns;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) ||
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)))
		err(1, "SO_RCVTIMEO, SO_SNDTIMEO");
	in.fd = fd;

	/* Step 3: write, write, read. */
	schedule = (struct schedule){clock_now_ns(), o.interval_ns};
	for (; o.count == 0 || m->seq < o.count; m->seq++) {
		if (!schedule_wait(&schedule, m->seq, stop, &m->due_ns, &m->sent_ns))
			break;
		message_encode(buf, m);
		r.scheduled++;
		if (!stream_write(fd, buf, MESSAGE_HEADER_BYTES, stop) ||
			!stream_write(fd, buf + MESSAGE_HEADER_BYTES,
				m->length - MESSAGE_HEADER_BYTES, stop)) {
			r.refused++;
			break;
		}
		r.sent++;
		schedule_late(&schedule, &r.sent_late, m->due_ns, m->sent_ns);
		if (!await_reply(&in, &asked, stop))
			break;
	}

	/* Step 4: see what the kernel knows, and close. */
	tcp_kernel(fd, &r.facts);
	close(fd);
	status = report_client(&o, *stop ? "signal" : "count", &r, 1);
	log_close(asked.log, o.log);
	tally_free(r.tally);
	return status;
}
