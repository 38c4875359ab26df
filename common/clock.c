#include "common/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS (100 * INT64_C(1000000))

int64_t clock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * CLOCK_NS_PER_SECOND + now.tv_nsec;
}

bool clock_sleep_until(int64_t when_ns, const atomic_bool *stop)
{
	static _Thread_local bool punctual;

	/*
	 * The kernel may wake us up to 50 us late, to save wake-ups, unless a thread says that it
	 * minds.
	 */
	if (!punctual)
		punctual = !prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
	while (!*stop) {
		int64_t now_ns = clock_now_ns();
		int64_t until_ns = when_ns - now_ns > SLICE_NS ? now_ns + SLICE_NS : when_ns;
		struct timespec until = {.tv_sec = until_ns / CLOCK_NS_PER_SECOND,
			.tv_nsec = until_ns % CLOCK_NS_PER_SECOND};

		if (now_ns >= when_ns)
			return true;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
	}
	return false;
}

uint32_t clock_id(void)
{
	char text[9] = "";
	unsigned int id = 0;
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (read(fd, text, 8) == 8 && sscanf(text, "%8x", &id) == 1 && id == 0)
		id = 1;
	close(fd);
	return id;
}
