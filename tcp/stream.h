/*
 * stream: what a byte stream makes you write. A write may take a part, a read may bring half a
 * message or three, so there is a loop around each. It knows fds and messages' lengths, and no
 * addresses.
 */
#ifndef TCP_STREAM_H
#define TCP_STREAM_H

#include "common/message.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

/*
 * Sends all n bytes. A write that comes back early, for SO_SNDTIMEO or a signal, is taken up again
 * until *stop is set. Returns false with errno when not all went: EINTR if stopped, EPIPE or
 * ECONNRESET if the other side is gone.
 */
bool stream_write(int fd, const uint8_t *buf, size_t n, const atomic_bool *stop);

struct stream {
	int fd;
	size_t begin, end; /* what was read and not yet handed out */
	uint8_t buf[2 * MESSAGE_MAX_BYTES];
};

/*
 * Hands out the next whole message, at *message until the next call. Returns its length, 0 at the
 * end of the stream, and -1 with errno otherwise:
 *   EAGAIN, EINTR  no whole message yet; what came is kept, call again
 *   EBADMSG        what comes next is no message of ours: close it, because nothing tells where
 *                  the next one would begin
 *   ENODATA        the stream ended in the middle of a message
 *   any other      of read(2)
 */
ssize_t stream_read(struct stream *s, const uint8_t **message);

#endif
