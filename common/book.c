#include "common/book.h"
#include "common/clock.h"
#include "common/stop.h"

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

/* Enters a message into its flow. Returns the flow, or -1 if it is alien or foreign. */
static int enter_message(struct book *book, const struct message *m, int64_t now_ns)
{
	struct arrival arrival = arrival_of(m, now_ns, book->clock_id);
	uint16_t run = book->o->run ? book->o->run : message_run(m);
	enum tally_verdict entered;

	if (m->kind != MESSAGE_DATA || message_run(m) != run) {
		book->all.foreign++;
		return -1;
	}
	/* On one clock nothing arrives before it was sent: such a time is forged. */
	if (message_index(m) >= book->o->flows ||
		(arrival.same_clock && (m->sent_ns > now_ns || m->due_ns > m->sent_ns))) {
		book->all.alien++;
		return -1;
	}
	entered = tally_add(book->flows[message_index(m)].tally, &arrival);
	if (entered == TALLY_ALIEN) {
		book->all.alien++;
		return -1;
	}
	book->o->run = run;
	log_received(book->log, message_index(m), m->seq, m->due_ns, m->sent_ns, now_ns, m->length,
		tally_verdict_name(entered));
	return message_index(m);
}

int book_enter(struct book *book, const uint8_t *buf, size_t n, int64_t now_ns)
{
	struct message m;
	int flow = -1;

	switch (message_decode(buf, n, &m)) {
	case MESSAGE_CORRUPT:
		book->all.corrupt++;
		break;
	case MESSAGE_ALIEN:
		book->all.alien++;
		break;
	case MESSAGE_OK:
		flow = enter_message(book, &m, now_ns);
		break;
	}
	book->last_was_ours = flow >= 0;
	if (flow >= 0)
		book->last_ns = now_ns;
	return flow;
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
	int64_t now_ns;

	/* In a stream of our own messages there is nothing to look at, and no time to lose. */
	if (!stopped && !idle && book->last_was_ours)
		return NULL;
	now_ns = clock_now_ns();
	if (stopped && !book->stopped_ns)
		book->stopped_ns = now_ns;
	if (stopped && (idle || now_ns - book->stopped_ns > CLOCK_NS_PER_SECOND))
		return "signal";
	if ((idle || now_ns - book->last_ns > STOP_TIMEOUT_NS) && book_complete(book))
		return "count";
	if (book->last_ns && now_ns - book->last_ns >= book->o->wait_ns)
		return "wait";
	return NULL;
}

void book_close(struct book *book)
{
	log_close(book->log, book->o->log);
	for (uint16_t i = 0; i < book->o->flows; i++)
		tally_free(book->flows[i].tally);
	free(book->flows);
}

bool book_reply(const struct asked *asked, const uint8_t *buf, size_t n, int64_t now_ns)
{
	struct flow_report *r = asked->r;
	const struct message *request = &asked->m;
	const char *verdict = NULL;
	struct arrival arrival;
	struct message m;

	switch (message_decode(buf, n, &m)) {
	case MESSAGE_CORRUPT:
		r->corrupt++;
		return false;
	case MESSAGE_ALIEN:
		r->alien++;
		return false;
	case MESSAGE_OK:
		break;
	}
	if (m.kind != MESSAGE_REPLY || m.flow != request->flow) {
		r->foreign++;
		return false;
	}
	if (m.seq > request->seq || m.sent_ns < 0 || m.sent_ns > now_ns ||
		(m.seq == request->seq && m.sent_ns != request->sent_ns)) {
		r->alien++;
		return false;
	}
	arrival = arrival_of(&m, now_ns, asked->m.clock_id);
	arrival.same_clock = true; /* the times are our own, come back */
	switch (tally_add(r->tally, &arrival)) {
	case TALLY_FIRST:
		verdict = "reply";
		r->received++;
		samples_add(&r->rtt, now_ns - m.sent_ns);
		report_reply(asked->o, message_index(&m), m.seq, m.length, now_ns - m.sent_ns);
		break;
	case TALLY_DUPLICATE:
		r->duplicates++;
		break;
	case TALLY_LATE:
		verdict =
			m.seq == request->seq ? "late" : NULL; /* else it stands as lost already */
		r->late++;
		break;
	case TALLY_ALIEN:
		r->alien++;
		break;
	}
	if (verdict)
		log_received(asked->log, message_index(&m), m.seq, m.due_ns, m.sent_ns, now_ns,
			m.length, verdict);
	return m.seq == request->seq;
}

void book_unanswered(const struct asked *asked, bool stopped)
{
	const struct message *m = &asked->m;

	if (stopped)
		asked->r->outstanding++;
	else
		log_received(asked->log, message_index(m), m->seq, m->due_ns, m->sent_ns, -1,
			m->length, "lost");
}
