// SPDX-License-Identifier: MIT
#ifndef DRIVER_H
#define DRIVER_H

#include <stdint.h>

// Says on standard error why, and ends the process.
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

// Bring lwIP's interface up on a TAP that is there.
void tap_up(const char *name, const char *address, const char *netmask);

// What bench.py orders, as far as it matters here.
struct order {
    char op[32];
    uint16_t port;
    double seconds;
};

// The answer of a round; error: NULL, or why the round failed.
struct result {
    uint64_t bytes;
    double seconds;
    const char *error;
};

// Say that a socket listens.
void ready(void);

struct result obey(const struct order *given);

#endif
