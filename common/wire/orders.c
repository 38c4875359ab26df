#include "common/wire/orders.h"

#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

enum {
	/* Under endless traffic a drain waits for the packets and 99 rounds of answers. */
	DRAIN_ROUNDS = 100,
};

static void answer_add(struct orders *orders, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void answer_add(struct orders *orders, const char *format, ...)
{
	size_t room = sizeof orders->answer - orders->used;
	va_list arguments;

	va_start(arguments, format);
	int n = vsnprintf(orders->answer + orders->used, room, format, arguments);
	va_end(arguments);
	if (n > 0)
		orders->used += (size_t)n < room ? (size_t)n : room - 1;
}

static void answer_text(struct orders *orders, const char *text)
{
	answer_add(orders, "\"");
	for (; *text != '\0'; text++) {
		unsigned char byte = (unsigned char)*text;
		if (byte == '"' || byte == '\\')
			answer_add(orders, "\\%c", byte);
		else if (byte < 0x20 || byte >= 0x7f)
			answer_add(orders, "\\u%04x", byte);
		else
			answer_add(orders, "%c", byte);
	}
	answer_add(orders, "\"");
}

/* Never blocks in write(): a pipe that polls as writable takes PIPE_BUF bytes at once. */
static void answer_send(struct orders *orders)
{
	size_t done = 0;

	answer_add(orders, "\n");
	while (done < orders->used && !orders->over) {
		size_t left = orders->used - done;
		if (!orders->wait_writable(orders->context)) {
			orders->over = true;
			break;
		}
		ssize_t n = write(
			STDOUT_FILENO, orders->answer + done, left < PIPE_BUF ? left : PIPE_BUF);
		if (n > 0)
			done += (size_t)n;
		if (n < 0 && errno != EINTR && errno != EAGAIN) {
			warn("cannot answer on stdout");
			orders->failed = true;
			orders->over = true;
		}
	}
	orders->used = 0;
}

static void answer_begin(struct orders *orders, const char *event)
{
	orders->used = 0;
	answer_add(orders, "{\"event\":\"%s\"", event);
}

static void answer_error(struct orders *orders, const char *message)
{
	answer_begin(orders, "error");
	answer_add(orders, ",\"message\":");
	answer_text(orders, message);
	answer_add(orders, "}");
	answer_send(orders);
}

static void answer_link(struct orders *orders)
{
	static char text[FATE_TEXT_BYTES];

	for (int i = 0; i < FATE_DIRECTIONS; i++) {
		answer_add(orders, ",\"%s\":", fate_direction_name((enum fate_direction)i));
		answer_text(orders, fate_format(&orders->cable->direction[i].fate.spec, text));
	}
}

static void answer_time(struct orders *orders)
{
	answer_add(orders, ",\"time_ns\":%" PRId64, clock_now_ns());
}

static void answer_direction(struct orders *orders, const struct direction *direction)
{
	answer_add(orders, ",\"%s\":{", fate_direction_name(direction->name));
	for (int i = 0; i < FRAME_CLASSES; i++) {
		const struct counters *counters = &direction->counters[i];
		answer_add(orders, "%s\"%s\":{\"entered\":%" PRIu64, i > 0 ? "," : "",
			frame_class_name((enum frame_class)i), counters->entered);
		for (int result = 0; result < FATE_RESULTS; result++)
			answer_add(orders, ",\"%s\":%" PRIu64,
				fate_result_name((enum fate_result)result),
				counters->result[result]);
		answer_add(orders,
			",\"failed\":%" PRIu64 ",\"copies\":%" PRIu64 ",\"corrupted\":%" PRIu64
			",\"reordered\":%" PRIu64 "}",
			counters->failed, counters->copies, counters->corrupted,
			counters->reordered);
	}
	answer_add(orders, "}");
}

void orders_announce(struct orders *orders)
{
	const struct cable *cable = orders->cable;

	answer_begin(orders, "ready");
	for (int i = 0; i < HOSTS; i++)
		answer_add(orders, ",\"%s\":%d", host_name((enum host_id)i), cable->hosts.pid[i]);
	answer_add(orders, ",\"seed\":%" PRIu64, cable->seed);
	answer_link(orders);
	answer_add(orders, "}");
	answer_send(orders);
}

static void order_counters(struct orders *orders)
{
	struct cable *cable = orders->cable;
	int flushed = cable_flush(cable);
	answer_begin(orders, "counters");

	answer_time(orders);
	answer_add(orders, ",\"run\":%" PRIu32 ",\"seed\":%" PRIu64, cable->run, cable->seed);
	for (int i = 0; i < FATE_DIRECTIONS; i++)
		answer_direction(orders, &cable->direction[i]);
	answer_add(orders, ",\"in_flight\":%" PRIu64,
		cable->direction[FATE_UP].queue.count + cable->direction[FATE_DOWN].queue.count);
	for (int i = 0; i < HOSTS; i++) {
		uint64_t dropped;
		answer_add(orders, ",\"%s_tx_dropped\":", host_name((enum host_id)i));
		if (host_tx_dropped(&cable->hosts, (enum host_id)i, &dropped) == 0)
			answer_add(orders, "%" PRIu64, dropped);
		else
			answer_add(orders, "null");
	}
	answer_add(orders, ",\"late_max_ns\":%" PRId64 ",\"files_complete\":%s}",
		cable->late_max_ns, flushed == 0 ? "true" : "false");
	answer_send(orders);
}

/* strtoull alone would take "-1" and " 7". */
bool orders_number(const char *text, uint64_t *number)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*number = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0';
}

static void order_run(struct orders *orders, const char *rest)
{
	struct cable *cable = orders->cable;
	uint64_t seed = cable->seed;

	if (*rest != '\0' && !orders_number(rest, &seed)) {
		answer_error(orders, "run: the seed must be a number, 0 to 18446744073709551615");
		return;
	}
	cable_run(cable, seed);
	answer_begin(orders, "run");
	answer_add(orders, ",\"run\":%" PRIu32 ",\"seed\":%" PRIu64, cable->run, cable->seed);
	answer_time(orders);
	answer_add(orders, "}");
	answer_send(orders);
}

static void order_link(struct orders *orders, const char *word, const char *rest)
{
	static struct fate_spec spec;
	char error[FATE_ERROR_BYTES];

	if (fate_parse(rest, &spec, error) < 0) {
		char message[FATE_ERROR_BYTES + 16];
		snprintf(message, sizeof message, "%s: %s", word, error);
		answer_error(orders, message);
		return;
	}
	if (strcmp(word, "down") != 0)
		cable_set(orders->cable, FATE_UP, &spec);
	if (strcmp(word, "up") != 0)
		cable_set(orders->cable, FATE_DOWN, &spec);
	answer_begin(orders, "link");
	answer_link(orders);
	answer_time(orders);
	answer_add(orders, "}");
	answer_send(orders);
}

static void drain_round(struct orders *orders)
{
	orders->drain_id = 0;
	for (int i = 0; i < FATE_DIRECTIONS; i++)
		orders->cable->direction[i].backlog = HOST_TAP_FRAMES;
}

static void drain_begin(struct orders *orders)
{
	orders->draining = true;
	orders->drain_rounds = DRAIN_ROUNDS;
	drain_round(orders);
}

/* One line, without its newline. */
static void order_obey(struct orders *orders, char *line)
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
		order_run(orders, rest);
	else if (strcmp(word, "link") == 0 || strcmp(word, "up") == 0 || strcmp(word, "down") == 0)
		order_link(orders, word, rest);
	else if (*rest == '\0' && strcmp(word, "counters") == 0)
		order_counters(orders);
	else if (*rest == '\0' && strcmp(word, "drain") == 0)
		drain_begin(orders);
	else if (*rest == '\0' && strcmp(word, "quit") == 0)
		orders->over = true;
	else
		answer_error(orders,
			"must be run [SEED], link SPEC, up SPEC, down SPEC, counters, drain "
			"or quit");
}

/*
 * Obeys the whole lines that are there; a drain holds up those behind it, so that answers keep the
 * order.
 */
static void orders_obey(struct orders *orders)
{
	while (!orders->over && !orders->draining) {
		char *end = memchr(orders->line, '\n', orders->pending);
		if (end == NULL)
			break;
		size_t length = (size_t)(end - orders->line);
		*end = '\0';
		if (orders->too_long || strlen(orders->line) != length)
			answer_error(orders, orders->too_long ? "the line is too long"
							      : "the line has a NUL in it");
		else
			order_obey(orders, orders->line);
		orders->too_long = false;
		orders->pending -= length + 1;
		memmove(orders->line, end + 1, orders->pending);
	}
	if (orders->pending == sizeof orders->line && !orders->draining) {
		orders->too_long = true;
		orders->pending = 0;
	}
}

bool orders_full(const struct orders *orders)
{
	return orders->pending == sizeof orders->line;
}

void orders_read(struct orders *orders)
{
	if (orders_full(orders)) {
		orders->over = true;
		return;
	}
	if (!orders->draining)
		cable_catch_up(orders->cable);
	ssize_t n = read(STDIN_FILENO, orders->line + orders->pending,
		sizeof orders->line - orders->pending);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		if (n == 0 && orders->pending > 0 && !orders->draining) {
			orders->line[orders->pending++] = '\n';
			orders_obey(orders);
		}
		orders->over = true;
		return;
	}
	orders->pending += (size_t)n;
	orders_obey(orders);
}

/*
 * Is the drain over? As a rule when all is quiet: `still` tells that nothing moved in this round of
 * the loop, so that no host has yet an answer to give. Under traffic that does not end, when what
 * was sent before the order is through, and so are 99 rounds of answers to it: enough for the rest
 * of a transfer.
 */
static bool drain_over(struct orders *orders, bool still)
{
	struct cable *cable = orders->cable;
	struct direction *direction = cable->direction;

	if (still && direction[FATE_UP].empty && direction[FATE_DOWN].empty &&
		cable_next_due(cable) == INT64_MAX)
		return true;
	/* A TAP is first in, first out: empty once, or as much read as it holds, is all of it. */
	if (direction[FATE_UP].backlog > 0 || direction[FATE_DOWN].backlog > 0)
		return false;
	if (orders->drain_id == 0)
		orders->drain_id = cable->next_id;
	if (cable_oldest(cable) < orders->drain_id)
		return false;
	if (--orders->drain_rounds == 0)
		return true;
	drain_round(orders);
	return false;
}

bool orders_drained(struct orders *orders, bool still)
{
	if (!drain_over(orders, still))
		return false;
	answer_begin(orders, "drained");
	answer_time(orders);
	answer_add(orders, "}");
	answer_send(orders);
	orders->draining = false;
	cable_catch_up(orders->cable);
	orders_obey(orders);
	return true;
}
