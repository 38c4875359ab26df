/*
 * stop: how Ctrl-C and SIGTERM reach a program's loops: as a flag that they look at, so that the
 * summary is still printed. It knows no sockets: a read notices the flag because SO_RCVTIMEO ends
 * it now and then.
 */
#ifndef COMMON_STOP_H
#define COMMON_STOP_H

#include <signal.h>
#include <stdint.h>
#include <sys/time.h>

/*
 * From now on the first SIGINT or SIGTERM sets the flag that is returned, and interrupts what is
 * blocked; a second one ends the program as if this had never been called.
 */
const volatile sig_atomic_t *stop_on_signals(void);

/*
 * Leaves the signals to the program's other threads: the one that is blocked in a call is the one
 * to be interrupted, and not the one that merely waits for it.
 */
void stop_leave_to_threads(void);

/* How long a read may block before the flag is looked at. */
#define STOP_PATIENCE_NS INT64_C(100000000)

/*
 * For SO_RCVTIMEO and SO_SNDTIMEO: wait_ns, but at least 1 ms (0 would be for ever) and at most
 * STOP_PATIENCE_NS.
 */
struct timeval stop_patience(int64_t wait_ns);

#endif
