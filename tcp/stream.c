#include "tcp/stream.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

bool stream_write(int fd, const uint8_t *buf, size_t n, const atomic_bool *stop)
{
	while (n) {
		/* MSG_NOSIGNAL: a peer that is gone is an error to be counted, not a SIGPIPE. */
		ssize_t sent = send(fd, buf, n, MSG_NOSIGNAL);

		if (sent >= 0) {
			buf += sent;
			n -= (size_t)sent;
		} else if (errno != EAGAIN && errno != EINTR) {
			return false;
		}
		if (n && *stop) {
			errno = EINTR;
			return false;
		}
	}
	return true;
}

/* The length of the message that is wholly in the buffer; 0 if none is, -1 if none ever will be. */
static ssize_t whole_message(const struct stream *s)
{
	size_t have = s->end - s->begin, length;

	if (have < MESSAGE_HEADER_BYTES)
		return 0;
	length = message_length(s->buf + s->begin);
	if (!length)
		return -1;
	return have >= length ? (ssize_t)length : 0;
}

ssize_t stream_read(struct stream *s, const uint8_t **message)
{
	ssize_t length, n;

	while ((length = whole_message(s)) == 0) {
		/* A message must lie in one piece: make room behind what there is of it. */
		if (s->begin && sizeof(s->buf) - s->begin < MESSAGE_MAX_BYTES) {
			memmove(s->buf, s->buf + s->begin, s->end - s->begin);
			s->end -= s->begin;
			s->begin = 0;
		}
		n = recv(s->fd, s->buf + s->end, sizeof(s->buf) - s->end, 0);
		if (n == 0 && s->end > s->begin) {
			errno = ENODATA;
			return -1;
		}
		if (n <= 0)
			return n;
		s->end += (size_t)n;
	}
	if (length < 0) {
		errno = EBADMSG;
		return -1;
	}
	*message = s->buf + s->begin;
	s->begin += (size_t)length;
	if (s->begin == s->end)
		s->begin = s->end = 0; /* *message stays where it is until the next read */
	return length;
}
