#include "common/wire/log.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* No row is longer: 23 fields of at most 20 digits. */
enum { ROW_BYTES = 512 };

static const char header[] =
	"run,id,direction,class,index,in_ns,out_ns,length,fate,copies,corrupted,reordered,"
	"ip_id,frag_offset,sport,dport,tcp_seq,tcp_ack,tcp_flags,payload,flow,kind,seq\n";

static char *put_text(char *at, const char *text)
{
	size_t length = strlen(text);
	memcpy(at, text, length);
	return at + length;
}

static char *put_number(char *at, uint64_t number)
{
	char digits[20];
	size_t n = sizeof digits;

	do {
		digits[--n] = (char)('0' + number % 10);
		number /= 10;
	} while (number > 0);
	memcpy(at, digits + n, sizeof digits - n);
	return at + (sizeof digits - n);
}

/* A comma, and the number where there is one. */
static char *put_field(char *at, bool has, uint64_t number)
{
	*at++ = ',';
	return has ? put_number(at, number) : at;
}

static const char *kind_name(uint8_t kind)
{
	static const char *const names[] = {"", "data", "request", "reply"};
	return kind < sizeof names / sizeof names[0] ? names[kind] : "";
}

void log_open(struct log *log, int fd)
{
	log->fd = fd;
	log->error = 0;
	log->used = 0;
	if (fd >= 0) {
		memcpy(log->buffer, header, sizeof header - 1);
		log->used = sizeof header - 1;
	}
}

int log_flush(struct log *log)
{
	size_t done = 0;

	while (log->fd >= 0 && log->error == 0 && done < log->used) {
		ssize_t n = write(log->fd, log->buffer + done, log->used - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			log->error = errno;
		else
			done += (size_t)n;
	}
	log->used = 0;
	errno = log->error;
	return log->error == 0 ? 0 : -1;
}

int log_close(struct log *log)
{
	int result = log_flush(log);

	if (log->fd >= 0 && close(log->fd) < 0 && result == 0) {
		log->error = errno;
		result = -1;
	}
	log->fd = -1;
	return result;
}

void log_packet(struct log *log, enum fate_direction direction, const struct queue_record *record,
	const char *fate, int64_t out_ns, unsigned copies, bool reordered)
{
	const struct frame_info *info = &record->info;
	char flags[FRAME_FLAGS_TEXT];

	if (log->fd < 0)
		return;
	if (log->used + ROW_BYTES > sizeof log->buffer)
		log_flush(log);

	char *at = log->buffer + log->used;
	at = put_number(at, record->run);
	at = put_field(at, true, record->id);
	*at++ = ',';
	at = put_text(at, fate_direction_name(direction));
	*at++ = ',';
	at = put_text(at, frame_class_name(info->class));
	at = put_field(at, true, record->fate.index);
	at = put_field(at, true, (uint64_t)record->in_ns);
	at = put_field(at, out_ns >= 0, (uint64_t)out_ns);
	at = put_field(at, true, record->length);
	*at++ = ',';
	at = put_text(at, fate);
	at = put_field(at, true, copies);
	at = put_field(at, true, record->fate.corrupted);
	at = put_field(at, true, reordered);
	at = put_field(at, info->has_ip_id, info->ip_id);
	at = put_field(at, info->has_ip_id, info->frag_offset);
	at = put_field(at, info->has_ports, info->sport);
	at = put_field(at, info->has_ports, info->dport);
	at = put_field(at, info->has_tcp, info->tcp_seq);
	at = put_field(at, info->has_tcp, info->tcp_ack);
	*at++ = ',';
	if (info->has_tcp)
		at = put_text(at, frame_flags_text(info->tcp_flags, flags));
	at = put_field(at, info->has_payload, info->payload_length);
	at = put_field(at, info->has_message, info->message_flow);
	*at++ = ',';
	if (info->has_message)
		at = put_text(at, kind_name(info->message_kind));
	at = put_field(at, info->has_message, info->message_seq);
	*at++ = '\n';
	log->used = (size_t)(at - log->buffer);
}
