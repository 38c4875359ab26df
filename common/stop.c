#include "common/stop.h"

#include <err.h>
#include <stddef.h>

static volatile sig_atomic_t stop;

static void on_signal(int signo)
{
	(void)signo;
	stop = 1;
}

const volatile sig_atomic_t *stop_on_signals(void)
{
	/* No SA_RESTART: a blocked call must come back with EINTR and let its loop look. */
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

	if (sigaction(SIGINT, &action, NULL) || sigaction(SIGTERM, &action, NULL))
		err(1, "sigaction");
	return &stop;
}

void stop_leave_to_threads(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

struct timeval stop_patience(int64_t wait_ns)
{
	if (wait_ns > STOP_PATIENCE_NS)
		wait_ns = STOP_PATIENCE_NS;
	if (wait_ns < 1000000)
		wait_ns = 1000000;
	return (struct timeval){.tv_usec = (suseconds_t)(wait_ns / 1000)};
}
