/*
 * The TCP receiver: accounts for every message: loss, duplicates, order, one-way delay. Each flow
 * comes in on a connection of its own, read by a thread of its own, and its end is told: the sender
 * closes.
 */
#include "common/addr.h"
#include "common/book.h"
#include "common/clock.h"
#include "common/options.h"
#include "common/report.h"
#include "common/stop.h"
#include "tcp/kernel.h"
#include "tcp/stream.h"

#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

/* What the threads share; under the lock. */
struct shared {
	pthread_mutex_t lock;
	pthread_cond_t left; /* a connection has ended */
	struct book book;
	unsigned int open; /* connections now */
	int64_t over_ns;   /* when it ended, all in all; 0: not yet */
};

struct conn {
	struct shared *shared;
	struct stream in;
};

/* One connection, until its end. */
static void *take_in(void *arg)
{
	struct conn *conn = arg;
	struct shared *shared = conn->shared;
	const uint8_t *message;
	int entered, error, flow = -1;
	int64_t now_ns;
	bool over;
	ssize_t n;

	do {
		n = stream_read(&conn->in, &message);
		error = n < 0 ? errno : 0;
		now_ns = clock_now_ns();
		pthread_mutex_lock(&shared->lock);
		if (n > 0)
			entered = book_enter(&shared->book, message, (size_t)n, now_ns);
		if (n > 0 && entered >= 0 && flow < 0) {
			flow = entered;
			shared->book.flows[flow].connections++;
		}
		/* What is queued when all is over still counts, for a second at the most. */
		over = shared->over_ns && (n < 0 || now_ns - shared->over_ns > CLOCK_NS_PER_SECOND);
		pthread_mutex_unlock(&shared->lock);
	} while (!over && (n > 0 || error == EAGAIN || error == EINTR));
	pthread_mutex_lock(&shared->lock);
	shared->book.all.alien += error == EBADMSG;
	shared->book.all.corrupt += error == ENODATA;
	shared->book.all.reset += error == ECONNRESET;
	if (flow >= 0) {
		/* Should a flow have had two connections, the figures are the last one's. */
		shared->book.flows[flow].facts.n = 0;
		tcp_kernel(conn->in.fd, &shared->book.flows[flow].facts);
		shared->book.flows[flow].closed++;
	}
	close(conn->in.fd);
	shared->open--;
	pthread_cond_signal(&shared->left);
	pthread_mutex_unlock(&shared->lock);
	free(conn);
	return NULL;
}

/* Gives a connection a thread, or closes it when none can be had. */
static void begin_taking_in(struct shared *shared, int fd)
{
	struct timeval timeout = stop_timeout(shared->book.o->wait_ns);
	struct conn *conn = malloc(sizeof(*conn));
	pthread_t thread;

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)))
		warn("SO_RCVTIMEO");
	if (conn) {
		conn->shared = shared;
		conn->in.fd = fd;
		conn->in.begin = conn->in.end = 0;
		pthread_mutex_lock(&shared->lock);
		shared->open++;
		pthread_mutex_unlock(&shared->lock);
		errno = pthread_create(&thread, NULL, take_in, conn);
		if (!errno) {
			pthread_detach(thread);
			return;
		}
		pthread_mutex_lock(&shared->lock);
		shared->open--;
		pthread_mutex_unlock(&shared->lock);
	}
	warn("a connection is turned away");
	free(conn);
	close(fd);
}

/* Every flow has had its connection, and none of theirs is open. Strangers' may well be. */
static bool all_closed(const struct book *book)
{
	for (uint16_t i = 0; i < book->o->flows; i++)
		if (!book->flows[i].closed || book->flows[i].closed < book->flows[i].connections)
			return false;
	return true;
}

/* Why it is over; NULL if it is not. */
static const char *ended(struct shared *shared, bool stopped)
{
	const char *why;

	pthread_mutex_lock(&shared->lock);
	why = all_closed(&shared->book) ? "closed" : book_ended(&shared->book, stopped, true);
	pthread_mutex_unlock(&shared->lock);
	return why;
}

/* Tells the threads that it is over, and waits until they have gone. */
static void await_threads(struct shared *shared)
{
	pthread_mutex_lock(&shared->lock);
	shared->over_ns = clock_now_ns();
	while (shared->open)
		pthread_cond_wait(&shared->left, &shared->lock);
	pthread_mutex_unlock(&shared->lock);
}

int main(int argc, char **argv)
{
	struct options o = {.wait_ns = 5 * CLOCK_NS_PER_SECOND, .flows = 1};
	struct shared shared = {
		.lock = PTHREAD_MUTEX_INITIALIZER, .left = PTHREAD_COND_INITIALIZER};
	const atomic_bool *stop;
	const char *why = NULL;
	struct timeval timeout;
	char text[ADDR_TEXT_BYTES];
	struct addr own;
	int fd, conn, status, on = 1;

	report_open(argc, argv);
	options_parse(&o, argc, argv, OPTIONS_RECEIVER OPTIONS_PORT,
		"accounts for every message of a TCP sender");
	own = addr_resolve(o.bind ? o.bind : addr_loopback(o.family), o.port, o.family);
	shared.book = book_open(&o);
	timeout = stop_timeout(o.wait_ns);
	stop = stop_on_signals();

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

	/* Step 3: take in the messages. The threads read; here their connections come in. */
	while (!why) {
		conn = accept(fd, NULL, NULL);
		if (conn >= 0)
			begin_taking_in(&shared, conn);
		else if (errno != EAGAIN && errno != EINTR)
			/* No room for one more, as a rule: it waits in the backlog meanwhile. */
			clock_sleep_until(clock_now_ns() + STOP_TIMEOUT_NS / 10, stop);
		why = ended(&shared, *stop);
	}
	await_threads(&shared);

	/* Step 4: see what the kernel knows, and close. Each thread has asked it at its end. */
	close(fd);
	status = report_receiver(&o, why, &shared.book.all, shared.book.flows, o.flows);
	book_close(&shared.book);
	return status;
}
