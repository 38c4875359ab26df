/*
 * wire: two hosts and the cable between them. One thread reads each host's frames, asks fate.h what
 * becomes of them, keeps them in queue.h until they are due, and hands them to the other host. It
 * sleeps when nothing is due.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/options.h"
#include "common/wire/fate.h"
#include "common/wire/frame.h"
#include "common/wire/host.h"
#include "common/wire/log.h"
#include "common/wire/pcapng.h"
#include "common/wire/queue.h"

enum {
	EXIT_USAGE = 2,
	EXIT_CANNOT_RUN = 77,
	EXIT_CANNOT_EXECUTE = 126,
	EXIT_NOT_FOUND = 127,
	/* No TAP hands out more: 64 KiB and an Ethernet header, whatever the MTU. */
	FRAME_BYTES = 65536 + 64,
	/* Frames taken or delivered before it looks at the other side. */
	BATCH = 32,
	/* Rounds under load before it looks at orders and signals. */
	ROUNDS = 16,
	ORDER_BYTES = FATE_TEXT_BYTES,
	ANSWER_BYTES = 4 * FATE_TEXT_BYTES,
	NICE = -10,
	/* Under endless traffic a drain waits for the packets and 99 rounds of answers. */
	DRAIN_ROUNDS = 100,
};

/* How long a command has, after a signal that ends the wire, to end by itself. */
static const int64_t grace_ns = INT64_C(1000000000);

static const char usage[] =
	"usage: wire [OPTION...] [--] [COMMAND [ARGUMENT...]]\n"
	"Makes two hosts, client (10.0.0.1, fd00::1) and server (10.0.0.2, fd00::2), and is the\n"
	"cable between them. Runs COMMAND on client and exits as it does; in it, `on server CMD`\n"
	"runs CMD on the other host. Without a command it takes orders on stdin, one a line.\n"
	"\n"
	"  --link SPEC     what the link does, both ways: words as in tc-netem, e.g.\n"
	"                  'delay 20ms 5ms loss 5%', 'rate 1mbit limit 20', 'drop data:3'\n"
	"  --up SPEC       client to server only; replaces --link's for this direction\n"
	"  --down SPEC     server to client only\n"
	"  --seed N        what the fates are drawn from, 0 to 18446744073709551615 (1)\n"
	"  --log FILE      one CSV row for each packet\n"
	"  --pcap FILE     a capture of both ends (pcapng)\n"
	"  --arp           the hosts ask for each other's hardware addresses\n"
	"  --dry-run N     print the first N fates of each class, and make no network\n"
	"  --check         say whether this machine can run it, and what helps if not\n"
	"  --help          this text\n"
	"  --version       the version\n"
	"\n"
	"SPEC is any of: delay TIME [JITTER [distribution uniform|normal]], loss P%,\n"
	"  loss gemodel P [R [1-H [1-K]]], duplicate P%, corrupt P%, reorder P% [gap N], rate "
	"RATE,\n"
	"  limit PACKETS, drop CLASS:N[,N-M...], block|reject PROTO[:PORT], allow PROTO:PORT\n"
	"Unlike netem: copies use no rate and take no place in limit; reject answers at once, at\n"
	"the entrance of the link; there are no correlations.\n"
	"Orders: run [SEED], link SPEC, up SPEC, down SPEC, counters, drain, quit. drain is\n"
	"answered when nothing is on its way; under traffic that does not end, when what was sent\n"
	"before it is through, and 99 rounds of answers to it.\n"
	"Exit: as the command; 1 failed, 2 usage, 77 cannot run here.\n";

struct settings {
	struct fate_spec spec[FATE_DIRECTIONS];
	uint64_t seed;
	uint64_t dry_run;
	const char *log_path;
	const char *pcap_path;
	bool arp;
	bool check;
	bool dry;
	char **command; /* NULL: orders */
};

struct counters {
	uint64_t entered;
	uint64_t result[FATE_RESULTS];
	uint64_t failed; /* the host did not take it, or there was no memory for it */
	uint64_t copies;
	uint64_t corrupted;
	uint64_t reordered;
};

/* One direction: from the host that sends to the one that receives. */
struct direction {
	enum fate_direction name;
	enum host_id from;
	enum host_id to;
	struct fate fate;
	struct queue queue;
	struct queue_order order;
	struct counters counters[FRAME_CLASSES]; /* of the current run */
	bool empty;				 /* the sender's TAP had nothing more */
	bool unplugged;				 /* the sender's TAP is gone */
	/* Frames that the sender's TAP may still hold of those that were there at a drain. */
	unsigned backlog;
};

struct cable {
	struct hosts hosts;
	struct direction direction[FATE_DIRECTIONS];
	struct log log;
	struct pcapng pcapng;
	uint64_t seed;
	uint64_t next_id;
	int64_t late_max_ns; /* of the current run */
	uint32_t run;
};

/* What ends the wire, and what it listens to besides the frames. */
struct control {
	struct cable *cable;
	int signals;
	int parent; /* pidfd; -1 where there is none to see */
	int orders; /* 0, or -1: none, or no more */
	pid_t command;
	int64_t kill_ns; /* when the command's grace is over; INT64_MAX */
	bool ended;
	bool draining;
	unsigned drain_rounds; /* yet to come */
	uint64_t drain_id;     /* packets from here on are not waited for; 0: not yet known */
	int status;
	bool foreground; /* we had the terminal when the command began */
	/* As they were for us, and will be for the command. */
	sigset_t mask;
	struct sigaction child_action;
	struct sigaction pipe_action;
	size_t pending; /* bytes of orders not yet looked at */
	bool too_long;
	char order[ORDER_BYTES];
};

static int64_t now_ns(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* The cable. */

static enum pcapng_end end_of(enum host_id host)
{
	return host == HOST_CLIENT ? PCAPNG_CLIENT : PCAPNG_SERVER;
}

/*
 * A write to a TAP takes a whole frame or nothing. What a host does not take (its device is down,
 * the frame is odd) is lost.
 */
static bool hand_over(struct cable *cable, enum host_id host, const uint8_t *bytes, size_t length)
{
	ssize_t n;
	do {
		n = write(cable->hosts.tap[host], bytes, length);
	} while (n < 0 && errno == EINTR);
	return n == (ssize_t)length;
}

static void packet_died(struct cable *cable, struct direction *direction,
	const struct queue_record *record, bool failed)
{
	if (record->run == cable->run) {
		struct counters *counters = &direction->counters[record->info.class];
		if (failed)
			counters->failed++;
		else
			counters->result[record->fate.result]++;
	}
	log_packet(&cable->log, direction->name, record,
		failed ? "failed" : fate_result_name(record->fate.result), -1, 0, false);
}

/*
 * The packet is due: corrupts what is to be, hands it over with its copies, and accounts for it.
 * `bytes` may be changed.
 */
static void packet_leaves(struct cable *cable, struct direction *direction,
	const struct queue_record *record, uint8_t *bytes, int64_t due_ns)
{
	unsigned copies = 0;

	if (record->fate.corrupted) {
		uint32_t bit = record->fate.corrupt_bit;
		bytes[record->info.body_offset + bit / 8] ^= (uint8_t)(0x80 >> bit % 8);
	}
	int64_t out_ns = now_ns(CLOCK_MONOTONIC);
	if (!hand_over(cable, direction->to, bytes, record->length)) {
		packet_died(cable, direction, record, true);
		if (cable->pcapng.fd >= 0)
			pcapng_packet(&cable->pcapng, end_of(direction->to), PCAPNG_INTO_HOST,
				out_ns, record->id, bytes, record->length,
				"failed: the host did not take it");
		return;
	}
	bool reordered = queue_order_reordered(&direction->order, record);
	for (unsigned i = 0; i < record->fate.copies; i++)
		copies += hand_over(cable, direction->to, bytes, record->length);
	if (record->run == cable->run) {
		struct counters *counters = &direction->counters[record->info.class];
		counters->result[FATE_DELIVERED]++;
		counters->copies += copies;
		counters->corrupted += record->fate.corrupted;
		counters->reordered += reordered;
		if (out_ns - due_ns > cable->late_max_ns)
			cable->late_max_ns = out_ns - due_ns;
	}
	log_packet(&cable->log, direction->name, record, "delivered", out_ns, copies, reordered);
	if (cable->pcapng.fd < 0)
		return;
	for (unsigned i = 0; i <= copies; i++)
		pcapng_packet(&cable->pcapng, end_of(direction->to), PCAPNG_INTO_HOST, out_ns,
			record->id, bytes, record->length,
			i > 0	    ? "a copy"
			: reordered ? "reordered"
				    : NULL);
}

/*
 * A firewall that rejects answers in the destination's name. The answer is the wire's own: no fate,
 * no row.
 */
static void packet_answer(struct cable *cable, struct direction *direction,
	const struct queue_record *record, const uint8_t *bytes)
{
	uint8_t answer[FRAME_ANSWER_BYTES];
	size_t length = frame_answer(bytes, record->length, &record->info, answer);

	if (length == 0 || !hand_over(cable, direction->from, answer, length))
		return;
	if (cable->pcapng.fd >= 0)
		pcapng_packet(&cable->pcapng, end_of(direction->from), PCAPNG_INTO_HOST,
			now_ns(CLOCK_MONOTONIC), record->id, answer, length,
			"the firewall's answer");
}

static void packet_enters(
	struct cable *cable, struct direction *direction, uint8_t *bytes, size_t length)
{
	struct queue_record record = {.id = cable->next_id++,
		.in_ns = now_ns(CLOCK_MONOTONIC),
		.run = cable->run,
		.length = (uint32_t)length};
	struct queue *queue = &direction->queue;
	bool at_once = false;
	int taken = 1;

	frame_parse(bytes, length, &record.info);
	fate_decide(&direction->fate, &record.info, &record.fate);
	direction->counters[record.info.class].entered++;
	if (record.fate.result == FATE_DELIVERED) {
		at_once = queue->count == 0 && queue->rate_bits == 0 && record.fate.delay_ns == 0;
		if (!at_once)
			taken = queue_push(queue, record.in_ns, bytes, &record);
		if (taken == 0) {
			record.fate.result = FATE_QUEUE;
			record.fate.number = queue->limit;
			record.fate.copies = 0;
			record.fate.corrupted = false;
		}
	}
	if (cable->pcapng.fd >= 0) {
		char text[FATE_EXPLAIN_BYTES];
		pcapng_packet(&cable->pcapng, end_of(direction->from), PCAPNG_OUT_OF_HOST,
			record.in_ns, record.id, bytes, length,
			taken < 0 ? "failed: no memory" : fate_explain(&record.fate, text));
	}
	if (at_once)
		packet_leaves(cable, direction, &record, bytes, record.in_ns);
	else if (taken < 0 || record.fate.result != FATE_DELIVERED)
		packet_died(cable, direction, &record, taken < 0);
	if (record.fate.rejected)
		packet_answer(cable, direction, &record, bytes);
}

static int64_t next_due(const struct cable *cable)
{
	int64_t up = queue_next_due(&cable->direction[FATE_UP].queue);
	int64_t down = queue_next_due(&cable->direction[FATE_DOWN].queue);
	return up < down ? up : down;
}

/*
 * Delivers what is due, in the order of the due times over both directions, a batch at most.
 * Returns how many.
 */
static int deliver(struct cable *cable)
{
	int delivered = 0;

	while (delivered < BATCH) {
		int64_t up = queue_next_due(&cable->direction[FATE_UP].queue);
		int64_t down = queue_next_due(&cable->direction[FATE_DOWN].queue);
		int64_t due = up < down ? up : down;
		if (due == INT64_MAX)
			break;
		int64_t now = now_ns(CLOCK_MONOTONIC);
		if (due > now)
			break;
		struct direction *direction = &cable->direction[up <= down ? FATE_UP : FATE_DOWN];
		struct queue_entry *entry = queue_pop(&direction->queue, now);
		if (entry == NULL)
			break;
		packet_leaves(cable, direction, &entry->record, entry->bytes, entry->due_ns);
		queue_release(&direction->queue, entry);
		delivered++;
	}
	return delivered;
}

/*
 * Takes what a host has sent, a batch at most, and stops for what comes due meanwhile. Returns how
 * many.
 */
static int take(struct cable *cable, struct direction *direction)
{
	static uint8_t bytes[FRAME_BYTES];
	int taken = 0;

	direction->empty = true;
	if (direction->unplugged) {
		direction->backlog = 0;
		return 0;
	}
	while (taken < BATCH) {
		ssize_t n = read(cable->hosts.tap[direction->from], bytes, sizeof bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN && errno != ENOMEM && errno != ENOBUFS) {
			/*
			 * EBADFD: a program on the host has deleted the device. A cable that is
			 * unplugged stays a cable.
			 */
			warn("%s's end is unplugged", host_name(direction->from));
			direction->unplugged = true;
		}
		if (n < 0) {
			direction->backlog = 0;
			return taken;
		}
		packet_enters(cable, direction, bytes, (size_t)n);
		taken++;
		direction->backlog -= direction->backlog > 0;
		if (direction->queue.count > 0 ||
			cable->direction[!direction->name].queue.count > 0) {
			if (next_due(cable) <= now_ns(CLOCK_MONOTONIC))
				break;
		}
	}
	direction->empty = false;
	return taken;
}

/*
 * Takes all that was sent up to now, so that an order counts for what is sent from then on. Under a
 * flood there is no end to it; but what was there when it began is no more than a TAP holds.
 */
static void catch_up(struct cable *cable)
{
	for (int rounds = 0; rounds < HOST_TAP_FRAMES / BATCH; rounds++) {
		deliver(cable);
		take(cable, &cable->direction[FATE_UP]);
		take(cable, &cable->direction[FATE_DOWN]);
		if (cable->direction[FATE_UP].empty && cable->direction[FATE_DOWN].empty)
			break;
	}
}

static void run_begin(struct cable *cable, uint64_t seed)
{
	cable->run++;
	cable->seed = seed;
	cable->late_max_ns = 0;
	for (int i = 0; i < FATE_DIRECTIONS; i++) {
		struct direction *direction = &cable->direction[i];
		fate_reset(&direction->fate, seed);
		memset(direction->counters, 0, sizeof direction->counters);
	}
}

static void spec_set(struct cable *cable, enum fate_direction name, const struct fate_spec *spec)
{
	struct direction *direction = &cable->direction[name];
	fate_set(&direction->fate, spec);
	queue_set(&direction->queue, spec->rate_bits, spec->limit);
}

static int flush(struct cable *cable)
{
	int log = log_flush(&cable->log);
	int capture = pcapng_flush(&cable->pcapng);
	return log < 0 || capture < 0 ? -1 : 0;
}

/* Answers: one line of JSON each, written whole. */

struct answer {
	struct control *control; /* what ends the wire while nobody reads */
	size_t used;
	char text[ANSWER_BYTES];
};

static struct answer answers;

static void answer_add(struct answer *answer, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void answer_add(struct answer *answer, const char *format, ...)
{
	size_t room = sizeof answer->text - answer->used;
	va_list arguments;

	va_start(arguments, format);
	int n = vsnprintf(answer->text + answer->used, room, format, arguments);
	va_end(arguments);
	if (n > 0)
		answer->used += (size_t)n < room ? (size_t)n : room - 1;
}

static void answer_text(struct answer *answer, const char *text)
{
	answer_add(answer, "\"");
	for (; *text != '\0'; text++) {
		unsigned char byte = (unsigned char)*text;
		if (byte == '"' || byte == '\\')
			answer_add(answer, "\\%c", byte);
		else if (byte < 0x20 || byte >= 0x7f)
			answer_add(answer, "\\u%04x", byte);
		else
			answer_add(answer, "%c", byte);
	}
	answer_add(answer, "\"");
}

static void signals_read(struct control *control);

/*
 * Never blocks in write(): where nobody reads, the end of the parent and signals still end the
 * wire. A pipe that polls as writable takes PIPE_BUF bytes at once.
 */
static void answer_send(struct answer *answer)
{
	struct control *control = answer->control;
	size_t done = 0;

	answer_add(answer, "\n");
	while (done < answer->used && !control->ended) {
		struct pollfd fds[] = {
			{.fd = STDOUT_FILENO, .events = POLLOUT},
			{.fd = control->parent, .events = POLLIN},
			{.fd = control->signals, .events = POLLIN},
		};
		size_t left = answer->used - done;
		if (poll(fds, sizeof fds / sizeof fds[0], -1) <= 0)
			continue;
		if (fds[1].revents != 0)
			control->ended = true;
		if (fds[2].revents != 0)
			signals_read(control);
		if (fds[0].revents == 0 || control->ended)
			continue;
		ssize_t n = write(
			STDOUT_FILENO, answer->text + done, left < PIPE_BUF ? left : PIPE_BUF);
		if (n > 0)
			done += (size_t)n;
		if (n < 0 && errno != EINTR && errno != EAGAIN) {
			warn("cannot answer on stdout");
			control->status = EXIT_FAILURE;
			control->ended = true;
		}
	}
	answer->used = 0;
}

static struct answer *answer_begin(const char *event)
{
	answers.used = 0;
	answer_add(&answers, "{\"event\":\"%s\"", event);
	return &answers;
}

static void answer_error(const char *message)
{
	struct answer *answer = answer_begin("error");
	answer_add(answer, ",\"message\":");
	answer_text(answer, message);
	answer_add(answer, "}");
	answer_send(answer);
}

static void answer_link(struct answer *answer, struct cable *cable)
{
	static char text[FATE_TEXT_BYTES];

	for (int i = 0; i < FATE_DIRECTIONS; i++) {
		answer_add(answer, ",\"%s\":", fate_direction_name((enum fate_direction)i));
		answer_text(answer, fate_format(&cable->direction[i].fate.spec, text));
	}
}

static void answer_time(struct answer *answer)
{
	answer_add(answer, ",\"time_ns\":%" PRId64, now_ns(CLOCK_MONOTONIC));
}

static void answer_direction(struct answer *answer, const struct direction *direction)
{
	answer_add(answer, ",\"%s\":{", fate_direction_name(direction->name));
	for (int i = 0; i < FRAME_CLASSES; i++) {
		const struct counters *counters = &direction->counters[i];
		answer_add(answer, "%s\"%s\":{\"entered\":%" PRIu64, i > 0 ? "," : "",
			frame_class_name((enum frame_class)i), counters->entered);
		for (int result = 0; result < FATE_RESULTS; result++)
			answer_add(answer, ",\"%s\":%" PRIu64,
				fate_result_name((enum fate_result)result),
				counters->result[result]);
		answer_add(answer,
			",\"failed\":%" PRIu64 ",\"copies\":%" PRIu64 ",\"corrupted\":%" PRIu64
			",\"reordered\":%" PRIu64 "}",
			counters->failed, counters->copies, counters->corrupted,
			counters->reordered);
	}
	answer_add(answer, "}");
}

static void order_counters(struct cable *cable)
{
	int flushed = flush(cable);
	struct answer *answer = answer_begin("counters");

	answer_time(answer);
	answer_add(answer, ",\"run\":%" PRIu32 ",\"seed\":%" PRIu64, cable->run, cable->seed);
	for (int i = 0; i < FATE_DIRECTIONS; i++)
		answer_direction(answer, &cable->direction[i]);
	answer_add(answer, ",\"in_flight\":%" PRIu64,
		cable->direction[FATE_UP].queue.count + cable->direction[FATE_DOWN].queue.count);
	for (int i = 0; i < HOSTS; i++) {
		uint64_t dropped;
		answer_add(answer, ",\"%s_tx_dropped\":", host_name((enum host_id)i));
		if (host_tx_dropped(&cable->hosts, (enum host_id)i, &dropped) == 0)
			answer_add(answer, "%" PRIu64, dropped);
		else
			answer_add(answer, "null");
	}
	answer_add(answer, ",\"late_max_ns\":%" PRId64 ",\"files_complete\":%s}",
		cable->late_max_ns, flushed == 0 ? "true" : "false");
	answer_send(answer);
}

/* Plain digits only: strtoull alone would take "-1" and " 7". */
static bool parse_number(const char *text, uint64_t *number)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*number = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0';
}

static void order_run(struct cable *cable, const char *rest)
{
	uint64_t seed = cable->seed;

	if (*rest != '\0' && !parse_number(rest, &seed)) {
		answer_error("run: the seed must be a number, 0 to 18446744073709551615");
		return;
	}
	run_begin(cable, seed);
	struct answer *answer = answer_begin("run");
	answer_add(answer, ",\"run\":%" PRIu32 ",\"seed\":%" PRIu64, cable->run, cable->seed);
	answer_time(answer);
	answer_add(answer, "}");
	answer_send(answer);
}

static void order_link(struct cable *cable, const char *word, const char *rest)
{
	static struct fate_spec spec;
	char error[FATE_ERROR_BYTES];

	if (fate_parse(rest, &spec, error) < 0) {
		char message[FATE_ERROR_BYTES + 16];
		snprintf(message, sizeof message, "%s: %s", word, error);
		answer_error(message);
		return;
	}
	if (strcmp(word, "down") != 0)
		spec_set(cable, FATE_UP, &spec);
	if (strcmp(word, "up") != 0)
		spec_set(cable, FATE_DOWN, &spec);
	struct answer *answer = answer_begin("link");
	answer_link(answer, cable);
	answer_time(answer);
	answer_add(answer, "}");
	answer_send(answer);
}

static void drain_round(struct control *control)
{
	control->drain_id = 0;
	for (int i = 0; i < FATE_DIRECTIONS; i++)
		control->cable->direction[i].backlog = HOST_TAP_FRAMES;
}

static void drain_begin(struct control *control)
{
	control->draining = true;
	control->drain_rounds = DRAIN_ROUNDS;
	drain_round(control);
}

/* One line, without its newline. */
static void order_obey(struct control *control, char *line)
{
	char *word = line + strspn(line, " \t\r");
	char *rest = word + strcspn(word, " \t\r");

	if (*word == '\0')
		return;
	if (*rest != '\0') {
		*rest++ = '\0';
		rest += strspn(rest, " \t\r");
	}
	size_t length = strlen(rest);
	while (length > 0 && strchr(" \t\r", rest[length - 1]) != NULL)
		rest[--length] = '\0';

	if (strcmp(word, "run") == 0)
		order_run(control->cable, rest);
	else if (strcmp(word, "link") == 0 || strcmp(word, "up") == 0 || strcmp(word, "down") == 0)
		order_link(control->cable, word, rest);
	else if (*rest == '\0' && strcmp(word, "counters") == 0)
		order_counters(control->cable);
	else if (*rest == '\0' && strcmp(word, "drain") == 0)
		drain_begin(control);
	else if (*rest == '\0' && strcmp(word, "quit") == 0)
		control->ended = true;
	else
		answer_error("must be run [SEED], link SPEC, up SPEC, down SPEC, counters, drain "
			     "or quit");
}

/*
 * Obeys the whole lines that are there; a drain holds up those behind it, so that answers keep the
 * order.
 */
static void orders_obey(struct control *control)
{
	while (!control->ended && !control->draining) {
		char *end = memchr(control->order, '\n', control->pending);
		if (end == NULL)
			break;
		size_t length = (size_t)(end - control->order);
		*end = '\0';
		if (control->too_long || strlen(control->order) != length)
			answer_error(control->too_long ? "the line is too long"
						       : "the line has a NUL in it");
		else
			order_obey(control, control->order);
		control->too_long = false;
		control->pending -= length + 1;
		memmove(control->order, end + 1, control->pending);
	}
	if (control->pending == sizeof control->order && !control->draining) {
		control->too_long = true;
		control->pending = 0;
	}
}

/*
 * During a drain orders are kept, and obeyed when it is over; the end of stdin counts at once, and
 * makes a whole line of the last one.
 */
static void orders_read(struct control *control)
{
	ssize_t n = read(STDIN_FILENO, control->order + control->pending,
		sizeof control->order - control->pending);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		if (n == 0 && control->pending > 0 && !control->draining) {
			control->order[control->pending++] = '\n';
			orders_obey(control);
		}
		control->ended = true;
		return;
	}
	control->pending += (size_t)n;
	orders_obey(control);
}

/* The id of the first packet that came in of those on their way. */
static uint64_t oldest(const struct cable *cable)
{
	uint64_t id = UINT64_MAX;

	for (int i = 0; i < FATE_DIRECTIONS; i++) {
		const struct queue *queue = &cable->direction[i].queue;
		if (queue->in_order.head != NULL && queue->in_order.head->record.id < id)
			id = queue->in_order.head->record.id;
		if (queue->ahead.head != NULL && queue->ahead.head->record.id < id)
			id = queue->ahead.head->record.id;
	}
	return id;
}

/*
 * Is the drain over? As a rule when all is quiet: `still` tells that nothing moved in this round of
 * the loop, so that no host has yet an answer to give. Under traffic that does not end, when what
 * was sent before the order is through, and so are 99 rounds of answers to it: enough for the rest
 * of a transfer.
 */
static bool drain_over(struct control *control, bool still)
{
	struct cable *cable = control->cable;
	struct direction *direction = cable->direction;

	if (still && direction[FATE_UP].empty && direction[FATE_DOWN].empty &&
		next_due(cable) == INT64_MAX)
		return true;
	/* A TAP is first in, first out: empty once, or as much read as it holds, is all of it. */
	if (direction[FATE_UP].backlog > 0 || direction[FATE_DOWN].backlog > 0)
		return false;
	if (control->drain_id == 0)
		control->drain_id = cable->next_id;
	if (oldest(cable) < control->drain_id)
		return false;
	if (--control->drain_rounds == 0)
		return true;
	drain_round(control);
	return false;
}

/* Answers a drain that is over, and obeys the orders behind it, one of which may be a drain. */
static bool drain_look(struct control *control, bool still)
{
	if (!drain_over(control, still))
		return false;
	struct answer *answer = answer_begin("drained");
	answer_time(answer);
	answer_add(answer, "}");
	answer_send(answer);
	control->draining = false;
	catch_up(control->cable);
	orders_obey(control);
	return true;
}

/* The command. */

/* `on` lies beside this program, so its folder comes first. */
static void path_prepend(void)
{
	char self[4096];
	const char *path = getenv("PATH");
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	if (n <= 0)
		return;
	self[n] = '\0';
	char *slash = strrchr(self, '/');
	if (slash == NULL)
		return;
	*slash = '\0';
	if (path == NULL)
		path = "/usr/local/bin:/usr/bin:/bin";
	size_t bytes = strlen(self) + strlen(path) + 2;
	char *joined = malloc(bytes);
	if (joined == NULL)
		return;
	snprintf(joined, bytes, "%s:%s", self, path);
	setenv("PATH", joined, 1);
	free(joined);
}

/* In the command's process: all that was changed for the wire is as it was, but for the place. */
static void command_run(struct control *control, char **command)
{
	bool other_pids;
	const char *what = "";

	if (host_enter(control->cable->hosts.pid[HOST_CLIENT],
		    control->cable->hosts.pidfd[HOST_CLIENT], &other_pids, &what) < 0) {
		warn("cannot %s", what);
		_exit(EXIT_FAILURE);
	}
	path_prepend();
	sigaction(SIGPIPE, &control->pipe_action, NULL);
	sigaction(SIGCHLD, &control->child_action, NULL);
	sigprocmask(SIG_SETMASK, &control->mask, NULL);
	execvp(command[0], command);
	int status = errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_EXECUTE;
	warn("cannot run %s", command[0]);
	_exit(status);
}

/*
 * The command stays in our process group: what the terminal sends, Ctrl-Z or Ctrl-C, reaches it and
 * us alike, in a pipeline and in a script as well, and the shell that started us stops and
 * continues all together. A shell makes itself a group of its own.
 */
static int command_start(struct control *control, char **command)
{
	control->foreground = tcgetpgrp(STDIN_FILENO) == getpgrp();
	fflush(NULL);
	control->command = fork();
	if (control->command < 0)
		return -1;
	if (control->command == 0)
		command_run(control, command);
	return 0;
}

/*
 * A shell that was killed leaves the terminal to a group that is gone, where nobody can read it. It
 * is taken back from such a group only: any other is someone's, who put us in the background.
 */
static void terminal_restore(const struct control *control, pid_t command)
{
	pid_t group = tcgetpgrp(STDIN_FILENO);

	if (!control->foreground || group < 0 || group == getpgrp())
		return;
	if (group != command && (group == 0 || kill(-group, 0) == 0 || errno != ESRCH))
		return;
	signal(SIGTTOU, SIG_IGN);
	tcsetpgrp(STDIN_FILENO, getpgrp());
	signal(SIGTTOU, SIG_DFL);
}

/*
 * Only the command and the holders matter: whoever became this program by exec() may have had
 * children before.
 */
static void children_look(struct control *control)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == control->command) {
			control->status =
				WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
			control->command = 0;
			control->ended = true;
			terminal_restore(control, pid);
		}
		for (int i = 0; i < HOSTS && !control->ended; i++) {
			if (pid != control->cable->hosts.pid[i])
				continue;
			warnx("%s is gone: its process was ended", host_name((enum host_id)i));
			control->status = EXIT_FAILURE;
			control->ended = true;
		}
	}
}

/*
 * A signal to the wire goes to its command, which then has a moment to end by itself; a second one
 * ends all at once.
 */
static void signal_end(struct control *control, int number)
{
	if (control->command > 0 && control->kill_ns == INT64_MAX) {
		kill(control->command, number);
		kill(control->command, SIGCONT);
		control->kill_ns = now_ns(CLOCK_MONOTONIC) + grace_ns;
		control->status = 128 + number;
		return;
	}
	control->status = 128 + number;
	control->ended = true;
}

/*
 * Ctrl-C and Ctrl-\ are the command's, as with system(3): it has them from the terminal already,
 * and may have a use for them.
 */
static void signals_read(struct control *control)
{
	struct signalfd_siginfo info;

	while (read(control->signals, &info, sizeof info) == (ssize_t)sizeof info) {
		bool key = (info.ssi_signo == SIGINT || info.ssi_signo == SIGQUIT) &&
			   info.ssi_code == SI_KERNEL;
		if (info.ssi_signo == SIGCHLD)
			children_look(control);
		else if (!key || control->command == 0)
			signal_end(control, (int)info.ssi_signo);
	}
}

/* The loop. */

enum { WATCH_CLIENT, WATCH_SERVER, WATCH_SIGNALS, WATCH_PARENT, WATCH_ORDERS, WATCHES };

/* Sleeps until something is there or due; `look` only asks. */
static void watch(struct control *control, bool look)
{
	struct cable *cable = control->cable;
	bool full = control->pending == sizeof control->order;
	struct pollfd fds[WATCHES] = {
		[WATCH_CLIENT] = {.fd = cable->hosts.tap[HOST_CLIENT], .events = POLLIN},
		[WATCH_SERVER] = {.fd = cable->hosts.tap[HOST_SERVER], .events = POLLIN},
		[WATCH_SIGNALS] = {.fd = control->signals, .events = POLLIN},
		[WATCH_PARENT] = {.fd = control->parent, .events = POLLIN},
		/* With no room for more, only its end is seen. */
		[WATCH_ORDERS] = {.fd = control->orders, .events = full ? 0 : POLLIN},
	};
	struct timespec timeout = {0};
	struct timespec *until = &timeout;

	/*
	 * A negative descriptor is not watched; an unplugged TAP would report its error for ever.
	 */
	if (cable->direction[FATE_UP].unplugged)
		fds[WATCH_CLIENT].fd = -1;
	if (cable->direction[FATE_DOWN].unplugged)
		fds[WATCH_SERVER].fd = -1;
	if (!look) {
		int64_t due = next_due(cable);
		if (control->kill_ns < due)
			due = control->kill_ns;
		if (due == INT64_MAX) {
			until = NULL;
		} else {
			int64_t left = due - now_ns(CLOCK_MONOTONIC);
			if (left > 0) {
				timeout.tv_sec = left / INT64_C(1000000000);
				timeout.tv_nsec = left % INT64_C(1000000000);
			}
		}
	}
	if (ppoll(fds, WATCHES, until, NULL) <= 0)
		return;
	if (fds[WATCH_SIGNALS].revents != 0)
		signals_read(control);
	if (fds[WATCH_ORDERS].revents != 0 && full) {
		control->ended = true;
	} else if (fds[WATCH_ORDERS].revents != 0) {
		if (!control->draining)
			catch_up(cable);
		orders_read(control);
	}
	if (fds[WATCH_PARENT].revents != 0)
		control->ended = true;
}

static void carry(struct control *control)
{
	struct cable *cable = control->cable;
	unsigned busy = 0;

	while (!control->ended) {
		int moved = deliver(cable);
		moved += take(cable, &cable->direction[FATE_UP]);
		moved += take(cable, &cable->direction[FATE_DOWN]);
		if (control->draining && drain_look(control, moved == 0))
			continue;
		if (control->kill_ns <= now_ns(CLOCK_MONOTONIC))
			break;
		if (moved == 0)
			busy = 0;
		if (moved == 0 || ++busy % ROUNDS == 0)
			watch(control, moved != 0);
	}
}

/* Start and end. */

static void parse_spec(const char *option, const char *text, struct fate_spec *spec)
{
	char error[FATE_ERROR_BYTES];

	if (fate_parse(text, spec, error) < 0)
		errx(EXIT_USAGE, "%s: %s", option, error);
}

/* Which of two would count is not to be guessed; a word in a SPEC is once only, too. */
static void set_once(const char *option, const char **text)
{
	if (*text != NULL)
		errx(EXIT_USAGE, "%s %s: must not be given twice", option, optarg);
	*text = optarg;
}

/* Above all letters, so that optopt tells an option by its name from one by its letter. */
enum {
	OPTION_LINK = 256,
	OPTION_UP,
	OPTION_DOWN,
	OPTION_SEED,
	OPTION_LOG,
	OPTION_PCAP,
	OPTION_ARP,
	OPTION_DRY_RUN,
	OPTION_CHECK,
	OPTION_VERSION
};

static void parse_options(struct settings *settings, int argc, char **argv)
{
	static const struct option options[] = {
		{"link", required_argument, NULL, OPTION_LINK},
		{"up", required_argument, NULL, OPTION_UP},
		{"down", required_argument, NULL, OPTION_DOWN},
		{"seed", required_argument, NULL, OPTION_SEED},
		{"log", required_argument, NULL, OPTION_LOG},
		{"pcap", required_argument, NULL, OPTION_PCAP},
		{"arp", no_argument, NULL, OPTION_ARP},
		{"dry-run", required_argument, NULL, OPTION_DRY_RUN},
		{"check", no_argument, NULL, OPTION_CHECK},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, OPTION_VERSION},
		{NULL, 0, NULL, 0},
	};
	const char *link = NULL;
	const char *up = NULL;
	const char *down = NULL;
	int letter;

	settings->seed = 1;
	opterr = 0;
	/*
	 * "+": what is behind the command's name is the command's. ":": say which of the two
	 * mistakes it was.
	 */
	while ((letter = getopt_long(argc, argv, "+:h", options, NULL)) != -1) {
		switch (letter) {
		case OPTION_LINK:
			set_once("--link", &link);
			break;
		case OPTION_UP:
			set_once("--up", &up);
			break;
		case OPTION_DOWN:
			set_once("--down", &down);
			break;
		case OPTION_SEED:
			if (!parse_number(optarg, &settings->seed))
				errx(EXIT_USAGE,
					"--seed %s: must be a number, 0 to 18446744073709551615",
					optarg);
			break;
		case OPTION_LOG:
			settings->log_path = optarg;
			break;
		case OPTION_PCAP:
			settings->pcap_path = optarg;
			break;
		case OPTION_ARP:
			settings->arp = true;
			break;
		case OPTION_DRY_RUN:
			if (!parse_number(optarg, &settings->dry_run) || settings->dry_run == 0)
				errx(EXIT_USAGE,
					"--dry-run %s: must be a number of packets, at least 1",
					optarg);
			settings->dry = true;
			break;
		case OPTION_CHECK:
			settings->check = true;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(EXIT_SUCCESS);
		case OPTION_VERSION:
			puts("wire (socklab) " SOCKLAB_VERSION);
			exit(EXIT_SUCCESS);
		case ':':
			errx(EXIT_USAGE, "%s: needs a value (see --help)", argv[optind - 1]);
		default:
			/* A letter stands in optopt; behind it optind may still be at its word. */
			if (optopt >= OPTION_LINK)
				errx(EXIT_USAGE, "%s: takes no value (see --help)",
					argv[optind - 1]);
			if (optopt != 0)
				errx(EXIT_USAGE, "-%c: no such option (see --help)", optopt);
			errx(EXIT_USAGE, "%s: no such option (see --help)", argv[optind - 1]);
		}
	}
	if (link != NULL) {
		parse_spec("--link", link, &settings->spec[FATE_UP]);
		settings->spec[FATE_DOWN] = settings->spec[FATE_UP];
	}
	if (up != NULL)
		parse_spec("--up", up, &settings->spec[FATE_UP]);
	if (down != NULL)
		parse_spec("--down", down, &settings->spec[FATE_DOWN]);
	if (optind < argc)
		settings->command = argv + optind;
	if (settings->command != NULL && (settings->dry || settings->check))
		errx(EXIT_USAGE, "%s: takes no command", settings->dry ? "--dry-run" : "--check");
}

/* What is in it stays until it is known that the wire can run. */
static int open_output(const char *option, const char *path, struct stat *file)
{
	memset(file, 0, sizeof *file);
	if (path == NULL)
		return -1;
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0 || fstat(fd, file) < 0)
		err(EXIT_USAGE, "%s %s: must be a file that can be written", option, path);
	return fd;
}

/*
 * Returns a pidfd of the parent, or -1 where there is none to see. Exits when it went before it
 * could be watched.
 */
static int watch_parent(void)
{
	pid_t parent = getppid();
	int fd = parent > 0 ? (int)syscall(SYS_pidfd_open, parent, 0) : -1;

	if (getppid() != parent)
		exit(EXIT_FAILURE);
	return fd;
}

static void hold_signals(struct control *control)
{
	static const int held[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP};
	const struct sigaction normal = {.sa_handler = SIG_DFL};
	const struct sigaction ignored = {.sa_handler = SIG_IGN};
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	/* What is ignored (nohup) stays so: held, it would come all the same. */
	for (size_t i = 0; i < sizeof held / sizeof held[0]; i++) {
		struct sigaction action;
		if (sigaction(held[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
			sigaddset(&signals, held[i]);
	}
	/* Whoever started us may have it ignored, and then no child would ever be seen to end. */
	sigaction(SIGCHLD, &normal, &control->child_action);
	sigaction(SIGPIPE, &ignored, &control->pipe_action);
	if (sigprocmask(SIG_BLOCK, &signals, &control->mask) < 0)
		err(EXIT_FAILURE, "cannot hold signals");
	control->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (control->signals < 0)
		err(EXIT_FAILURE, "cannot listen to signals");
}

static void cable_init(struct cable *cable, const struct settings *settings)
{
	static const enum host_id from[FATE_DIRECTIONS] = {
		[FATE_UP] = HOST_CLIENT, [FATE_DOWN] = HOST_SERVER};

	for (int i = 0; i < FATE_DIRECTIONS; i++) {
		struct direction *direction = &cable->direction[i];
		direction->name = (enum fate_direction)i;
		direction->from = from[i];
		direction->to = from[i] == HOST_CLIENT ? HOST_SERVER : HOST_CLIENT;
		fate_init(&direction->fate, settings->seed, direction->name);
		spec_set(cable, direction->name, &settings->spec[i]);
	}
	cable->next_id = 1;
	run_begin(cable, settings->seed);
}

static void outputs_open(struct cable *cable, const struct settings *settings)
{
	struct stat log_file;
	struct stat capture_file;
	int log = open_output("--log", settings->log_path, &log_file);
	int capture = open_output("--pcap", settings->pcap_path, &capture_file);
	int64_t offset = now_ns(CLOCK_REALTIME) - now_ns(CLOCK_MONOTONIC);
	char comment[64];

	if (S_ISREG(log_file.st_mode) && log_file.st_ino == capture_file.st_ino &&
		log_file.st_dev == capture_file.st_dev)
		errx(EXIT_USAGE, "--pcap %s: must be another file than --log's",
			settings->pcap_path);
	snprintf(comment, sizeof comment, "seed %" PRIu64, settings->seed);
	log_open(&cable->log, log);
	pcapng_open(&cable->pcapng, capture, offset, comment);
}

/* EINVAL: a pipe or a device has nothing to cut off. */
static void outputs_truncate(const struct cable *cable)
{
	if (cable->log.fd >= 0 && ftruncate(cable->log.fd, 0) < 0 && errno != EINVAL)
		warn("--log: cannot cut off what was in it");
	if (cable->pcapng.fd >= 0 && ftruncate(cable->pcapng.fd, 0) < 0 && errno != EINVAL)
		warn("--pcap: cannot cut off what was in it");
}

/* What is not complete is said, and is no success. */
static int outputs_close(struct cable *cable, const struct settings *settings)
{
	int result = 0;

	if (log_close(&cable->log) < 0) {
		warn("--log %s: not complete", settings->log_path);
		result = -1;
	}
	if (pcapng_close(&cable->pcapng) < 0) {
		warn("--pcap %s: not complete", settings->pcap_path);
		result = -1;
	}
	return result;
}

/*
 * Wakes to the microsecond, and before others where that is allowed. Not for those who were started
 * before.
 */
static void be_punctual(void)
{
	prctl(PR_SET_TIMERSLACK, 1UL);
	if (getpriority(PRIO_PROCESS, 0) > NICE)
		setpriority(PRIO_PROCESS, 0, NICE);
}

static void announce(struct cable *cable)
{
	struct answer *answer = answer_begin("ready");

	for (int i = 0; i < HOSTS; i++)
		answer_add(answer, ",\"%s\":%d", host_name((enum host_id)i), cable->hosts.pid[i]);
	answer_add(answer, ",\"seed\":%" PRIu64, cable->seed);
	answer_link(answer, cable);
	answer_add(answer, "}");
	answer_send(answer);
}

/*
 * Ends without the handlers of exit(). A sanitizer has one that forks, and what we fork is born
 * into the hosts' PID namespace, where nothing can live any more.
 */
static _Noreturn void finish(int status)
{
	fflush(NULL);
	_exit(status);
}

/* Where a standard descriptor is closed, a file of ours would be opened in its place. */
static void take_standard_descriptors(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/* Too little of something, for the moment or for this user: no other rights would help. */
static bool is_shortage(int error)
{
	return error == EMFILE || error == ENFILE || error == EAGAIN || error == ENOMEM;
}

int main(int argc, char **argv)
{
	static struct settings settings;
	static struct cable cable;
	static struct control control = {
		.cable = &cable, .parent = -1, .orders = -1, .kill_ns = INT64_MAX};
	struct host_failure failure;

	take_standard_descriptors();
	control.parent = watch_parent();
	if (getauxval(AT_SECURE) != 0)
		errx(EXIT_FAILURE, "must not have more rights than its user (set-user-ID, file "
				   "capabilities)");
	parse_options(&settings, argc, argv);
	if (settings.check)
		return host_check(stdout) ? EXIT_SUCCESS : EXIT_CANNOT_RUN;
	if (settings.dry) {
		if (fate_dry_run(stdout, settings.spec, settings.seed, settings.dry_run) < 0 ||
			fflush(stdout) != 0)
			err(EXIT_FAILURE, "--dry-run: cannot write");
		return EXIT_SUCCESS;
	}
	outputs_open(&cable, &settings);
	answers.control = &control;
	hold_signals(&control);
	if (host_start(&cable.hosts, settings.arp, true, &failure) < 0) {
		char reason[HOST_TEXT_BYTES];
		char remedy[HOST_TEXT_BYTES];
		if (is_shortage(failure.error)) {
			warnx("cannot %s: %s", failure.what, strerror(failure.error));
			finish(EXIT_FAILURE);
		}
		host_explain(&failure, reason, remedy);
		warnx("cannot run here: %s", reason);
		warnx("this helps: %s", remedy);
		finish(EXIT_CANNOT_RUN);
	}
	outputs_truncate(&cable);
	cable_init(&cable, &settings);
	if (settings.command == NULL) {
		control.orders = STDIN_FILENO;
		announce(&cable);
	} else if (command_start(&control, settings.command) < 0) {
		warn("cannot start a process");
		control.status = EXIT_FAILURE;
		control.ended = true;
	}
	be_punctual();
	carry(&control);

	host_stop(&cable.hosts);
	if (outputs_close(&cable, &settings) < 0 && control.status == 0)
		control.status = EXIT_FAILURE;
	finish(control.status);
}
