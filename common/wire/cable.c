#include "common/wire/cable.h"

#include <err.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

enum {
	/* No TAP hands out more: 64 KiB and an Ethernet header, whatever the MTU. */
	FRAME_BYTES = 65536 + 64,
	/* Frames taken or delivered before it looks at the other side. */
	BATCH = 32,
};

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
	int64_t out_ns = clock_now_ns();
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
			clock_now_ns(), record->id, answer, length, "the firewall's answer");
}

static void packet_enters(
	struct cable *cable, struct direction *direction, uint8_t *bytes, size_t length)
{
	struct queue_record record = {.id = cable->next_id++,
		.in_ns = clock_now_ns(),
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

int64_t cable_next_due(const struct cable *cable)
{
	int64_t up = queue_next_due(&cable->direction[FATE_UP].queue);
	int64_t down = queue_next_due(&cable->direction[FATE_DOWN].queue);
	return up < down ? up : down;
}

int cable_deliver(struct cable *cable)
{
	int delivered = 0;

	while (delivered < BATCH) {
		int64_t up = queue_next_due(&cable->direction[FATE_UP].queue);
		int64_t down = queue_next_due(&cable->direction[FATE_DOWN].queue);
		int64_t due = up < down ? up : down;
		if (due == INT64_MAX)
			break;
		int64_t now = clock_now_ns();
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

int cable_take(struct cable *cable, struct direction *direction)
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
			if (cable_next_due(cable) <= clock_now_ns())
				break;
		}
	}
	direction->empty = false;
	return taken;
}

void cable_catch_up(struct cable *cable)
{
	for (int rounds = 0; rounds < HOST_TAP_FRAMES / BATCH; rounds++) {
		cable_deliver(cable);
		cable_take(cable, &cable->direction[FATE_UP]);
		cable_take(cable, &cable->direction[FATE_DOWN]);
		if (cable->direction[FATE_UP].empty && cable->direction[FATE_DOWN].empty)
			break;
	}
}

void cable_run(struct cable *cable, uint64_t seed)
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

void cable_set(struct cable *cable, enum fate_direction name, const struct fate_spec *spec)
{
	struct direction *direction = &cable->direction[name];
	fate_set(&direction->fate, spec);
	queue_set(&direction->queue, spec->rate_bits, spec->limit);
}

int cable_flush(struct cable *cable)
{
	int log = log_flush(&cable->log);
	int capture = pcapng_flush(&cable->pcapng);
	return log < 0 || capture < 0 ? -1 : 0;
}

uint64_t cable_oldest(const struct cable *cable)
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

void cable_init(struct cable *cable, const struct fate_spec spec[FATE_DIRECTIONS], uint64_t seed)
{
	static const enum host_id from[FATE_DIRECTIONS] = {
		[FATE_UP] = HOST_CLIENT, [FATE_DOWN] = HOST_SERVER};

	for (int i = 0; i < FATE_DIRECTIONS; i++) {
		struct direction *direction = &cable->direction[i];
		direction->name = (enum fate_direction)i;
		direction->from = from[i];
		direction->to = from[i] == HOST_CLIENT ? HOST_SERVER : HOST_CLIENT;
		fate_init(&direction->fate, seed, direction->name);
		cable_set(cable, direction->name, &spec[i]);
	}
	cable->next_id = 1;
	cable_run(cable, seed);
}
