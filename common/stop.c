#include "common/stop.h"

#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>

static atomic_bool stop;

static void on_signal(int signo)
{
	(void)signo;
	stop = true;
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
}

/* That a call was interrupted is all that is wanted. */
static void on_nudge(int signo)
{
	(void)signo;
}

const atomic_bool *stop_on_signals(void)
{
	/* No SA_RESTART: a blocked call must come back with EINTR and let its loop look. */
	struct sigaction action = {.sa_handler = on_signal}, nudge = {.sa_handler = on_nudge};

	if (sigaction(SIGINT, &action, NULL) || sigaction(SIGTERM, &action, NULL) ||
		sigaction(SIGUSR1, &nudge, NULL))
		err(1, "sigaction");
	return &stop;
}

void stop_join(pthread_t thread)
{
	struct timespec until;

	do {
		if (stop)
			pthread_kill(thread, SIGUSR1);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += STOP_TIMEOUT_NS;
		if (until.tv_nsec >= 1000000000) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000;
		}
	} while (pthread_timedjoin_np(thread, NULL, &until) == ETIMEDOUT);
}

struct timeval stop_timeout(int64_t wait_ns)
{
	int64_t parts = (wait_ns + STOP_TIMEOUT_NS - 1) / STOP_TIMEOUT_NS;
	int64_t part_us = parts ? wait_ns / parts / 1000 : 0;

	return (struct timeval){.tv_usec = part_us < 1000 ? 1000 : (suseconds_t)part_us};
}
