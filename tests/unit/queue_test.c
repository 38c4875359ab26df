/*
 * Packets on their way: when each leaves, in which order, how many there may be, and the memory
 * that they take.
 */
#include "common/wire/queue.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/check.h"

#define MS INT64_C(1000000)

static uint8_t frame[70000];

/* Pushes a frame of that length, numbered. */
static int push(struct queue *queue, int64_t now_ns, uint64_t id, uint32_t length, int64_t delay_ns,
	bool ahead)
{
	struct queue_record record = {.id = id, .in_ns = now_ns, .length = length};

	record.fate.delay_ns = ahead ? 0 : delay_ns;
	record.fate.ahead = ahead;
	if (length >= sizeof(id))
		memcpy(frame, &id, sizeof(id));
	return queue_push(queue, now_ns, frame, &record);
}

/* Pops what is due, and checks which it is and that it is whole. */
static void check_pop(struct queue *queue, int64_t now_ns, uint64_t id, int64_t due_ns, int line)
{
	struct queue_entry *entry = queue_pop(queue, now_ns);
	uint64_t inside;

	if (!entry || entry->record.id != id || entry->due_ns != due_ns) {
		fprintf(stderr,
			"queue_test.c:%d: got %" PRId64 " due %" PRId64 ", not %" PRIu64
			" due %" PRId64 "\n",
			line, entry ? (int64_t)entry->record.id : -1, entry ? entry->due_ns : -1,
			id, due_ns);
		check_failures++;
	}
	if (!entry)
		return;
	memcpy(&inside, entry->bytes, sizeof(inside));
	CHECK_EQ(inside, id);
	CHECK(entry->record.length == 8 ||
		memcmp(entry->bytes + 8, frame + 8, entry->record.length - 8) == 0);
	queue_release(queue, entry);
}
#define POP(queue, now, id, due) check_pop(queue, now, id, due, __LINE__)

static void test_delay(void)
{
	struct queue queue = {0};

	CHECK_EQ(queue_next_due(&queue), INT64_MAX);
	CHECK(queue_pop(&queue, INT64_MAX) == NULL);
	CHECK_EQ(push(&queue, 100, 0, 60, 20 * MS, false), 1);
	CHECK_EQ(push(&queue, 200, 1, 1514, 20 * MS, false), 1);
	CHECK_EQ(queue_next_due(&queue), 20 * MS + 100);
	CHECK(queue_pop(&queue, 20 * MS + 99) == NULL);
	POP(&queue, 20 * MS + 100, 0, 20 * MS + 100);
	CHECK(queue_pop(&queue, 20 * MS + 199) == NULL);
	CHECK_EQ(queue.count, 1);
	POP(&queue, 30 * MS, 1, 20 * MS + 200);
	CHECK_EQ(queue.count, 0);
	CHECK_EQ(queue_next_due(&queue), INT64_MAX);
	/* Without any delay it is due at once. */
	CHECK_EQ(push(&queue, 40 * MS, 2, 8, 0, false), 1);
	POP(&queue, 40 * MS, 2, 40 * MS);
	queue_clear(&queue);
	CHECK_EQ(queue.memory_bytes, 0);
}

/* Whatever the delays, out times never go back, and what came first leaves first. */
static void test_jitter_keeps_order(void)
{
	struct queue queue = {0};
	int64_t last_ns = 0, now_ns = 0;
	uint64_t id = 0, next = 0;
	size_t held_back = 0;

	srand(2);
	CHECK_EQ(push(&queue, 0, id++, 60, 10 * MS, false), 1);
	CHECK_EQ(push(&queue, 1, id++, 60, 1 * MS, false), 1);
	CHECK_EQ(push(&queue, 2, id++, 60, 30 * MS, false), 1);
	POP(&queue, 10 * MS, next++, 10 * MS);
	POP(&queue, 10 * MS, next++, 10 * MS);
	POP(&queue, 31 * MS, next++, 30 * MS + 2);
	for (now_ns = 40 * MS; next < 20000; now_ns += rand() % 100000) {
		struct queue_entry *entry;

		if (id < 20000)
			push(&queue, now_ns, id++, 60, rand() % (10 * MS), false);
		while ((entry = queue_pop(&queue, now_ns)) != NULL) {
			CHECK_EQ(entry->record.id, next);
			next++;
			CHECK(entry->due_ns >= last_ns && entry->due_ns <= now_ns);
			held_back +=
				entry->due_ns > entry->record.in_ns + entry->record.fate.delay_ns;
			last_ns = entry->due_ns;
			queue_release(&queue, entry);
		}
	}
	CHECK(held_back > 5000);
	queue_clear(&queue);
}

static void test_ahead(void)
{
	struct queue queue = {0};

	push(&queue, 0, 0, 60, 10 * MS, false);
	push(&queue, 1 * MS, 1, 60, 10 * MS, false);
	push(&queue, 2 * MS, 2, 60, 0, true);
	CHECK_EQ(queue_next_due(&queue), 2 * MS);
	POP(&queue, 2 * MS, 2, 2 * MS);
	/* It does not hold up, nor hasten, those behind it. */
	push(&queue, 3 * MS, 3, 60, 10 * MS, false);
	push(&queue, 10 * MS, 4, 60, 0, true);
	/* Due at the same time: what came first. */
	POP(&queue, 20 * MS, 0, 10 * MS);
	POP(&queue, 20 * MS, 4, 10 * MS);
	POP(&queue, 20 * MS, 1, 11 * MS);
	POP(&queue, 20 * MS, 3, 13 * MS);
	queue_clear(&queue);
}

static void test_rate(void)
{
	struct queue queue = {0};

	/* 1250 bytes at 10 mbit/s take 1 ms, one after the other, and then the delay. */
	queue_set(&queue, 10000000, 0);
	for (uint64_t id = 0; id < 3; id++)
		push(&queue, 0, id, 1250, 5 * MS, false);
	POP(&queue, 100 * MS, 0, 6 * MS);
	POP(&queue, 100 * MS, 1, 7 * MS);
	POP(&queue, 100 * MS, 2, 8 * MS);
	/* An idle transmitter starts at once, and saves nothing up. */
	push(&queue, 200 * MS, 3, 1250, 0, false);
	push(&queue, 200 * MS + 1, 4, 125, 0, false);
	POP(&queue, 300 * MS, 3, 201 * MS);
	POP(&queue, 300 * MS, 4, 201 * MS + 100000);
	/*
	 * Jitter behind the transmitter keeps order too; what is sent ahead waits for the
	 * transmitter only.
	 */
	push(&queue, 400 * MS, 5, 1250, 20 * MS, false);
	push(&queue, 400 * MS, 6, 1250, 1 * MS, false);
	push(&queue, 400 * MS, 7, 1250, 0, true);
	POP(&queue, 500 * MS, 7, 403 * MS);
	POP(&queue, 500 * MS, 5, 421 * MS);
	POP(&queue, 500 * MS, 6, 421 * MS);
	/* A rate that is taken away still lets go what it holds in order. */
	push(&queue, 600 * MS, 8, 1250, 0, false);
	queue_set(&queue, 0, 0);
	push(&queue, 600 * MS, 9, 1250, 2 * MS, false);
	push(&queue, 600 * MS, 11, 1250, 0, true);
	POP(&queue, 700 * MS, 8, 601 * MS);
	POP(&queue, 700 * MS, 11, 601 * MS);
	POP(&queue, 700 * MS, 9, 603 * MS);
	push(&queue, 700 * MS, 10, 1250, 0, false);
	POP(&queue, 700 * MS, 10, 700 * MS);
	queue_clear(&queue);
}

/*
 * No nanosecond is lost to rounding: 3 bits a nanosecond, and 100 000 packets that do not divide by
 * it.
 */
static void test_rate_is_exact(void)
{
	struct queue queue = {0};
	int64_t due_ns = 0;

	queue_set(&queue, UINT64_C(3000000000), 0);
	for (uint64_t id = 0; id < 100000; id++) {
		struct queue_entry *entry;

		push(&queue, 0, id, 64, 0, false);
		entry = queue_pop(&queue, INT64_MAX);
		due_ns = entry->due_ns;
		queue_release(&queue, entry);
	}
	CHECK_EQ(due_ns, INT64_C(100000) * 64 * 8 / 3);
	/* The slowest line there is, never out of packets: time ends, and does not begin again. */
	queue_set(&queue, 8, 0);
	for (uint64_t id = 0; id < 300000; id++) {
		struct queue_entry *entry;

		push(&queue, 0, id, 65000, INT64_C(3600000000000), false);
		entry = queue_pop(&queue, INT64_MAX);
		CHECK(entry->due_ns >= due_ns && entry->due_ns < INT64_MAX);
		due_ns = entry->due_ns;
		queue_release(&queue, entry);
	}
	CHECK_EQ(due_ns, INT64_MAX - 1);
	queue_clear(&queue);
}

static void test_limit(void)
{
	struct queue queue = {0};

	queue_set(&queue, 0, 3);
	for (uint64_t id = 0; id < 3; id++)
		CHECK_EQ(push(&queue, 0, id, 60, 10 * MS, false), 1);
	CHECK_EQ(push(&queue, 0, 3, 60, 10 * MS, false), 0);
	CHECK_EQ(push(&queue, 0, 4, 60, 0, true), 0);
	CHECK_EQ(queue.count, 3);
	POP(&queue, 10 * MS, 0, 10 * MS);
	CHECK_EQ(push(&queue, 10 * MS, 5, 60, 10 * MS, false), 1);
	CHECK_EQ(push(&queue, 10 * MS, 6, 60, 10 * MS, false), 0);
	/* A smaller limit lets those on their way arrive. */
	queue_set(&queue, 0, 1);
	POP(&queue, 30 * MS, 1, 10 * MS);
	POP(&queue, 30 * MS, 2, 10 * MS);
	CHECK_EQ(push(&queue, 30 * MS, 7, 60, 0, false), 0);
	POP(&queue, 30 * MS, 5, 20 * MS);
	CHECK_EQ(push(&queue, 30 * MS, 8, 60, 0, false), 1);
	/* What a full queue turned away took no time of the transmitter. */
	queue_set(&queue, 1000000, 2);
	CHECK_EQ(push(&queue, 30 * MS, 9, 125, 0, false), 1);
	CHECK_EQ(push(&queue, 30 * MS, 10, 125, 0, false), 0);
	POP(&queue, 40 * MS, 8, 30 * MS);
	CHECK_EQ(push(&queue, 31 * MS, 11, 125, 0, false), 1);
	POP(&queue, 40 * MS, 9, 31 * MS);
	POP(&queue, 40 * MS, 11, 32 * MS);
	queue_clear(&queue);
}

/*
 * A second's worth at full speed: memory follows what is in flight, up and down, and again no
 * further.
 */
static void test_memory(void)
{
	struct queue queue = {0};
	const size_t each = sizeof(struct queue_entry) + 60 + 16;
	size_t highest = 0;

	for (int round = 0; round < 2; round++) {
		int64_t start_ns = round * 10000 * MS;

		for (uint64_t id = 0; id < 250000; id++)
			push(&queue, start_ns + (int64_t)id * 4000, id, 60, 1000 * MS, false);
		CHECK_EQ(queue.count, 250000);
		CHECK(queue.memory_bytes < 250000 * each + 1000000);
		CHECK(round == 0 || queue.memory_bytes <= highest + 600000);
		highest = queue.memory_bytes;
		/* It goes on for a while with as many in flight. */
		for (uint64_t id = 250000; id < 1000000; id++) {
			POP(&queue, start_ns + (int64_t)id * 4000, id - 250000,
				start_ns + ((int64_t)id - 250000) * 4000 + 1000 * MS);
			push(&queue, start_ns + (int64_t)id * 4000, id, 60, 1000 * MS, false);
		}
		CHECK(queue.memory_bytes <= highest + 600000);
		for (uint64_t id = 750000; id < 1000000; id++)
			POP(&queue, INT64_MAX, id, start_ns + (int64_t)id * 4000 + 1000 * MS);
		CHECK_EQ(queue.count, 0);
		CHECK(queue.memory_bytes < 600000);
	}
	queue_clear(&queue);
	CHECK_EQ(queue.memory_bytes, 0);
}

/* What waits keeps no memory of those that overtook it. */
static void test_memory_ahead(void)
{
	struct queue queue = {0};

	for (uint64_t id = 0; id < 100000; id++) {
		bool ahead = id % 100 != 0;

		push(&queue, (int64_t)id, id, 1500, 10000 * MS, ahead);
		if (ahead)
			POP(&queue, (int64_t)id, id, (int64_t)id);
	}
	CHECK_EQ(queue.count, 1000);
	CHECK(queue.memory_bytes < 1000 * (sizeof(struct queue_entry) + 1500) + 800000);
	queue_clear(&queue);
	CHECK_EQ(queue.memory_bytes, 0);
}

/* Lengths of all kinds, sent ahead and not, released late and out of order. */
static void test_random(void)
{
	struct queue queue = {0};
	struct queue_entry *kept[16] = {NULL};
	int64_t now_ns = 0, last_ns = 0;
	uint64_t pushed = 0, popped = 0;

	srand(3);
	for (size_t i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)rand();
	for (int round = 0; round < 50000; round++) {
		struct queue_entry *entry;
		size_t at = (size_t)rand() % 16;

		now_ns += rand() % 1000;
		if (rand() % 2000 == 0)
			queue_set(&queue, (uint64_t)(rand() % 3) * 5000000000,
				(uint64_t)(rand() % 3) * 500);
		pushed += push(&queue, now_ns, pushed,
				  rand() % 100 ? 8 + (uint32_t)rand() % 1500 : 65000,
				  rand() % 1000000, rand() % 4 == 0) == 1;
		for (; (entry = queue_pop(&queue, now_ns)) != NULL; at = (at + 7) % 16) {
			CHECK(entry->due_ns >= last_ns);
			last_ns = entry->due_ns;
			CHECK(memcmp(entry->bytes + 8, frame + 8, entry->record.length - 8) == 0);
			popped++;
			if (kept[at])
				queue_release(&queue, kept[at]);
			kept[at] = entry;
		}
	}
	CHECK_EQ(pushed, popped + queue.count);
	for (size_t i = 0; i < 16; i++)
		if (kept[i])
			queue_release(&queue, kept[i]);
	queue_clear(&queue);
	CHECK_EQ(queue.memory_bytes, 0);
}

static void test_order(void)
{
	/* Only 5 and 6 are reordered, not 7, which was early (RFC 4737 3.3). */
	static const int arrivals[] = {1, 2, 3, 4, 7, 5, 6, 8, 9, 10};
	struct queue_order order = {0};
	struct queue_record record = {.run = 1};

	record.info.class = FRAME_UDP;
	for (size_t i = 0; i < sizeof(arrivals) / sizeof(arrivals[0]); i++) {
		record.fate.index = (uint64_t)arrivals[i];
		CHECK_EQ(queue_order_reordered(&order, &record),
			arrivals[i] == 5 || arrivals[i] == 6);
	}
	/* Each class for itself. */
	record.info.class = FRAME_TCP;
	record.fate.index = 0;
	CHECK(!queue_order_reordered(&order, &record));
	record.info.class = FRAME_UDP;
	CHECK(queue_order_reordered(&order, &record));
	/* A new run begins anew, and a straggler of the old one is behind it. */
	record.run = 2;
	CHECK(!queue_order_reordered(&order, &record));
	record.run = 1;
	record.fate.index = 100;
	CHECK(queue_order_reordered(&order, &record));
	record.run = 2;
	record.fate.index = 1;
	CHECK(!queue_order_reordered(&order, &record));
}

int main(void)
{
	test_delay();
	test_jitter_keeps_order();
	test_ahead();
	test_rate();
	test_rate_is_exact();
	test_limit();
	test_memory();
	test_memory_ahead();
	test_random();
	test_order();
	return check_failures != 0;
}
