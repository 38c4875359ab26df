/* The packets on their way in one direction. See queue.h. */
#include "common/wire/queue.h"

#include <stdlib.h>
#include <string.h>

/* A few hundred packets each: seldom allocated, soon given back. */
enum { CHUNK_BYTES = 256 * 1024 };

struct queue_chunk {
	size_t size; /* bytes behind this header */
	size_t used;
	size_t live; /* entries not yet released */
	_Alignas(struct queue_entry) uint8_t bytes[];
};

/*
 * A rate of a few bits a second and a long queue end in the year 2262: there time stands still, and
 * nothing wraps.
 */
static int64_t add_ns(int64_t a, uint64_t b)
{
	return b > (uint64_t)(INT64_MAX - 1 - a) ? INT64_MAX - 1 : a + (int64_t)b;
}

void queue_set(struct queue *queue, uint64_t rate_bits, uint64_t limit)
{
	if (rate_bits != queue->rate_bits)
		queue->remainder = 0;
	queue->rate_bits = rate_bits;
	queue->limit = limit;
}

static void free_chunk(struct queue *queue, struct queue_chunk *chunk)
{
	queue->memory_bytes -= sizeof(*chunk) + chunk->size;
	free(chunk);
}

static struct queue_chunk *new_chunk(struct queue *queue, size_t size)
{
	struct queue_chunk *chunk = queue->spare;

	if (chunk && size <= chunk->size) {
		queue->spare = NULL;
		return chunk;
	}
	if (size < CHUNK_BYTES)
		size = CHUNK_BYTES;
	chunk = malloc(sizeof(*chunk) + size);
	if (!chunk)
		return NULL;
	chunk->size = size;
	chunk->used = 0;
	chunk->live = 0;
	queue->memory_bytes += sizeof(*chunk) + size;
	return chunk;
}

/* No entry is left in it: keep one for later, let go of the rest. */
static void retire_chunk(struct queue *queue, struct queue_chunk *chunk)
{
	chunk->used = 0;
	if (chunk == queue->filling[0] || chunk == queue->filling[1])
		return;
	if (queue->spare || chunk->size > CHUNK_BYTES)
		free_chunk(queue, chunk);
	else
		queue->spare = chunk;
}

static struct queue_entry *new_entry(struct queue *queue, size_t length, bool ahead)
{
	const size_t align = _Alignof(struct queue_entry);
	size_t size = (sizeof(struct queue_entry) + length + align - 1) / align * align;
	struct queue_chunk **filling = &queue->filling[ahead];
	struct queue_chunk *chunk = *filling;
	struct queue_entry *entry;

	if (!chunk || size > chunk->size - chunk->used) {
		chunk = new_chunk(queue, size);
		if (!chunk)
			return NULL;
		if (*filling && (*filling)->live == 0)
			free_chunk(queue, *filling);
		*filling = chunk;
	}
	entry = (struct queue_entry *)(void *)(chunk->bytes + chunk->used);
	chunk->used += size;
	chunk->live++;
	entry->chunk = chunk;
	return entry;
}

/* When the last bit is through the transmitter, which takes one packet at a time. */
static int64_t transmit(struct queue *queue, int64_t now_ns, uint32_t length)
{
	int64_t start_ns = now_ns;
	uint64_t work;

	if (queue->free_ns > now_ns)
		start_ns = queue->free_ns;
	else
		queue->remainder = 0; /* it was idle */
	if (queue->rate_bits == 0)
		return start_ns;
	work = length * UINT64_C(8000000000) + queue->remainder;
	queue->remainder = work % queue->rate_bits;
	queue->free_ns = add_ns(start_ns, work / queue->rate_bits);
	return queue->free_ns;
}

static void append(struct queue_list *list, struct queue_entry *entry)
{
	if (list->tail)
		list->tail->next = entry;
	else
		list->head = entry;
	list->tail = entry;
}

int queue_push(struct queue *queue, int64_t now_ns, const uint8_t *bytes,
	const struct queue_record *record)
{
	struct queue_entry *entry;
	int64_t sent_ns;

	if (queue->limit > 0 && queue->count >= queue->limit)
		return 0;
	entry = new_entry(queue, record->length, record->fate.ahead);
	if (!entry)
		return -1;
	entry->next = NULL;
	entry->order = queue->pushed++;
	entry->record = *record;
	memcpy(entry->bytes, bytes, record->length);
	sent_ns = transmit(queue, now_ns, record->length);
	if (record->fate.ahead) {
		entry->due_ns = sent_ns;
		append(&queue->ahead, entry);
	} else {
		entry->due_ns = add_ns(sent_ns, (uint64_t)record->fate.delay_ns);
		if (entry->due_ns < queue->last_due_ns)
			entry->due_ns = queue->last_due_ns;
		queue->last_due_ns = entry->due_ns;
		append(&queue->in_order, entry);
	}
	queue->count++;
	return 1;
}

/* The list whose head is due first; of two at the same time, what came first. */
static const struct queue_list *first_list(const struct queue *queue)
{
	const struct queue_entry *a = queue->in_order.head, *b = queue->ahead.head;

	if (!b)
		return &queue->in_order;
	if (!a || b->due_ns < a->due_ns || (b->due_ns == a->due_ns && b->order < a->order))
		return &queue->ahead;
	return &queue->in_order;
}

int64_t queue_next_due(const struct queue *queue)
{
	const struct queue_entry *entry = first_list(queue)->head;

	return entry ? entry->due_ns : INT64_MAX;
}

struct queue_entry *queue_pop(struct queue *queue, int64_t now_ns)
{
	struct queue_list *list =
		first_list(queue) == &queue->ahead ? &queue->ahead : &queue->in_order;
	struct queue_entry *entry = list->head;

	if (!entry || entry->due_ns > now_ns)
		return NULL;
	list->head = entry->next;
	if (!list->head)
		list->tail = NULL;
	entry->next = NULL;
	queue->count--;
	return entry;
}

void queue_release(struct queue *queue, struct queue_entry *entry)
{
	struct queue_chunk *chunk = entry->chunk;

	if (--chunk->live == 0)
		retire_chunk(queue, chunk);
}

void queue_clear(struct queue *queue)
{
	struct queue_entry *entry;

	while ((entry = queue_pop(queue, INT64_MAX)) != NULL)
		queue_release(queue, entry);
	for (int i = 0; i < 2; i++) {
		if (queue->filling[i])
			free_chunk(queue, queue->filling[i]);
		queue->filling[i] = NULL;
	}
	if (queue->spare)
		free_chunk(queue, queue->spare);
	queue->spare = NULL;
	queue->remainder = 0;
	queue->free_ns = queue->last_due_ns = 0;
}

bool queue_order_reordered(struct queue_order *order, const struct queue_record *record)
{
	uint64_t *next_exp = &order->next_exp[record->info.class];

	if (record->run < order->run)
		return true;
	if (record->run > order->run) {
		memset(order, 0, sizeof(*order));
		order->run = record->run;
	}
	if (record->fate.index < *next_exp)
		return true;
	*next_exp = record->fate.index + 1;
	return false;
}
