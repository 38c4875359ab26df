#include "common/schedule.h"
#include "common/clock.h"

int64_t schedule_due_ns(const struct schedule *s, uint64_t n)
{
	int64_t due_ns;

	/* Past the end of time (292 years) it stays there. */
	if (__builtin_mul_overflow(s->interval_ns, n, &due_ns) ||
		__builtin_add_overflow(s->start_ns, due_ns, &due_ns))
		return INT64_MAX;
	return due_ns;
}

bool schedule_wait(const struct schedule *s, uint64_t n, const atomic_bool *stop, int64_t *due_ns,
	int64_t *sent_ns)
{
	if (s->interval_ns == 0) {
		*due_ns = *sent_ns = clock_now_ns();
		return !*stop;
	}
	*due_ns = schedule_due_ns(s, n);
	if (!clock_sleep_until(*due_ns, stop))
		return false;
	*sent_ns = clock_now_ns();
	return true;
}

void schedule_late(const struct schedule *s, struct samples *late, int64_t due_ns, int64_t sent_ns)
{
	if (s->interval_ns)
		samples_add(late, sent_ns > due_ns ? sent_ns - due_ns : 0);
}
