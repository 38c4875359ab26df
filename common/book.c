#include "common/book.h"
#include "common/clock.h"

#include <err.h>
#include <stdlib.h>

struct book book_open(struct options *o)
{
	struct book book = {.o = o,
		.clock_id = clock_id(),
		.flows = calloc(o->flows, sizeof(*book.flows)),
		.log = log_open(o, LOG_RECEIVED_COLUMNS)};

	if (!book.flows)
		err(1, "%u flows", o->flows);
	for (uint16_t i = 0; i < o->flows; i++)
		book.flows[i].tally = tally_new(o->count, o->wait_ns);
	return book;
}

static struct arrival arrival_of(const struct message *m, int64_t now_ns, uint32_t our_clock_id)
{
	return (struct arrival){.seq = m->seq,
		.due_ns = m->due_ns,
		.sent_ns = m->sent_ns,
		.received_ns = now_ns,
		.bytes = m->length,
		.same_clock = m->clock_id && m->clock_id == our_clock_id};
}

int book_enter(struct book *book, const uint8_t *buf, size_t n, int64_t now_ns)
{
	struct message m;
	struct arrival arrival;
	enum tally_verdict entered;
	enum message_verdict verdict = message_decode(buf, n, &m);

	if (verdict == MESSAGE_CORRUPT) {
		book->all.corrupt++;
		return -1;
	}
	if (verdict == MESSAGE_ALIEN) {
		book->all.alien++;
		return -1;
	}
	if (m.kind == MESSAGE_DATA && !book->o->run)
		book->o->run = message_run(&m);
	if (m.kind != MESSAGE_DATA || message_run(&m) != book->o->run) {
		book->all.foreign++;
		return -1;
	}
	if (message_index(&m) >= book->o->flows) {
		book->all.alien++;
		return -1;
	}
	arrival = arrival_of(&m, now_ns, book->clock_id);
	entered = tally_add(book->flows[message_index(&m)].tally, &arrival);
	if (entered == TALLY_ALIEN) {
		book->all.alien++;
		return -1;
	}
	book->last_ns = now_ns;
	log_received(book->log, message_index(&m), m.seq, m.due_ns, m.sent_ns, now_ns, m.length,
		tally_verdict_name(entered));
	return message_index(&m);
}

bool book_complete(const struct book *book)
{
	for (uint16_t i = 0; i < book->o->flows; i++)
		if (!tally_complete(book->flows[i].tally))
			return false;
	return true;
}

const char *book_ended(struct book *book, bool stopped, bool idle)
{
	if (!stopped && !idle)
		return NULL;
	if (stopped && !book->stopped_ns)
		book->stopped_ns = clock_now_ns();
	if (stopped && (idle || clock_now_ns() - book->stopped_ns > CLOCK_NS_PER_SECOND))
		return "signal";
	if (idle && book_complete(book))
		return "count";
	if (idle && book->last_ns && clock_now_ns() - book->last_ns >= book->o->wait_ns)
		return "wait";
	return NULL;
}

bool book_reply(const struct asked *asked, const uint8_t *buf, size_t n, int64_t now_ns)
{
	struct flow_report *r = asked->r;
	struct message m;
	struct arrival arrival;
	enum message_verdict verdict = message_decode(buf, n, &m);

	if (verdict == MESSAGE_CORRUPT) {
		r->corrupt++;
		return false;
	}
	if (verdict == MESSAGE_ALIEN) {
		r->alien++;
		return false;
	}
	if (m.kind != MESSAGE_REPLY || m.flow != asked->m.flow) {
		r->foreign++;
		return false;
	}
	arrival = arrival_of(&m, now_ns, asked->m.clock_id);
	switch (tally_add(r->tally, &arrival)) {
	case TALLY_FIRST:
		r->received++;
		samples_add(&r->rtt, now_ns - m.sent_ns);
		report_reply(asked->o, message_index(&m), m.seq, m.length, now_ns - m.sent_ns);
		log_received(asked->log, message_index(&m), m.seq, m.due_ns, m.sent_ns, now_ns,
			m.length, "reply");
		break;
	case TALLY_DUPLICATE:
		r->duplicates++;
		break;
	case TALLY_LATE:
		r->late++;
		break;
	case TALLY_ALIEN:
		r->alien++;
		break;
	}
	return m.seq == asked->m.seq;
}
