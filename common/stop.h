/*
 * stop: how Ctrl-C and SIGTERM reach a program's loops: as a flag that they look at, so that the
 * summary is still printed. It knows no sockets: a read notices the flag because SO_RCVTIMEO ends
 * it now and then.
 */
#ifndef COMMON_STOP_H
#define COMMON_STOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/time.h>

/*
 * From now on the first SIGINT or SIGTERM sets the flag that is returned, and interrupts what is
 * blocked; a second one, of either kind, ends the program as if this had never been called.
 */
const atomic_bool *stop_on_signals(void);

/*
 * Waits for a thread to end. A signal interrupts one thread only, whichever the kernel takes: once
 * the flag is set, the thread that is waited for is interrupted again and again until it has
 * looked.
 */
void stop_join(pthread_t thread);

/* How long a read may block before the flag is looked at. */
#define STOP_TIMEOUT_NS INT64_C(100000000)

/*
 * For SO_RCVTIMEO and SO_SNDTIMEO: wait_ns in so many equal parts that none is above
 * STOP_TIMEOUT_NS, so that the last one ends when the waiting time does; at least 1 ms, because 0
 * would be for ever.
 */
struct timeval stop_timeout(int64_t wait_ns);

#endif
