/*
 * The client that takes one read for one message: a TCP client as it is often written, and wrong. A
 * read returns what has arrived by then, which may be half a message, or one and a half. It has no
 * twin, because with datagrams it would be right. tcp/client.c asks the same through tcp/stream.c,
 * and is.
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
 * One read, and whatever it returns is taken for the reply: the mistake. Returns false when the
 * connection is gone.
 */
static bool await_reply(int fd, const struct asked *asked)
{
	uint8_t buf[MESSAGE_MAX_BYTES];
	ssize_t n = recv(fd, buf, sizeof(buf), 0);

	if (n > 0)
		book_reply(asked, buf, (size_t)n, clock_now_ns());
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

int main(int argc, char **argv)
{
	struct options o = {.count = 10,
		.interval_ns = CLOCK_NS_PER_SECOND / 10,
		.size = 64,
		.wait_ns = CLOCK_NS_PER_SECOND,
		.flows = 1};
	struct timeval timeout = {.tv_sec = 1};
	struct flow_report r = {0};
	struct asked asked = {.o = &o, .r = &r, .m = {.kind = MESSAGE_REQUEST}};
	struct message *m = &asked.m;
	struct schedule schedule;
	const atomic_bool *stop;
	uint8_t buf[MESSAGE_MAX_BYTES];
	struct addr server;
	int fd, on = 1;

	report_open(argc, argv);
	options_parse(&o, argc, argv, "HcispqJr46",
		"asks a TCP server and takes the next read for the echo: a mistake");
	server = addr_resolve(o.host, o.port, o.family);
	stop = stop_on_signals();
	if (!o.run)
		o.run = message_new_run(clock_now_ns());
	r.tally = tally_new(o.count, o.wait_ns);
	m->length = o.size;
	m->clock_id = clock_id();
	m->flow = (uint32_t)o.run << 16;

	/* Step 1: make a socket. */
	fd = socket(server.storage.ss_family, SOCK_STREAM, 0);
	if (fd < 0)
		err(1, "socket");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)))
		err(1, "SO_RCVTIMEO");
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)))
		err(1, "TCP_NODELAY");

	/* Step 2: reach the server. */
	r.connect_ns = clock_now_ns();
	if (connect(fd, addr_sa(&server), server.len) && !*stop)
		err(1, "connect to %s", o.host);
	r.connect_ns = clock_now_ns() - r.connect_ns;

	/* Step 3: ask, each time when it is due, and read once. */
	schedule = (struct schedule){clock_now_ns(), o.interval_ns};
	for (; o.count == 0 || m->seq < o.count; m->seq++) {
		if (!schedule_wait(&schedule, m->seq, stop, &m->due_ns, &m->sent_ns))
			break;
		message_encode(buf, m);
		r.scheduled++;
		if (!stream_write(fd, buf, m->length, stop)) {
			r.refused++;
			break;
		}
		r.sent++;
		schedule_late(&schedule, &r.sent_late, m->due_ns, m->sent_ns);
		if (!await_reply(fd, &asked))
			break;
	}

	/* Step 4: see what the kernel knows, and close. */
	tcp_kernel(fd, &r.facts);
	close(fd);
	return report_client(&o, *stop ? "signal" : "count", &r, 1);
}
