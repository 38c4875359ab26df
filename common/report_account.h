/*
 * report_account: an account as one JSON object or as a few lines for people. It prints what it is
 * given and judges nothing.
 */
#ifndef COMMON_REPORT_ACCOUNT_H
#define COMMON_REPORT_ACCOUNT_H

#include "common/tally.h"

#include <stdio.h>

/*
 * The object, braces and all, on one line and without a newline behind it. What is not known is
 * null.
 */
void report_account_json(FILE *out, const struct account *a);

/* The people's version, some aligned lines, each with its newline. */
void report_account_text(FILE *out, const struct account *a);

#endif
