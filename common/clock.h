/*
 * clock: one clock for every time in the suite, CLOCK_MONOTONIC in nanoseconds.
 * It never sees messages or sockets.
 */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define CLOCK_NS_PER_SECOND INT64_C(1000000000)

/* Nanoseconds since this machine's boot; never steps back. */
int64_t clock_now_ns(void);

/*
 * Sleeps until the clock reads when_ns; an absolute time, so that no delay adds up. Returns true
 * then, and false as soon as *stop is set: it looks at least every 100 ms, because a signal may be
 * taken by another thread.
 */
bool clock_sleep_until(int64_t when_ns, const atomic_bool *stop);

/*
 * Which machine's boot the times belong to: 32 bits of the kernel's boot id, never 0. Two programs
 * with the same id read the same clock, so their times may be subtracted. 0 where the kernel does
 * not tell: then nothing may be.
 */
uint32_t clock_id(void);

#endif
