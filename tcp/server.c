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
#include <sys/time.h>
#include <unistd.h>

/* What the threads share; under the lock. */
struct shared {
	pthread_mutex_t lock;
	pthread_cond_t left; /* a client has gone */
	unsigned int open;   /* clients now */
	struct flow_report r;
	const atomic_bool *stop;
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
	struct shared *shared = conn->shared;
	const uint8_t *message;
	ssize_t n;
	int error;

	do {
		n = stream_read(&conn->in, &message);
		error = n < 0 ? errno : 0;
		if (n > 0 && !answer(conn, message, (size_t)n))
			break;
	} while ((n > 0 || error == EAGAIN || error == EINTR) && !*shared->stop);
	pthread_mutex_lock(&shared->lock);
	shared->r.alien += error == EBADMSG;
	shared->r.corrupt += error == ENODATA;
	shared->r.reset += error == ECONNRESET;
	close(conn->in.fd);
	free(conn);
	shared->open--;
	pthread_cond_signal(&shared->left);
	pthread_mutex_unlock(&shared->lock);
	return NULL;
}

/*
 * Gives a client a thread. One that cannot be had is the client's loss: its connection is closed.
 */
static void begin_serving(struct shared *shared, int fd)
{
	struct timeval timeout = stop_timeout(STOP_TIMEOUT_NS);
	struct conn *conn = malloc(sizeof(*conn));
	bool served = false;
	pthread_t thread;
	int on = 1;

	/*
	 * Else a reply waits until the one before it is acknowledged (Nagle, RFC 9293 section
	 * 3.7.4).
	 */
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) ||
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) ||
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)))
		warn("options of a connection");
	pthread_mutex_lock(&shared->lock);
	if (conn) {
		conn->shared = shared;
		conn->in.fd = fd;
		conn->in.begin = conn->in.end = 0;
		served = pthread_create(&thread, NULL, serve, conn) == 0;
	}
	shared->open += served;
	shared->r.connections++;
	shared->r.refused += !served;
	pthread_mutex_unlock(&shared->lock);
	if (served) {
		pthread_detach(thread);
	} else {
		free(conn);
		close(fd);
	}
}

/* The threads notice that we were stopped, each at its next read; what they counted is then all. */
static void await_threads(struct shared *shared)
{
	pthread_mutex_lock(&shared->lock);
	while (shared->open)
		pthread_cond_wait(&shared->left, &shared->lock);
	pthread_mutex_unlock(&shared->lock);
}

int main(int argc, char **argv)
{
	struct options o = {.flows = 1};
	struct shared shared = {
		.lock = PTHREAD_MUTEX_INITIALIZER, .left = PTHREAD_COND_INITIALIZER};
	struct timeval timeout = stop_timeout(STOP_TIMEOUT_NS);
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
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)))
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
			clock_sleep_until(clock_now_ns() + STOP_TIMEOUT_NS / 10, shared.stop);
	}

	/* Step 4: see what the kernel knows, and close. Each connection had a socket of its own,
	 * so there is no sum. */
	close(fd);
	await_threads(&shared);
	return report_server(&o, "signal", &shared.r);
}
