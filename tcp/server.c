/*
 * The TCP server: echoes. One socket listens, and every client gets a socket of its own, and here a
 * thread: a client that is slow, silent or gone holds up nobody else.
 */
#include "common/addr.h"
#include "common/clock.h"
#include "common/message.h"
#include "common/options.h"
#include "common/report.h"
#include "common/stop.h"
#include "tcp/stream.h"

#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

/* What the threads share; under the lock. */
struct shared {
	pthread_mutex_t lock;
	struct flow_report r;
	const volatile sig_atomic_t *stop;
};

struct conn {
	struct shared *shared;
	struct stream in;
};

/*
 * Answers what arrived, if it is a request: with its own bytes, marked as a reply, and never more
 * of them.
 */
static bool answer(struct conn *conn, const uint8_t *buf, size_t n)
{
	struct shared *shared = conn->shared;
	uint8_t reply[MESSAGE_MAX_BYTES];
	struct message m;
	enum message_verdict verdict = message_decode(buf, n, &m);
	bool written = true, asks = verdict == MESSAGE_OK && m.kind == MESSAGE_REQUEST;

	if (asks) {
		m.kind = MESSAGE_REPLY;
		message_encode(reply, &m);
		written = stream_write(conn->in.fd, reply, m.length, shared->stop);
	}
	pthread_mutex_lock(&shared->lock);
	if (verdict == MESSAGE_CORRUPT) {
		shared->r.corrupt++;
	} else if (verdict == MESSAGE_ALIEN) {
		shared->r.alien++;
	} else if (!asks) {
		/*
		 * Above all no reply to a reply: two echo servers would send it to and fro for
		 * ever.
		 */
		shared->r.foreign++;
	} else {
		shared->r.requests++;
		shared->r.replies += written;
		shared->r.refused += !written;
	}
	pthread_mutex_unlock(&shared->lock);
	return written;
}

/* One client, until it closes. */
static void *serve(void *arg)
{
	struct conn *conn = arg;
	const uint8_t *message;
	ssize_t n;

	do {
		n = stream_read(&conn->in, &message);
		if (n > 0 && !answer(conn, message, (size_t)n))
			break;
	} while (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR) && !*conn->shared->stop));
	if (n < 0 && (errno == EBADMSG || errno == ECONNRESET)) {
		int error = errno;

		pthread_mutex_lock(&conn->shared->lock);
		conn->shared->r.alien += error == EBADMSG;
		conn->shared->r.reset += error == ECONNRESET;
		pthread_mutex_unlock(&conn->shared->lock);
	}
	close(conn->in.fd);
	free(conn);
	return NULL;
}

/*
 * Gives a client a thread. One that cannot be had is the client's loss: its connection is closed.
 */
static void begin_serving(struct shared *shared, int fd)
{
	struct timeval patience = stop_patience(STOP_PATIENCE_NS);
	struct conn *conn = malloc(sizeof(*conn));
	bool served = false;
	pthread_t thread;
	int on = 1;

	/*
	 * Else a reply waits until the one before it is acknowledged (Nagle, RFC 9293 section
	 * 3.7.4).
	 */
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) ||
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)))
		warn("options of a connection");
	if (conn) {
		conn->shared = shared;
		conn->in.fd = fd;
		conn->in.begin = conn->in.end = 0;
		served = pthread_create(&thread, NULL, serve, conn) == 0;
	}
	if (served) {
		pthread_detach(thread);
	} else {
		free(conn);
		close(fd);
	}
	pthread_mutex_lock(&shared->lock);
	shared->r.connections++;
	shared->r.refused += !served;
	pthread_mutex_unlock(&shared->lock);
}

int main(int argc, char **argv)
{
	struct options o = {.flows = 1};
	struct shared shared = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct timeval patience = stop_patience(STOP_PATIENCE_NS);
	struct flow_report r;
	char text[ADDR_TEXT_BYTES];
	struct addr own;
	int fd, conn, on = 1;

	report_open(argc, argv);
	options_parse(&o, argc, argv, OPTIONS_SERVER OPTIONS_PORT, "echoes what TCP clients ask");
	own = addr_resolve(o.bind ? o.bind : addr_loopback(o.family), o.port, o.family);
	shared.stop = stop_on_signals();

	/* Step 1: make a socket. */
	fd = socket(own.storage.ss_family, SOCK_STREAM, 0);
	if (fd < 0)
		err(1, "socket");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		err(1, "SO_RCVTIMEO");
	if (o.rcvbuf && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &o.rcvbuf, sizeof(o.rcvbuf)))
		err(1, "SO_RCVBUF %u", o.rcvbuf);
	/* Else a restart fails while connections of the last run stand in TIME_WAIT. */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)))
		err(1, "SO_REUSEADDR");

	/* Step 2: take an address. From listen() on the kernel completes handshakes for us, from
	 * anybody. */
	if (bind(fd, addr_sa(&own), own.len))
		err(1, "bind to %s", addr_text(&own, text));
	if (listen(fd, SOMAXCONN))
		err(1, "listen");
	if (getsockname(fd, addr_sa(&own), &own.len))
		err(1, "getsockname");
	report_ready(&o, addr_host_text(&own, text), addr_port(&own), IPPROTO_TCP);

	/* Step 3: serve. accept() hands out a client's own socket; the one that listens goes on
	 * listening. */
	while (!*shared.stop) {
		conn = accept(fd, NULL, NULL);
		if (conn >= 0)
			begin_serving(&shared, conn);
		else if (errno != EAGAIN && errno != EINTR)
			/* No room for one more, as a rule: it waits in the backlog meanwhile. */
			clock_sleep_until(clock_now_ns() + STOP_PATIENCE_NS / 10, shared.stop);
	}

	/* Step 4: see what the kernel knows, and close. Each connection had a socket of its own,
	 * so there is no sum. */
	close(fd);
	pthread_mutex_lock(&shared.lock);
	r = shared.r;
	pthread_mutex_unlock(&shared.lock);
	return report_server(&o, "signal", &r);
}
