/*
 * The states of all TCP sockets of this host, as the kernel has them: asked every few milliseconds,
 * and told when they change. It has no twin, because UDP and raw sockets have no states.
 *
 * It asks by sock_diag (netlink, man 7 sock_diag), as `ss` does: that shows half-open connections
 * and those in TIME_WAIT too, which no program holds a descriptor of. A sample is not a trace: what
 * came and went between two samples is not seen, so a change is told with both times that it lies
 * between. -c counts samples: `-c 1` tells what there is, and ends.
 */
#include "common/addr.h"
#include "common/clock.h"
#include "common/options.h"
#include "common/report.h"
#include "common/samples.h"
#include "common/stop.h"

#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CANNOT_RUN 77
#define COSTS_KEPT 1000000 /* it may run for days */

/* Beyond the states of RFC 9293 the kernel has two: half open (12) and merely bound (13). */
#define ALL_STATES UINT32_MAX

static const char *const state_names[] = {"CLOSED", "ESTABLISHED", "SYN_SENT", "SYN_RECV",
	"FIN_WAIT_1", "FIN_WAIT_2", "TIME_WAIT", "BOUND", "CLOSE_WAIT", "LAST_ACK", "LISTEN",
	"CLOSING", "SYN_RECV", "BOUND"};
#define N_STATES (sizeof(state_names) / sizeof(state_names[0]))

static const char *const timer_names[] = {
	"off", "retransmit", "keepalive", "time_wait", "zero_window_probe"};
#define N_TIMERS (sizeof(timer_names) / sizeof(timer_names[0]))

/* One socket as a sample saw it. */
struct seen {
	/*
	 * What tells it from others: the two addresses. A connection keeps them while the kernel
	 * hands it on from one structure to the next (half-open, whole, TIME_WAIT), each with a
	 * cookie of its own; several listeners may share them, so for those the cookie counts.
	 */
	struct key {
		uint32_t family;
		struct inet_diag_sockid id;
	} key;
	unsigned int state, timer, retransmits;
	uint32_t timer_ms, rqueue, wqueue, inode;
	int64_t missing_ns;    /* since when it is not seen any more; 0: it is */
	int64_t last_there_ns; /* if missing: the sample before began then, and still had it */
};

struct list {
	struct seen *seen;
	size_t n, room;
};

struct sampler {
	const struct options *o;
	FILE *log;
	int fd;
	uint32_t request; /* the number of the last one, which its answers bear */
	struct list now, before;
	int64_t last_begin_ns; /* when the sample before this one began; 0: this is the first */
	uint64_t samples, changes;
	size_t most;
	int64_t longest_gap_ns; /* from the begin of a sample to the end of the next */
	struct samples cost;
};

static const char *name_of(const char *const *names, size_t n, unsigned int value)
{
	return value < n ? names[value] : "unknown";
}

static const char *state_name(const struct seen *seen)
{
	return name_of(state_names, N_STATES, seen->state);
}

static void list_add(struct list *l, const struct seen *seen)
{
	if (l->n == l->room) {
		l->room = l->room ? 2 * l->room : 64;
		l->seen = reallocarray(l->seen, l->room, sizeof(*l->seen));
		if (!l->seen)
			err(1, "%zu sockets", l->room);
	}
	l->seen[l->n++] = *seen;
}

static void add_answer(struct sampler *s, const struct nlmsghdr *h)
{
	struct inet_diag_msg m;
	struct seen seen;

	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(m)))
		return;
	memcpy(&m, NLMSG_DATA(h), sizeof(m));
	if (s->o->port && ntohs(m.id.idiag_sport) != s->o->port &&
		ntohs(m.id.idiag_dport) != s->o->port)
		return;
	memset(&seen, 0, sizeof(seen));
	seen.key.family = m.idiag_family;
	seen.key.id = m.id;
	if (m.idiag_family == AF_INET) {
		/* Only the first word of each is an IPv4 address; what is behind it is not promised. */
		memset(&seen.key.id.idiag_src[1], 0, 3 * sizeof(seen.key.id.idiag_src[0]));
		memset(&seen.key.id.idiag_dst[1], 0, 3 * sizeof(seen.key.id.idiag_dst[0]));
	}
	if (m.idiag_state != TCP_LISTEN && m.idiag_state != TCP_CLOSE) {
		memset(seen.key.id.idiag_cookie, 0, sizeof(seen.key.id.idiag_cookie));
		seen.key.id.idiag_if = 0;
	}
	seen.state = m.idiag_state;
	seen.timer = m.idiag_timer;
	seen.retransmits = m.idiag_retrans;
	seen.timer_ms = m.idiag_expires;
	seen.rqueue = m.idiag_rqueue;
	seen.wqueue = m.idiag_wqueue;
	seen.inode = m.idiag_inode;
	list_add(&s->now, &seen);
}

static void ask(struct sampler *s, uint8_t family)
{
	struct {
		struct nlmsghdr h;
		struct inet_diag_req_v2 r;
	} question = {.h = {.nlmsg_len = sizeof(question),
			      .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			      .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
			      .nlmsg_seq = ++s->request},
		.r = {.sdiag_family = family,
			.sdiag_protocol = IPPROTO_TCP,
			.idiag_states = ALL_STATES}};
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

	if (sendto(s->fd, &question, sizeof(question), 0, (struct sockaddr *)&kernel,
		    sizeof(kernel)) < 0)
		err(1, "asking the kernel");
}

/* Takes in the answers to the last question, until the kernel says that it is done. */
static void take_answers(struct sampler *s)
{
	static _Alignas(struct nlmsghdr) uint8_t buf[1 << 16];

	for (;;) {
		ssize_t n = recv(s->fd, buf, sizeof(buf), 0);
		size_t left = n > 0 ? (size_t)n : 0;
		struct nlmsghdr *h = (struct nlmsghdr *)(void *)buf;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			err(1, "reading the kernel's answer");
		for (; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_seq != s->request)
				continue;
			if (h->nlmsg_type == NLMSG_DONE)
				return;
			if (h->nlmsg_type == NLMSG_ERROR)
				/* A kernel without the tcp_diag module does not know the question. */
				errx(CANNOT_RUN, "this kernel does not tell the states of its "
						 "sockets (CONFIG_INET_TCP_DIAG); `modprobe "
						 "tcp_diag` may help");
			add_answer(s, h);
		}
	}
}

static void end_text(
	char text[ADDR_TEXT_BYTES], uint32_t family, const __be32 *address, __be16 port)
{
	struct addr a = {.len = sizeof(struct sockaddr_in)};

	if (family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)&a.storage;

		in->sin_family = AF_INET;
		in->sin_port = port;
		memcpy(&in->sin_addr, address, sizeof(in->sin_addr));
	} else {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&a.storage;

		a.len = sizeof(*in6);
		in6->sin6_family = AF_INET6;
		in6->sin6_port = port;
		memcpy(&in6->sin6_addr, address, sizeof(in6->sin6_addr));
	}
	addr_text(&a, text);
}

/*
 * Tells one change of a socket: it was in the state `before`, and is in `state` since a moment
 * behind since_ns (0: nobody looked before) and not behind ns.
 */
static void tell(struct sampler *s, const struct seen *seen, const char *before, const char *state,
	int64_t since_ns, int64_t ns)
{
	const char *timer = name_of(timer_names, N_TIMERS, seen->timer);
	char local[ADDR_TEXT_BYTES], remote[ADDR_TEXT_BYTES], since[24] = "";

	s->changes++;
	end_text(local, seen->key.family, seen->key.id.idiag_src, seen->key.id.idiag_sport);
	end_text(remote, seen->key.family, seen->key.id.idiag_dst, seen->key.id.idiag_dport);
	if (since_ns)
		snprintf(since, sizeof(since), "%" PRId64, since_ns);
	if (s->o->json)
		printf("{\"event\":\"state\",\"time_ns\":%" PRId64 ",\"since_ns\":%s,"
		       "\"local\":\"%s\",\"remote\":\"%s\",\"before\":\"%s\",\"state\":\"%s\","
		       "\"timer\":\"%s\",\"timer_ms\":%" PRIu32 ",\"retransmits\":%u,"
		       "\"rqueue\":%" PRIu32 ",\"wqueue\":%" PRIu32 ",\"inode\":%" PRIu32 "}\n",
			ns, since[0] ? since : "null", local, remote, before, state, timer,
			seen->timer_ms, seen->retransmits, seen->rqueue, seen->wqueue, seen->inode);
	else
		printf("%.6f %-22s %-22s %-11s -> %-11s timer=%s,%" PRIu32 "ms queues=%" PRIu32
		       ",%" PRIu32 " inode=%" PRIu32 "\n",
			(double)ns / 1e9, local, remote, before, state, timer, seen->timer_ms,
			seen->rqueue, seen->wqueue, seen->inode);
	if (s->log)
		fprintf(s->log,
			"%" PRId64 ",%s,%s,%s,%s,%s,%s,%" PRIu32 ",%u,%" PRIu32 ",%" PRIu32
			",%" PRIu32 "\n",
			ns, since, local, remote, before, state, timer, seen->timer_ms,
			seen->retransmits, seen->rqueue, seen->wqueue, seen->inode);
}

static int compare(const void *left, const void *right)
{
	return memcmp(left, right, sizeof(struct key));
}

/* An inode: a program holds it. A listener's rqueue: so many connections wait for accept(). */
static bool has_changed(const struct seen *was, const struct seen *is)
{
	return was->state != is->state || was->inode != is->inode ||
	       was->retransmits != is->retransmits ||
	       (is->state == TCP_LISTEN && was->rqueue != is->rqueue);
}

/* Leaves one of each key: two are seen when the kernel hands a socket on while it is asked. */
static void sort(struct list *l)
{
	size_t n = 0;

	if (l->n)
		qsort(l->seen, l->n, sizeof(*l->seen), compare);
	for (size_t i = 0; i < l->n; i++) {
		if (n && !compare(&l->seen[n - 1], &l->seen[i]))
			n--;
		l->seen[n++] = l->seen[i];
	}
	l->n = n;
}

/*
 * One that was not found: it may be gone, or it was just being handed on. So it is gone when it is
 * not found twice, since the first time.
 */
static void miss(struct sampler *s, struct seen *was, int64_t end_ns)
{
	if (!was->missing_ns) {
		was->missing_ns = end_ns;
		was->last_there_ns = s->last_begin_ns;
		list_add(&s->now, was);
		return;
	}
	was->timer = was->timer_ms = was->rqueue = was->wqueue = was->inode = 0;
	tell(s, was, state_name(was), "CLOSED", was->last_there_ns, was->missing_ns);
}

/* Both lists are in order of their keys: walks through them side by side. */
static void tell_changes(struct sampler *s, int64_t end_ns)
{
	size_t i = 0, j = 0, n = s->now.n;

	while (i < s->before.n || j < n) {
		int order = i == s->before.n ? 1 : -1;

		if (i < s->before.n && j < n)
			order = compare(&s->before.seen[i], &s->now.seen[j]);
		if (order < 0) {
			miss(s, &s->before.seen[i], end_ns);
		} else if (order > 0) {
			tell(s, &s->now.seen[j], "CLOSED", state_name(&s->now.seen[j]),
				s->last_begin_ns, end_ns);
		} else if (has_changed(&s->before.seen[i], &s->now.seen[j])) {
			tell(s, &s->now.seen[j], state_name(&s->before.seen[i]),
				state_name(&s->now.seen[j]), s->last_begin_ns, end_ns);
		}
		i += order <= 0;
		j += order >= 0;
	}
	if (s->now.n != n)
		sort(&s->now);
	if (fflush(stdout))
		err(1, "stdout");
}

/* Fills s->now with every socket that there is, in no order. */
static void look(struct sampler *s)
{
	s->now.n = 0;
	if (s->o->family != AF_INET6) {
		ask(s, AF_INET);
		take_answers(s);
	}
	if (s->o->family != AF_INET) {
		ask(s, AF_INET6);
		take_answers(s);
	}
}

static void sample(struct sampler *s)
{
	int64_t begin_ns = clock_now_ns(), end_ns;
	struct list emptied;

	look(s);
	end_ns = clock_now_ns();
	sort(&s->now);
	if (s->now.n > s->most)
		s->most = s->now.n;
	tell_changes(s, end_ns);
	if (s->cost.n < COSTS_KEPT)
		samples_add(&s->cost, end_ns - begin_ns);
	if (s->last_begin_ns && end_ns - s->last_begin_ns > s->longest_gap_ns)
		s->longest_gap_ns = end_ns - s->last_begin_ns;
	s->samples++;
	s->last_begin_ns = begin_ns;
	emptied = s->before;
	s->before = s->now;
	s->now = emptied;
}

static void tell_ready(const struct options *o)
{
	const char *program = program_invocation_short_name;

	if (o->json)
		printf("{\"event\":\"ready\",\"program\":\"%s\",\"pid\":%d,\"interval_ns\":%" PRId64
		       "}\n",
			program, (int)getpid(), o->interval_ns);
	else
		printf("%s: ready, looks every %.3f ms\n", program, (double)o->interval_ns / 1e6);
	if (fflush(stdout))
		err(1, "stdout");
}

static void summarize(struct sampler *s, const char *ended)
{
	struct samples_summary cost;

	samples_summarize(&s->cost, 0, &cost);
	if (s->o->json)
		printf("{\"event\":\"summary\",\"schema_version\":1,\"program\":\"%s\","
		       "\"ended\":\"%s\",\"samples\":%" PRIu64 ",\"changes\":%" PRIu64
		       ",\"most_sockets\":%zu,\"interval_ns\":%" PRId64
		       ",\"longest_gap_ns\":%" PRId64 ",\"sample_ns\":{\"min\":%" PRId64
		       ",\"mean\":%" PRId64 ",\"p50\":%" PRId64 ",\"p90\":%" PRId64
		       ",\"p99\":%" PRId64 ",\"max\":%" PRId64 "}}\n",
			program_invocation_short_name, ended, s->samples, s->changes, s->most,
			s->o->interval_ns, s->longest_gap_ns, cost.min, cost.mean, cost.p50,
			cost.p90, cost.p99, cost.max);
	else
		printf("%" PRIu64 " samples, %" PRIu64 " changes, at most %zu sockets; a sample "
		       "took %.3f ms at the median, %.3f ms at most; longest gap %.3f ms\n",
			s->samples, s->changes, s->most, (double)cost.p50 / 1e6,
			(double)cost.max / 1e6, (double)s->longest_gap_ns / 1e6);
	if (fflush(stdout))
		err(1, "stdout");
}

int main(int argc, char **argv)
{
	struct options o = {.interval_ns = CLOCK_NS_PER_SECOND / 100};
	struct sampler s = {.o = &o};
	const atomic_bool *stop;
	int64_t due_ns;

	report_open(argc, argv);
	options_parse(&o, argc, argv, "cipl46J",
		"tells every change of a TCP socket's state; -c counts samples, -i parts them");
	s.log = log_open(&o, "time_ns,since_ns,local,remote,before,state,timer,timer_ms,"
			     "retransmits,rqueue,wqueue,inode");
	stop = stop_on_signals();

	/* Step 1: make a socket: to the kernel itself. */
	s.fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (s.fd < 0)
		err(CANNOT_RUN, "no way to ask this kernel for its sockets");

	/* Step 2: look once, in silence: is there an answer? If so, say that we are ready. */
	look(&s);
	tell_ready(&o);

	/* Step 3: look again and again. A sample that is late delays the next, and is not made up for. */
	due_ns = clock_now_ns();
	while (clock_sleep_until(due_ns, stop)) {
		sample(&s);
		if (o.count && s.samples >= o.count)
			break;
		due_ns += o.interval_ns;
		if (due_ns < clock_now_ns())
			due_ns = clock_now_ns();
	}

	/* Step 4: look twice more, for what is gone has to be missed twice; sum up, and close. */
	for (int i = 0; i < 2 && o.count == 0; i++)
		sample(&s);
	close(s.fd);
	log_close(s.log, o.log);
	summarize(&s, *stop ? "signal" : "count");
	samples_free(&s.cost);
	free(s.now.seen);
	free(s.before.seen);
	return 0;
}
