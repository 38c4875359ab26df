/* checksum: against the examples of RFC 1071. */
#include "common/checksum.h"
#include "tests/unit/check.h"

#include <string.h>

int main(void)
{
	/* RFC 1071 section 3: 0001 f203 f4f5 f6f7 add up to ddf2, carries and all. */
	static const uint8_t rfc[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
	static const uint8_t odd[] = {0xab, 0xcd, 0xef};
	static uint8_t ones[200000];
	uint32_t sum;

	CHECK_EQ(checksum_finish(checksum_add(0, rfc, sizeof(rfc))), 0xffff ^ 0xddf2);
	/* In pieces it is the same, as long as only the last is odd. */
	sum = checksum_add(checksum_add(0, rfc, 2), rfc + 2, 6);
	CHECK_EQ(checksum_finish(sum), 0xffff ^ 0xddf2);
	CHECK_EQ(checksum_finish(checksum_add(0, odd, 3)), 0xffff ^ (0xabcd + 0xef00 - 0xffff));
	CHECK_EQ(checksum_finish(0), 0xffff);
	/* Many carries do not overflow the sum. */
	memset(ones, 0xff, sizeof(ones));
	CHECK_EQ(checksum_finish(checksum_add(0, ones, sizeof(ones))), 0);
	return check_failures != 0;
}
