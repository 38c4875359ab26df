/*
 * What the wire is measured against, on the same machine in the same run:
 *   bare cable    the two hosts, and between their TAPs a loop that reads and writes and does nothing else
 *   bare sleeper INTERVAL_US COUNT   a loop that sleeps until COUNT due times, and how late it woke
 */
#include "common/wire/host.h"

#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Carries frames until stdin ends. */
static void cable(void)
{
	static uint8_t frame[65536 + 64];
	struct host_failure failure;
	struct hosts hosts;

	if (host_start(&hosts, false, true, &failure) < 0)
		errx(77, "cannot %s: %s", failure.what, strerror(failure.error));
	printf("{\"event\":\"ready\",\"client\":%d,\"server\":%d}\n", hosts.pid[HOST_CLIENT],
		hosts.pid[HOST_SERVER]);
	fflush(stdout);
	for (;;) {
		struct pollfd fds[3] = {{.fd = hosts.tap[HOST_CLIENT], .events = POLLIN},
			{.fd = hosts.tap[HOST_SERVER], .events = POLLIN},
			{.fd = STDIN_FILENO, .events = POLLIN}};
		ssize_t n;

		poll(fds, 3, -1);
		if (fds[2].revents)
			break;
		for (int from = 0; from < HOSTS; from++)
			for (int i = 0; i < 32; i++) {
				n = read(hosts.tap[from], frame, sizeof(frame));
				if (n <= 0 || write(hosts.tap[!from], frame, (size_t)n) < 0)
					break;
			}
	}
	host_stop(&hosts);
}

static int ascending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* Sleeps as the wire does: ppoll() with what is left, and no slack. */
static void sleeper(int64_t interval_ns, size_t count)
{
	int64_t *late = calloc(count, sizeof(*late)), start = now_ns() + interval_ns;

	if (!late)
		err(1, "%zu times", count);
	prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
	for (size_t i = 0; i < count; i++) {
		int64_t due = start + (int64_t)i * interval_ns, left;

		while ((left = due - now_ns()) > 0) {
			struct timespec rest = {
				.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};

			ppoll(NULL, 0, &rest, NULL);
		}
		late[i] = -left;
	}
	qsort(late, count, sizeof(*late), ascending);
	printf("{\"p50_ns\":%" PRId64 ",\"p99_ns\":%" PRId64 "}\n", late[(count - 1) / 2],
		late[count * 99 / 100]);
	free(late);
}

int main(int argc, char **argv)
{
	long interval_us, count;

	if (argc == 2 && strcmp(argv[1], "cable") == 0) {
		cable();
		return 0;
	}
	if (argc != 4 || strcmp(argv[1], "sleeper") != 0)
		errx(2, "usage: bare cable | bare sleeper INTERVAL_US COUNT");
	interval_us = strtol(argv[2], NULL, 10);
	count = strtol(argv[3], NULL, 10);
	if (interval_us < 1 || count < 100)
		errx(2, "bare sleeper: allowed is an interval of at least 1 us and a count of at "
			"least 100");
	sleeper(interval_us * 1000, (size_t)count);
	return 0;
}
