/*
 * The smallest test bench: CHECK says where and what when a condition does not hold, and the
 * program's exit status says whether any did not. A unit test is one C program; tests/test_unit.py
 * runs them all.
 */
#ifndef TESTS_UNIT_CHECK_H
#define TESTS_UNIT_CHECK_H

#include <stdio.h>

static int check_failures;

#define CHECK(condition)                                                                        \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			check_failures++;                                                       \
		}                                                                               \
	} while (0)

/* Two integers that should be equal; both are shown when they are not. */
#define CHECK_EQ(got, wanted)                                                                      \
	do {                                                                                       \
		long long check_got = (long long)(got), check_wanted = (long long)(wanted);        \
		if (check_got != check_wanted) {                                                   \
			fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #got, \
				check_got, check_wanted);                                          \
			check_failures++;                                                          \
		}                                                                                  \
	} while (0)

#endif
