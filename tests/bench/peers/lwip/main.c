// SPDX-License-Identifier: MIT
//
// The serving end of a measured round on lwIP.
//
// It takes the same orders as agent.py, one JSON object a line, and answers each with one line.
// build.py compiles this program when it is needed, against Debian's liblwip.
//
//     lwip INTERFACE ADDRESS NETMASK

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lwip/tcpip.h>

#include "driver.h"

void fail(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    exit(1);
}

static void say(const char *line)
{
    printf("%s\n", line);
    fflush(stdout);
}

void ready(void)
{
    say("{\"ready\": true}");
}

// The value of a field in one line of JSON as Python's json.dumps writes it; NULL if it is not there.
static const char *field(const char *line, const char *name)
{
    char key[40];
    snprintf(key, sizeof key, "\"%s\": ", name);
    const char *at = strstr(line, key);
    return at == NULL ? NULL : at + strlen(key);
}

static int parse(const char *line, struct order *given)
{
    const char *op = field(line, "op"), *port = field(line, "port");
    const char *seconds = field(line, "seconds");
    if (op == NULL || port == NULL || sscanf(op, "\"%31[a-z_]\"", given->op) != 1)
        return 0;
    given->port = (uint16_t)strtoul(port, NULL, 10);
    given->seconds = seconds == NULL ? 0 : strtod(seconds, NULL);
    return 1;
}

static void started(void *unused)
{
    (void)unused;
}

int main(int count, char **words)
{
    char line[4096];
    struct order given;
    if (count != 4)
        fail("usage: lwip INTERFACE ADDRESS NETMASK");
    tcpip_init(started, NULL);
    tap_up(words[1], words[2], words[3]);
    say("{\"started\": true}");
    while (fgets(line, sizeof line, stdin) != NULL) {
        struct result found = {.error = "an order that is not understood"};
        if (parse(line, &given))
            found = obey(&given);
        if (found.error != NULL)
            snprintf(line, sizeof line, "{\"error\": \"%s\"}", found.error);
        else
            snprintf(line, sizeof line, "{\"bytes\": %llu, \"seconds\": %.6f}",
                     (unsigned long long)found.bytes, found.seconds);
        say(line);
    }
    return 0;
}
